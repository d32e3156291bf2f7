//! What breaks underneath, and what becomes of positions and claims then.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{
    LONG, client_of, in_order, invalid, key, keys, lease_of, next, place, reads, seat, session, stable, told,
};
use sereno_seq::core::{Client, ConnectOptions, LostReason, Namespace};
use sereno_seq::{ClaimLost, Invalid, OnLoss, Sequence, SequenceOptions};
use sereno_testkit::{
    ChildHost, ChildProcess, Member as Etcd, Proxy, child, eventually, fresh_namespace, shared,
};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_deleted_seat_is_told_and_taken_again_as_the_latest_one() {
    let (client, oracle) = place("deleted").await;
    let session = session(&client, 15).await;
    let a = Sequence::new(&session, "g").join().await.unwrap();
    let mut positions = a.positions();
    assert_eq!(told(&next(&mut positions).await), "0/1");
    let seat = seat(&oracle, &client, "g").await;
    let b = Sequence::new(&session, "g").join().await.unwrap();
    assert_eq!(told(&next(&mut positions).await), "0/2");
    let since = a.position().unwrap().since;
    let started = Instant::now();
    assert!(oracle.delete(seat).await);
    assert_eq!(next(&mut positions).await, Err(Invalid::SeatLost), "never skipped");
    assert_eq!(told(&next(&mut positions).await), "1/2");
    println!("a deleted seat was told and taken again within {:?}", started.elapsed());
    let position = a.position().unwrap();
    assert!(position.since > since && position.epoch == 1, "{position:?}");
    in_order([&b, &a]).await;
    // Nor is it when nobody looks before the seat is taken again.
    let mut unread = b.positions();
    assert_eq!(told(&next(&mut unread).await), "0/2");
    let seats = keys(&oracle, &client, "g/seats/").await;
    for seat in seats {
        assert!(oracle.delete(key(&client, &format!("g/seats/{seat}"))).await);
    }
    eventually(LONG, "both to be back", async || {
        let again = (a.position().ok()?, b.position().ok()?);
        (again.0.since > position.since && again.1.since > position.since).then_some(())?;
        (again.0.count == 2 && again.1.count == 2).then_some(())
    })
    .await;
    assert_eq!(next(&mut unread).await, Err(Invalid::SeatLost));
    assert!(next(&mut unread).await.is_ok());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_seat_that_was_written_over_is_left_alone_and_another_one_taken() {
    let (client, oracle) = place("overwritten").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let mut positions = member.positions();
    assert_eq!(told(&next(&mut positions).await), "0/1");
    let seat = seat(&oracle, &client, "g").await;
    oracle.put(seat.clone(), "compact").await;
    assert_eq!(next(&mut positions).await, Err(Invalid::SeatLost));
    assert_eq!(told(&next(&mut positions).await), "1/2", "whoever wrote it counts as a member");
    oracle.delete(seat).await;
    assert_eq!(told(&next(&mut positions).await), "0/1");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_revoked_lease_is_told_at_once_and_the_member_joins_again_under_the_next_epoch() {
    let (client, oracle) = place("revoked").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let claim = member.claim().await.unwrap();
    let mut positions = member.positions();
    assert_eq!(told(&next(&mut positions).await), "0/1");
    let lease = lease_of(&oracle, seat(&oracle, &client, "g").await).await;
    let started = Instant::now();
    assert!(oracle.revoke(lease).await);
    let why = next(&mut positions).await.unwrap_err();
    println!("{why:?} told {:?} after the revocation was sent", started.elapsed());
    assert!(matches!(why, Invalid::SeatLost | Invalid::EpochLost(LostReason::Expired)), "{why:?}");
    let lost = tokio::time::timeout(LONG, claim.lost()).await.unwrap();
    assert!(matches!(lost, ClaimLost::Invalid(_) | ClaimLost::Deleted), "{lost:?}");
    assert_eq!(told(&next(&mut positions).await), "0/1");
    println!("lease revoked, and at a position again after {:?}", started.elapsed());
    assert_eq!(member.position().unwrap().epoch, 2);
    assert_eq!(member.claim().await.unwrap().index(), 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_member_that_is_not_to_come_back_stays_out() {
    let (client, oracle) = place("stays-out").await;
    let options = SequenceOptions::default().on_loss(OnLoss::Leave);
    for revoke in [false, true] {
        let session = session(&client, 15).await;
        let member = Sequence::with_options(&session, "g", options.clone()).join().await.unwrap();
        let mut positions = member.positions();
        assert_eq!(told(&next(&mut positions).await), "0/1");
        let seat = seat(&oracle, &client, "g").await;
        if revoke {
            assert!(oracle.revoke(lease_of(&oracle, seat).await).await);
        } else {
            assert!(oracle.delete(seat).await);
        }
        assert!(next(&mut positions).await.is_err());
        let end = async { while positions.next().await.is_some() {} };
        tokio::time::timeout(LONG, end).await.expect("the stream ends");
        let why = invalid(&member).unwrap();
        assert!(matches!(why, Invalid::SeatLost | Invalid::EpochLost(_)), "{why:?}");
        eventually(LONG, "nobody to be counted", async || {
            let other = Sequence::new(&session, "g").join().await.ok()?;
            let alone = told(&other.position()) == "0/1";
            other.leave().await.unwrap();
            alone.then_some(())
        })
        .await;
        member.leave().await.unwrap();
        session.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_partitioned_member_ends_its_position_before_anybody_else_is_given_it() {
    let etcd = Etcd::single().await;
    let proxy = Proxy::to(etcd.endpoint()).await;
    let cut = client_of(&proxy.endpoint(), "partition").await;
    let direct = client_of(&etcd.endpoint(), "partition").await;
    let (one, two) = (session(&cut, 2).await, session(&direct, 15).await);
    let a = Sequence::new(&one, "g").join().await.unwrap();
    let b = Sequence::new(&two, "g").join().await.unwrap();
    in_order([&a, &b]).await;
    let claim = a.claim().await.unwrap();
    let (mut of_a, mut of_b) = (a.positions(), b.positions());
    assert_eq!(told(&next(&mut of_a).await), "0/2");
    assert_eq!(told(&next(&mut of_b).await), "1/2");
    proxy.blackhole().await;
    let given = tokio::spawn(async move {
        assert_eq!(told(&next(&mut of_b).await), "0/1");
        Instant::now()
    });
    let why = next(&mut of_a).await.unwrap_err();
    let ended = Instant::now();
    assert_eq!(why, Invalid::EpochLost(LostReason::Deadline));
    assert!(!claim.is_valid());
    let given = given.await.unwrap();
    println!("ended {:?} before it was given to another", given.saturating_duration_since(ended));
    assert!(ended < given);
    proxy.pass().await;
    assert_eq!(told(&next(&mut of_a).await), "1/2", "it joined again, behind");
    assert!(a.position().unwrap().epoch >= 2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn positions_do_not_flap_when_etcd_is_killed_and_started_again_within_the_lease() {
    let etcd = Etcd::single().await;
    let client = client_of(&etcd.endpoint(), "restart").await;
    let session = session(&client, 30).await;
    let compact = Sequence::new(&session, "g");
    let (a, b) = (compact.join().await.unwrap(), compact.join().await.unwrap());
    let c = stable(&session, "slots").join().await.unwrap();
    in_order([&a, &b]).await;
    let claim = b.claim().await.unwrap();
    let mut streams = [a.positions(), b.positions(), c.positions()];
    for (stream, first) in streams.iter_mut().zip(["0/2", "1/2", "0/1"]) {
        assert_eq!(told(&next(stream).await), first);
    }
    etcd.kill().await;
    etcd.start().await;
    // A change that comes after all that: what is told next is that.
    let late = eventually(LONG, "joining to work again", async || compact.join().await.ok()).await;
    let also =
        eventually(LONG, "joining to work again", async || stable(&session, "slots").join().await.ok()).await;
    // A join whose answer was lost may have counted for a moment; nobody may have become invalid or have moved.
    for (stream, (index, wanted)) in streams.iter_mut().zip([(0, "0/3"), (1, "1/3"), (0, "0/2")]) {
        loop {
            let standing = next(stream).await;
            assert_eq!(standing.as_ref().map(|position| position.index), Ok(index), "a flap");
            if told(&standing) == wanted {
                break;
            }
        }
    }
    assert!(claim.is_valid());
    assert_eq!(session.epoch().number(), 1);
    drop((late, also));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn joining_claiming_leaving_and_closing_with_etcd_gone_are_bounded() {
    let etcd = Etcd::single().await;
    let namespace = Namespace::new("gone").unwrap();
    let options = ConnectOptions::default().namespace(namespace).deadline(Duration::from_secs(2));
    let client = Client::connect_with([etcd.endpoint()], options).await.unwrap();
    let session = session(&client, 30).await;
    let a = Sequence::new(&session, "g").join().await.unwrap();
    let b = stable(&session, "s").join().await.unwrap();
    let mut last = a.positions();
    assert_eq!(told(&next(&mut last).await), "0/1");
    let bound = client.deadline() + Duration::from_secs(3);
    etcd.pause().await;
    let timed = async |what: &str, started: Instant| {
        println!("{what} with etcd frozen took {:?}", started.elapsed());
        assert!(started.elapsed() < bound, "{what}: {:?}", started.elapsed());
    };
    let started = Instant::now();
    assert!(Sequence::new(&session, "g").join().await.is_err());
    timed("joining", started).await;
    let started = Instant::now();
    assert!(Sequence::new(&session, "new").join().await.is_err());
    timed("joining a new group", started).await;
    let started = Instant::now();
    assert!(a.claim().await.is_err());
    timed("claiming", started).await;
    let started = Instant::now();
    assert!(a.leave().await.is_err(), "nobody was there to hear it");
    timed("leaving", started).await;
    assert_eq!(invalid(&a), Some(Invalid::Left), "at once all the same");
    assert_eq!(next(&mut last).await, Err(Invalid::Left));
    assert_eq!(last.next().await, None);
    let started = Instant::now();
    assert!(b.leave().await.is_err());
    timed("leaving a slot", started).await;
    let started = Instant::now();
    assert!(session.close().await.is_err());
    timed("closing", started).await;
    etcd.resume().await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_could_not_be_said_to_etcd_in_time_leaves_nobody_behind() {
    let etcd = Etcd::single().await;
    let proxy = Proxy::to(etcd.endpoint()).await;
    let options = |deadline| {
        let namespace = Namespace::new("behind").unwrap();
        ConnectOptions::default().namespace(namespace).deadline(Duration::from_millis(deadline))
    };
    let cut = Client::connect_with([proxy.endpoint()], options(1500)).await.unwrap();
    let direct = Client::connect_with([etcd.endpoint()], options(5000)).await.unwrap();
    let oracle = etcd.oracle().await;
    let (one, two) = (session(&cut, 60).await, session(&direct, 60).await);
    let stays = Sequence::new(&two, "g").join().await.unwrap();
    let slot = stable(&two, "s").join().await.unwrap();
    let (leaves, leaves_too) =
        (Sequence::new(&one, "g").join().await.unwrap(), stable(&one, "s").join().await.unwrap());
    reads(&stays, "0/2").await;
    reads(&slot, "0/2").await;
    // Its requests reach etcd, and no answer comes back.
    proxy.drop_responses().await;
    let (compact, stable_group) = (Sequence::new(&one, "g"), stable(&one, "s"));
    let outcomes = tokio::join!(compact.join(), stable_group.join(), leaves.claim());
    assert!(outcomes.0.is_err() && outcomes.1.is_err() && outcomes.2.is_err());
    proxy.blackhole().await;
    // What is sent now arrives when nobody waits for it any more.
    let outcomes = tokio::join!(leaves.leave(), leaves_too.leave(), compact.join(), stable_group.join());
    assert!(outcomes.0.is_err() && outcomes.1.is_err() && outcomes.2.is_err() && outcomes.3.is_err());
    proxy.pass().await;
    reads(&stays, "0/1").await;
    reads(&slot, "0/1").await;
    assert_eq!(one.epoch().number(), 1, "not by the end of the lease");
    eventually(LONG, "claims and slots to be given back", async || {
        let left = (keys(&oracle, &direct, "g/claims/").await, keys(&oracle, &direct, "s/slots/").await);
        (left == (vec![], vec!["0".to_owned()])).then_some(())
    })
    .await;
    // Nor does anything come later: where a seat might still be written from afar, a mark keeps its place, as long as it might.
    let marks = async |group: &str| {
        let seats = oracle.range(key(&direct, &format!("{group}/seats/"))).await;
        seats.iter().filter(|(_, value)| value == b"gone").count()
    };
    eventually(LONG, "the marks", async || (marks("g").await > 0 && marks("s").await > 0).then_some(()))
        .await;
    let again = Sequence::new(&one, "g").join().await.unwrap();
    in_order([&stays, &again]).await;
    one.close().await.unwrap();
    assert_eq!((marks("g").await, marks("s").await), (0, 0));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_whose_history_was_compacted_while_it_was_cut_off_is_right_again() {
    let etcd = Etcd::single().await;
    let proxy = Proxy::to(etcd.endpoint()).await;
    let cut = client_of(&proxy.endpoint(), "compacted").await;
    let direct = client_of(&etcd.endpoint(), "compacted").await;
    let oracle = etcd.oracle().await;
    let (one, two) = (session(&cut, 60).await, session(&direct, 60).await);
    let group = Sequence::new(&two, "g");
    let first = group.join().await.unwrap();
    let watched = Sequence::new(&one, "g").join().await.unwrap();
    in_order([&first, &watched]).await;
    proxy.refuse().await;
    first.leave().await.unwrap();
    let later = group.join().await.unwrap();
    let passing = group.join().await.unwrap();
    passing.leave().await.unwrap();
    oracle.put("elsewhere", "").await;
    oracle.compact_to_head().await;
    proxy.pass().await;
    in_order([&watched, &later]).await;
    let last = group.join().await.unwrap();
    in_order([&watched, &later, &last]).await;
    assert_eq!(one.epoch().number(), 1);
}

/// A child that joins under a lease of 2 s, claims, and says what becomes of that.
fn spawn(endpoint: &str, namespace: &str) -> ChildProcess {
    ChildHost::new("child_entry", "member").argument(endpoint).argument(namespace).spawn()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_killed_process_is_seen_to_go_after_its_lease_and_its_index_can_be_claimed_then() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("killed");
    let client = client_of(&endpoints[0], &namespace).await;
    let session = session(&client, 15).await;
    let mut process = spawn(&endpoints[0], &namespace);
    assert_eq!(process.line().await, "0/1");
    let member = Sequence::new(&session, "g").join().await.unwrap();
    assert_eq!(told(&member.position()), "1/2");
    process.kill();
    let started = Instant::now();
    reads(&member, "0/1").await;
    println!("a process with a lease of 2 s was killed and seen to go after {:?}", started.elapsed());
    let claim = tokio::time::timeout(LONG, member.claim()).await.unwrap().unwrap();
    assert_eq!(claim.index(), 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stopped_process_finds_its_position_and_claim_ended_the_moment_it_wakes() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("stopped");
    let client = client_of(&endpoints[0], &namespace).await;
    let session = session(&client, 15).await;
    let mut process = spawn(&endpoints[0], &namespace);
    assert_eq!(process.line().await, "0/1");
    let member = Sequence::new(&session, "g").join().await.unwrap();
    assert_eq!(process.line().await, "0/2");
    process.pause();
    reads(&member, "0/1").await;
    // It waits for these words on a thread of its own, and looks at once when it can run again.
    process.send("look");
    process.resume();
    let mut lines = Vec::new();
    while !(lines.iter().any(|line| line == "1/2")
        && lines.iter().any(|line: &String| line.starts_with("woken")))
    {
        lines.push(process.line().await);
    }
    // One that was slow to look may be at its next position already.
    let woken = ["woken: invalid, claim invalid".to_owned(), "woken: 1/2, claim invalid".to_owned()];
    assert!(woken.iter().any(|woken| lines.contains(woken)), "{lines:?}");
    assert!(lines.contains(&"invalid".to_owned()), "told in between: {lines:?}");
    reads(&member, "0/2").await;
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("member") {
        return; // Run by hand.
    }
    let client = client_of(&child::argument(0), &child::argument(1)).await;
    let session = session(&client, 2).await;
    let member = std::sync::Arc::new(Sequence::new(&session, "g").join().await.unwrap());
    let claim = member.claim().await.unwrap();
    let looked = member.clone();
    std::thread::spawn(move || {
        if child::hear().as_deref() != Some("look") {
            return;
        }
        let (standing, claimed) = (looked.position(), claim.is_valid());
        child::say(&format!(
            "woken: {}, claim {}",
            told(&standing),
            if claimed { "valid" } else { "invalid" }
        ));
    });
    let mut positions = member.positions();
    while let Some(standing) = positions.next().await {
        child::say(&told(&standing));
    }
}
