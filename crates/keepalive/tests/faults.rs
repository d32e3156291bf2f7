//! What breaks underneath, and what becomes of a node then.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, client_of, key, lease_of, names, next, next_through_faults, place, session, told};
use sereno_keepalive::{Event, Group, KeepAlive, PresenceState};
use sereno_testkit::{ChildHost, Member, Proxy, child, eventually, fresh_namespace, shared};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_key_deleted_underneath_is_restored_at_once_with_its_latest_value() {
    let (client, oracle) = place("deleted").await;
    let session = session(&client, 15).await;
    let mut announcement = KeepAlive::new(&session, "g", "n").announce("old").await.unwrap();
    announcement.update("new").await.unwrap();
    while announcement.status().state != PresenceState::Kept {
        announcement.changed().await.unwrap();
    }
    let mut members = Group::new(&client, "g").watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    let mut latencies = Vec::new();
    for round in 1..=20_u64 {
        let started = Instant::now();
        assert!(oracle.delete(key(&client, "g", "n")).await);
        assert_eq!(told(&next(&mut members).await), "left n");
        let Event::Joined(node) = next(&mut members).await else { panic!("it must come back") };
        latencies.push(started.elapsed());
        assert_eq!(&node.value[..], b"new");
        eventually(LONG, "the news", async || {
            let status = announcement.status();
            (status.restored == round && status.state == PresenceState::Kept).then_some(())
        })
        .await;
    }
    println!("{latencies:?}");
    latencies.sort_unstable();
    println!("deleted underneath, restored and seen: p50 {:?}, max {:?}", latencies[10], latencies[19]);
    assert!(latencies[10] < Duration::from_millis(250), "{latencies:?}");
    assert_eq!(session.epoch().number(), 1, "the session had nothing to do with it");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_revoked_lease_is_told_and_the_node_is_restored_under_the_next_epoch() {
    let (client, oracle) = place("revoked").await;
    let session = session(&client, 15).await;
    let announcement = KeepAlive::new(&session, "g", "n").announce("v").await.unwrap();
    let mut members = Group::new(&client, "g").watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    let lease = lease_of(&oracle, key(&client, "g", "n")).await;
    assert_eq!(announcement.status().state, PresenceState::Kept);
    let started = Instant::now();
    let lost = async {
        let state = tokio::time::timeout(LONG, announcement.lost()).await.unwrap();
        println!("loss told {:?} after the revocation was sent", started.elapsed());
        state
    };
    let (revoked, state) = tokio::join!(oracle.revoke(lease), lost);
    assert!(revoked);
    assert_eq!(state, PresenceState::Missing);
    assert_eq!(told(&next(&mut members).await), "left n");
    assert_eq!(told(&next(&mut members).await), "joined n");
    println!("lease revoked, restored and seen after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(12));
    let status = eventually(LONG, "the node to be kept again", async || {
        Some(announcement.status()).filter(|status| status.state == PresenceState::Kept)
    })
    .await;
    assert_eq!((status.epoch, status.restored), (2, 1));
    assert_eq!(session.epoch().number(), 2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn nodes_outlive_etcd_being_killed_and_restarted_and_watchers_see_no_flap() {
    let member = Member::single().await;
    let client = client_of(&member.endpoint(), "restart").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "g");
    let announcement = KeepAlive::new(&session, "g", "n").announce("before").await.unwrap();
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    member.kill().await;
    member.start().await;
    tokio::time::timeout(LONG, async { while announcement.update("after").await.is_err() {} })
        .await
        .expect("updates must work again");
    loop {
        // An update whose answer was lost may have been written more than once.
        let event = told(&next_through_faults(&mut members).await);
        assert!(event.starts_with("changed n "), "{event}");
        if event.ends_with("-> \"after\"") {
            break;
        }
    }
    assert_eq!(names(&group.alive().await.unwrap()), ["n"]);
    assert_eq!(session.epoch().number(), 1, "the lease outlived the restart");
    let _late = KeepAlive::new(&session, "g", "late").announce("").await.unwrap();
    let event = loop {
        let event = told(&next_through_faults(&mut members).await);
        if !event.starts_with("changed n ") {
            break event;
        }
    };
    assert_eq!(event, "joined late");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_update_made_while_etcd_is_away_is_bounded_and_written_when_it_is_back() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = client_of(&proxy.endpoint(), "away").await;
    let watcher = client_of(&member.endpoint(), "away").await;
    let session = session(&client, 2).await;
    let announcement = KeepAlive::new(&session, "g", "n").announce("old").await.unwrap();
    let group = Group::new(&watcher, "g");
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    proxy.blackhole().await;
    let started = Instant::now();
    let refused = announcement.update("new").await.unwrap_err();
    println!("an update into a black hole: {refused:?} after {:?}", started.elapsed());
    assert!(started.elapsed() < client.deadline() + Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(told(&next(&mut members).await), "left n", "the lease ran out meanwhile");
    assert_ne!(announcement.status().state, PresenceState::Kept, "it knows that it may be missing");
    proxy.pass().await;
    let Event::Joined(node) = next(&mut members).await else { panic!("it must come back") };
    assert_eq!(&node.value[..], b"new", "the update was remembered");
    let status = eventually(LONG, "the node to be kept again", async || {
        Some(announcement.status()).filter(|status| status.state == PresenceState::Kept)
    })
    .await;
    assert!(status.epoch >= 2 && status.restored >= 1, "{status:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn leaving_and_closing_with_etcd_gone_are_bounded() {
    let member = Member::single().await;
    let client = client_of(&member.endpoint(), "gone").await;
    let session = session(&client, 15).await;
    let announcement = KeepAlive::new(&session, "g", "n").announce("").await.unwrap();
    member.kill().await;
    let started = Instant::now();
    assert!(announcement.leave().await.is_err(), "nobody was there to hear it");
    assert!(started.elapsed() < client.deadline() + Duration::from_secs(3), "{:?}", started.elapsed());
    let started = Instant::now();
    assert!(session.close().await.is_err());
    assert!(started.elapsed() < client.deadline() + Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_killed_process_is_seen_to_leave_after_its_lease() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("killed");
    let client = client_of(&endpoints[0], &namespace).await;
    let group = Group::new(&client, "g");
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot ");
    let mut node = ChildHost::new("child_entry", "node").argument(&endpoints[0]).argument(&namespace).spawn();
    assert_eq!(node.line().await, "announced");
    assert_eq!(told(&next(&mut members).await), "joined child");
    node.kill();
    let started = Instant::now();
    assert_eq!(told(&next(&mut members).await), "left child");
    println!("a process with a lease of 2 s was killed and seen to leave after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stopped_process_knows_when_it_wakes_that_it_was_gone_and_comes_back() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("stopped");
    let client = client_of(&endpoints[0], &namespace).await;
    let mut members = Group::new(&client, "g").watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot ");
    let mut node = ChildHost::new("child_entry", "node").argument(&endpoints[0]).argument(&namespace).spawn();
    assert_eq!(node.line().await, "announced");
    assert_eq!(told(&next(&mut members).await), "joined child");
    node.pause();
    assert_eq!(told(&next(&mut members).await), "left child");
    node.resume();
    assert_eq!(told(&next(&mut members).await), "joined child");
    assert_eq!(node.line().await, "Missing");
    assert_eq!(node.line().await, "Kept under epoch 2");
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("node") {
        return; // Run by hand.
    }
    let client = client_of(&child::argument(0), &child::argument(1)).await;
    let session = session(&client, 2).await;
    let mut announcement = KeepAlive::new(&session, "g", "child").announce("").await.unwrap();
    child::say("announced");
    while let Some(status) = announcement.changed().await {
        match status.state {
            PresenceState::Kept => child::say(&format!("Kept under epoch {}", status.epoch)),
            state => child::say(&format!("{state:?}")),
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_that_missed_history_to_compaction_says_so_and_is_right_again() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let watched = client_of(&proxy.endpoint(), "compacted").await;
    let direct = client_of(&member.endpoint(), "compacted").await;
    let oracle = member.oracle().await;
    let session = session(&direct, 15).await;
    let stays = KeepAlive::new(&session, "g", "stays").announce("old").await.unwrap();
    let _same = KeepAlive::new(&session, "g", "same").announce("x").await.unwrap();
    let goes = KeepAlive::new(&session, "g", "goes").announce("").await.unwrap();
    let mut members = Group::new(&watched, "g").watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot goes,same,stays");

    // Not a compaction that nobody lags behind: that one is invisible.
    oracle.compact_to_head().await;
    stays.update("seen").await.unwrap();
    assert_eq!(told(&next(&mut members).await), "changed stays \"old\" -> \"seen\"");

    proxy.refuse().await;
    stays.update("unseen").await.unwrap();
    stays.update("new").await.unwrap();
    goes.leave().await.unwrap();
    let _comes = KeepAlive::new(&session, "g", "comes").announce("").await.unwrap();
    let passing = KeepAlive::new(&session, "g", "passing").announce("").await.unwrap();
    passing.leave().await.unwrap();
    oracle.put("elsewhere", "").await;
    oracle.compact_to_head().await;
    proxy.pass().await;

    assert_eq!(told(&next_through_faults(&mut members).await), "resync");
    let mut difference = Vec::new();
    for _ in 0..3 {
        difference.push(told(&next(&mut members).await));
    }
    difference.sort();
    assert_eq!(difference, ["changed stays \"seen\" -> \"new\"", "joined comes", "left goes"]);
    assert_eq!(names(&members.alive()), ["comes", "same", "stays"]);
    stays.update("live").await.unwrap();
    assert_eq!(told(&next(&mut members).await), "changed stays \"new\" -> \"live\"");
}
