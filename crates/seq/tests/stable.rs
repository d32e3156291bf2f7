//! Slots that stay where they are.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{LONG, client_of, key, keys, next, place, reads, session, stable, told};
use sereno_seq::core::Client;
use sereno_seq::{Assignment, Error, Invalid, Position, Sequence};
use sereno_testkit::{Oracle, eventually};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_lowest_free_slot_is_taken_and_nobody_else_moves() {
    let (client, oracle) = place("lowest").await;
    let session = session(&client, 15).await;
    let group = stable(&session, "g");
    let mut members = Vec::new();
    for slot in 0..5_usize {
        members.push(Some(group.join().await.unwrap()));
        assert_eq!(told(&members[slot].as_ref().unwrap().position()), format!("{slot}/{}", slot + 1));
    }
    let claim = members[4].as_ref().unwrap().claim().await.unwrap();
    for gone in [1, 3] {
        members[gone].take().unwrap().leave().await.unwrap();
    }
    for slot in [0, 2, 4] {
        reads(members[slot].as_ref().unwrap(), &format!("{slot}/3")).await;
    }
    assert!(claim.is_valid(), "nobody moved");
    assert_eq!(keys(&oracle, &client, "g/slots/").await, ["0", "2", "4"]);
    members[1] = Some(group.join().await.unwrap());
    assert_eq!(told(&members[1].as_ref().unwrap().position()), "1/4");
    members[3] = Some(group.join().await.unwrap());
    assert_eq!(told(&members[3].as_ref().unwrap().position()), "3/5");
    assert_eq!(keys(&oracle, &client, "g/slots/").await.len(), 5);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn whoever_takes_a_slot_anew_gets_the_share_of_its_former_holder() {
    let (client, _) = place("share").await;
    let session = session(&client, 15).await;
    let group = stable(&session, "g");
    let (a, b, c) = (group.join().await.unwrap(), group.join().await.unwrap(), group.join().await.unwrap());
    for (slot, member) in [&a, &b, &c].into_iter().enumerate() {
        reads(member, &format!("{slot}/3")).await;
    }
    let shares = |of: &[&sereno_seq::Member]| -> Vec<Vec<u32>> {
        of.iter().map(|member| member.position().unwrap().partitions(96)).collect()
    };
    let before = shares(&[&a, &b, &c]);
    let mut all = before.concat();
    all.sort_unstable();
    assert_eq!(all, (0..96).collect::<Vec<_>>());
    let was = b.position().unwrap();
    b.leave().await.unwrap();
    reads(&a, "0/2").await;
    reads(&c, "2/2").await;
    let b = group.join().await.unwrap();
    reads(&a, "0/3").await;
    reads(&c, "2/3").await;
    assert_eq!(shares(&[&a, &b, &c]), before);
    assert!(Position::moves(Some(&was), Some(&b.position().unwrap()), 96).is_empty());
    assert_eq!(Position::moves(Some(&was), None, 96).lost, before[1]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_deleted_slot_is_told_and_taken_again() {
    let (client, oracle) = place("slot").await;
    let session = session(&client, 15).await;
    let member = stable(&session, "g").join().await.unwrap();
    let mut positions = member.positions();
    assert_eq!(told(&next(&mut positions).await), "0/1");
    assert!(oracle.delete(key(&client, "g/slots/0")).await);
    let why = next(&mut positions).await.unwrap_err();
    assert!(matches!(why, Invalid::Unplaced | Invalid::SeatLost), "never skipped: {why:?}");
    assert_eq!(told(&next(&mut positions).await), "0/1");
    // A deleted seat comes back to its slot, which nobody could take meanwhile.
    let seat = keys(&oracle, &client, "g/seats/").await[0].clone();
    assert!(oracle.delete(key(&client, &format!("g/seats/{seat}"))).await);
    assert_eq!(next(&mut positions).await, Err(Invalid::SeatLost));
    assert_eq!(told(&next(&mut positions).await), "0/1");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_slot_with_a_foreign_value_is_not_free_and_not_counted() {
    let (client, oracle) = place("foreign").await;
    let session = session(&client, 15).await;
    oracle.put(key(&client, "g/slots/0"), "\u{0}").await;
    oracle.put(key(&client, "g/slots/1"), "nobody here").await;
    let member = stable(&session, "g").join().await.unwrap();
    assert_eq!(told(&member.position()), "2/1");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_with_the_other_assignment_is_not_joined() {
    let (client, oracle) = place("other").await;
    let session = session(&client, 15).await;
    let member = stable(&session, "g").join().await.unwrap();
    let refused = Sequence::new(&session, "g").join().await.unwrap_err();
    assert!(
        matches!(&refused, Error::OtherAssignment { group, found: Assignment::Stable } if group == "g"),
        "{refused:?}"
    );
    eventually(LONG, "it to be gone again", async || {
        (keys(&oracle, &client, "g/seats/").await.len() == 1).then_some(())
    })
    .await;
    reads(&member, "0/1").await;
}

/// Slots and their holders, as they are stored.
async fn held(oracle: &Oracle, client: &Client) -> Vec<(usize, String)> {
    let found = oracle.range(key(client, "g/slots/")).await;
    let slot = |key: &[u8]| String::from_utf8_lossy(key).rsplit('/').next().unwrap().parse().unwrap();
    found
        .into_iter()
        .map(|(key, value)| {
            (slot(&key), String::from_utf8(value).unwrap().split(' ').next().unwrap().to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn under_churn_nobody_has_two_slots_and_no_slot_is_lost() {
    const SESSIONS: usize = 6;
    const MEMBERS: usize = 4;
    let (client, oracle) = place("churn").await;
    let namespace = client.namespace().root().to_string();
    let endpoints = sereno_testkit::shared().await;
    let mut tasks = Vec::new();
    for _ in 0..SESSIONS {
        let client = client_of(&endpoints[0], namespace.trim_end_matches('/')).await;
        let session = session(&client, 15).await;
        for _ in 0..MEMBERS {
            let session = session.clone();
            tasks.push(tokio::spawn(async move {
                let group = stable(&session, "g");
                for _ in 0..5 {
                    let member = group.join().await.unwrap();
                    let slot = member.position().unwrap().index;
                    tokio::time::sleep(std::time::Duration::from_millis((slot as u64 * 7) % 30)).await;
                    assert_eq!(member.position().unwrap().index, slot, "nobody moves while it stays");
                    member.leave().await.unwrap();
                }
                group.join().await.unwrap()
            }));
        }
    }
    let watching = tokio::spawn({
        let (oracle, client) = (oracle.clone(), client.clone());
        async move {
            for _ in 0..50 {
                let held = held(&oracle, &client).await;
                let mut holders: Vec<&String> = held.iter().map(|(_, seat)| seat).collect();
                holders.sort();
                holders.dedup();
                assert_eq!(holders.len(), held.len(), "somebody has two: {held:?}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    });
    let mut members = Vec::new();
    for task in tasks {
        members.push(tokio::time::timeout(LONG * 2, task).await.expect("bounded").unwrap());
    }
    watching.await.unwrap();
    eventually(LONG, "all to agree", async || {
        let mut slots = Vec::new();
        for member in &members {
            let position = member.position().ok()?;
            (position.count == members.len()).then_some(())?;
            slots.push(position.index);
        }
        slots.sort_unstable();
        slots.dedup();
        (slots.len() == members.len()).then_some(())
    })
    .await;
    assert_eq!(held(&oracle, &client).await.len(), members.len(), "a slot for each, and no other");
    let mut all: Vec<u32> =
        members.iter().flat_map(|member| member.position().unwrap().partitions(200)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    let highest = members.iter().map(|member| member.position().unwrap().index).max().unwrap();
    println!("{} members after churn, the highest slot is {highest}", members.len());
    assert!(highest < 2 * SESSIONS * MEMBERS, "{highest}");
    for member in members {
        member.leave().await.unwrap();
    }
    assert_eq!(keys(&oracle, &client, "g/").await, Vec::<String>::new());
}
