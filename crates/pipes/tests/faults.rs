//! What breaks underneath, and what becomes of pipes then.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{
    LONG, at_least_once, client_of, destination, join, key, keys, lease_of, member_keys, place, register,
    session, soon, take, take_all,
};
use sereno_pipes::sp::Push;
use sereno_pipes::{Destination, Error, Group, GroupOptions, MemberState, RegistrationState};
use sereno_testkit::{Member, Proxy, eventually};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_registration_deleted_underneath_ends_and_says_so() {
    let (client, oracle) = place("deleted").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    let started = Instant::now();
    assert!(oracle.delete(key(&client, "d", "owner")).await);
    let ended = soon("the end", sender.ended()).await.unwrap_err();
    println!("deleted underneath and told after {:?}", started.elapsed());
    assert!(matches!(&ended, Error::Deleted { destination } if destination == "d"), "{ended:?}");
    assert!(matches!(sender.send("x").await, Err(Error::Deleted { .. })));
    soon("unregistering what is gone", sender.unregister()).await.unwrap();
    let left = keys(&client, &oracle, "d").await;
    assert!(left.len() == 1 && left[0].contains("member/"), "its address went with it: {left:?}");
    soon("the member to wait", member.until(|status| status.state == MemberState::Waiting)).await;
    let sender = register(&session, "d", destination()).await;
    soon("the group", sender.wait_for(1)).await.unwrap();
    sender.send("again").await.unwrap();
    assert_eq!(take(&member).await, "again");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_registration_deleted_underneath_is_made_again_when_asked_so_and_nothing_is_lost() {
    let (client, oracle) = place("reregister").await;
    let (sending, receiving) = (session(&client, 15).await, session(&client, 15).await);
    let sender = register(&sending, "d", destination().reregister(true)).await;
    let members = [
        join(&receiving, "d", "plain", GroupOptions::default()).await,
        join(&receiving, "d", "acked", at_least_once()).await,
    ];
    let mut token = sender.status().token;
    for round in 1..=5 {
        sender.send(format!("before {round}")).await.unwrap();
        // Sometimes with everything that is the destination's.
        assert!(oracle.delete(key(&client, "d", "owner")).await);
        if round % 2 == 0 {
            for group in ["plain", "acked"] {
                oracle.delete(key(&client, "d", &format!("group/{group}/address"))).await;
            }
        }
        eventually(LONG, "it to be registered again", async || {
            let status = sender.status();
            (status.state == RegistrationState::Registered && status.restored == round).then_some(())
        })
        .await;
        assert!(sender.status().token > token);
        token = sender.status().token;
        assert_eq!(sender.send(format!("after {round}")).await.unwrap(), 2);
        for member in &members {
            assert_eq!(take_all(member, 2).await, [format!("before {round}"), format!("after {round}")]);
        }
    }
    // Somebody else's key is left alone.
    oracle.put(key(&client, "d", "owner"), "another").await;
    let ended = soon("the end", sender.ended()).await.unwrap_err();
    assert!(matches!(ended, Error::Owned { .. }), "{ended:?}");
    soon("the end of it all", sender.unregister()).await.unwrap();
    assert_eq!(oracle.get(key(&client, "d", "owner")).await.unwrap(), b"another");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_destination_whose_lease_was_lost_ends_or_goes_on_under_the_next_epoch() {
    let (client, oracle) = place("lease").await;
    let receiving = session(&client, 15).await;
    for (name, reregister) in [("ends", false), ("goes-on", true)] {
        let sending = session(&client, 15).await;
        let sender = register(&sending, name, destination().reregister(reregister)).await;
        let member = join(&receiving, name, "g", at_least_once()).await;
        sender.send("before").await.unwrap();
        assert_eq!(take(&member).await, "before");
        oracle.revoke(lease_of(&oracle, key(&client, name, "owner")).await).await;
        if !reregister {
            let ended = soon("the end", sender.ended()).await.unwrap_err();
            assert!(ended.is_session_lost(), "{ended:?}");
            assert!(sender.send("x").await.unwrap_err().is_session_lost());
            soon("the end of it all", sender.unregister()).await.unwrap();
            continue;
        }
        eventually(LONG, "the next epoch", async || {
            let status = sender.status();
            (status.state == RegistrationState::Registered && status.restored == 1).then_some(())
        })
        .await;
        assert_eq!(sending.epoch().number(), 2);
        assert_eq!(sender.send("after").await.unwrap(), 1);
        assert_eq!(take(&member).await, "after");
        soon("the address", member.until(|status| status.state == MemberState::Following)).await;
        sending.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_member_whose_key_or_lease_was_lost_goes_on_or_ends_as_it_was_told() {
    let (client, oracle) = place("member").await;
    let sending = session(&client, 15).await;
    let sender = register(&sending, "d", destination()).await;
    let lose = async |group: &str, lease: bool| {
        let key = member_keys(&client, &oracle, "d", group).await.remove(0);
        if lease {
            oracle.revoke(lease_of(&oracle, key).await).await;
        } else {
            oracle.delete(key).await;
        }
    };
    for (round, lease) in [(0, false), (1, true)] {
        let receiving = session(&client, 15).await;
        let group = format!("goes-on-{round}");
        let member = join(&receiving, "d", &group, at_least_once()).await;
        lose(&group, lease).await;
        soon("its return", member.until(|s| s.restored == 1 && s.state == MemberState::Following)).await;
        assert_eq!(member_keys(&client, &oracle, "d", &group).await.len(), 1);
        assert_eq!(receiving.epoch().number(), 1 + u64::from(lease));
        sender.send("x").await.unwrap();
        assert_eq!(take(&member).await, "x");
        member.leave().await.unwrap();

        let group = format!("ends-{round}");
        let receiving = session(&client, 15).await;
        let member = join(&receiving, "d", &group, at_least_once().rejoin(false)).await;
        lose(&group, lease).await;
        let ended = soon("the end", member.recv()).await.unwrap_err();
        assert!(
            if lease { ended.is_session_lost() } else { matches!(ended, Error::Removed { .. }) },
            "{ended:?}"
        );
        soon("leaving", member.leave()).await.unwrap();
        assert_eq!(member_keys(&client, &oracle, "d", &group).await, Vec::<Vec<u8>>::new());
    }
    let member = join(&sending, "d", "g", GroupOptions::default().rejoin(false)).await;
    sender.unregister().await.unwrap();
    let ended = soon("the end", member.recv()).await.unwrap_err();
    assert!(matches!(ended, Error::NoDestination { .. }), "{ended:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_address_that_changes_is_followed_and_the_old_connection_ends() {
    let (client, oracle) = place("follow").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    sender.unregister().await.unwrap();
    soon("its end", member.until(|status| status.state == MemberState::Waiting)).await;
    // Another destination could be anywhere, and no relation of ours.
    let mut former: Option<Push> = None;
    for round in 0..4 {
        let push = Push::new();
        let url = push.listen("tcp://127.0.0.1:0").await.unwrap();
        let value = format!("{{\"url\":\"{url}\",\"mode\":\"push\",\"of\":\"a later version\"}}");
        oracle.put(key(&client, "d", "group/g/address"), value).await;
        soon("the connection", push.connected(1)).await.unwrap();
        push.send(format!("{round}")).await.unwrap();
        assert_eq!(take(&member).await, format!("{round}"));
        assert_eq!(member.status().address.as_ref(), Some(&url));
        if let Some(former) = former.replace(push) {
            eventually(LONG, "the end of the old connection", async || {
                former.peers().is_empty().then_some(())
            })
            .await;
        }
    }
    // Of the other mode, or nonsense: as if there were none.
    for value in [
        "{\"url\":\"tcp://127.0.0.1:1\",\"mode\":\"acked\"}",
        "{\"url\":\"tcp://127.0.0.1:1\",\"mode\":\"?\"}",
    ] {
        oracle.put(key(&client, "d", "group/g/address"), value).await;
        soon("its end", member.until(|status| status.state == MemberState::Waiting)).await;
    }
    let former = former.unwrap();
    eventually(LONG, "the end of the last connection", async || former.peers().is_empty().then_some(()))
        .await;
    // Leaving while it waits for a destination is as quick as ever, and ends waiting for a message.
    let receiving = async { soon("the end", member.recv()).await.unwrap_err() };
    let started = Instant::now();
    let (ended, left) = tokio::join!(receiving, member.leave());
    println!("left while there was no destination in {:?}", started.elapsed());
    assert!(matches!(ended, Error::Left { .. }), "{ended:?}");
    left.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn who_does_not_know_yet_that_another_owns_the_destination_does_not_delete_its_key() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = client_of(&proxy.endpoint(), "late").await;
    let oracle = member.oracle().await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    // From here on it hears of everything too late.
    proxy.delay(Duration::from_millis(400)).await;
    oracle.delete(key(&client, "d", "owner")).await;
    oracle.put(key(&client, "d", "owner"), "another").await;
    let ended = soon("the end", sender.unregister()).await;
    println!("unregistering what another has: {ended:?}");
    assert_eq!(oracle.get(key(&client, "d", "owner")).await.unwrap(), b"another");
    drop(sender);
}

/// Without the feature, an address of TLS is one that cannot be dialled.
#[cfg(not(feature = "tls"))]
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_address_that_cannot_be_dialled_is_told_and_no_end_of_the_member() {
    let (client, oracle) = place("undiallable").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    sender.unregister().await.unwrap();
    let value = "{\"url\":\"tls+tcp://127.0.0.1:1\",\"mode\":\"push\"}";
    oracle.put(key(&client, "d", "group/g/address"), value).await;
    let status = soon("the problem", member.until(|status| status.problem.is_some())).await;
    assert!(matches!(status.problem, Some(Error::Socket(_))), "{status:?}");
    assert_ne!(status.state, MemberState::Ended);
    let sender = register(&session, "d", destination()).await;
    soon("the group", sender.wait_for(1)).await.unwrap();
    sender.send("x").await.unwrap();
    assert_eq!(take(&member).await, "x");
    assert!(member.status().problem.is_none());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn members_join_and_groups_work_whatever_happened_in_etcd_meanwhile() {
    let member = Member::single().await;
    let client = client_of(&member.endpoint(), "history").await;
    let oracle = member.oracle().await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let first = join(&session, "d", "g", at_least_once()).await;
    for n in 0..1500 {
        oracle.put("elsewhere", n.to_string()).await;
    }
    oracle.compact_to_head().await;
    let second = join(&session, "d", "g", at_least_once()).await;
    let other = join(&session, "d", "h", GroupOptions::default()).await;
    assert_eq!(sender.send("x").await.unwrap(), 2);
    assert_eq!(take(&other).await, "x");
    assert_eq!(common::share(&[&first, &second], 1).await.concat(), ["x"]);

    // etcd is killed and starts again: messages flow meanwhile, and groups change afterwards.
    member.kill().await;
    assert_eq!(sender.send("while etcd is away").await.unwrap(), 2);
    assert_eq!(take(&other).await, "while etcd is away");
    member.start().await;
    let late =
        eventually(LONG, "a late member", async || Group::new(&session, "d", "late").join().await.ok()).await;
    assert_eq!(sender.send("y").await.unwrap(), 3);
    assert_eq!(take(&late).await, "y");
    assert_eq!(take(&other).await, "y");
    assert_eq!(session.epoch().number(), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn ending_is_bounded_with_etcd_gone() {
    let member = Member::single().await;
    let client = client_of(&member.endpoint(), "gone").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let one = join(&session, "d", "g", at_least_once()).await;
    let waiting = tokio::spawn({
        let group = Group::new(&session, "nobody", "g");
        async move { group.join().await }
    });
    let port = sender.groups()[0].address.to_string().strip_prefix("tcp://").unwrap().to_owned();
    member.kill().await;
    let bound = client.deadline() * 2 + Duration::from_secs(2);
    let started = Instant::now();
    waiting.abort();
    let _ = waiting.await;
    assert!(one.leave().await.is_err(), "nobody was there to hear it");
    println!("left with etcd gone in {:?}", started.elapsed());
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    let started = Instant::now();
    assert!(sender.unregister().await.is_err(), "nobody was there to hear it");
    println!("unregistered with etcd gone in {:?}", started.elapsed());
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    assert!(std::net::TcpListener::bind(&port).is_ok(), "the port is free");
    let started = Instant::now();
    let failed = Destination::new(&session, "other").register().await.unwrap_err();
    println!("registering with etcd gone: {failed:?} after {:?}", started.elapsed());
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    let started = Instant::now();
    assert!(session.close().await.is_err());
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
}
