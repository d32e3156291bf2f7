//! One node, one group, nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, key, names, next, place, session, told};
use futures_core::Stream;
use sereno_keepalive::core::KeyError;
use sereno_keepalive::{
    Conflict, Error, Event, Group, KeepAlive, KeepAliveOptions, Members, PresenceState, core,
};
use sereno_testkit::{Member, eventually};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_announced_node_is_there_until_it_leaves_and_others_see_that_at_once() {
    let (client, oracle) = place("announce").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "workers");
    assert_eq!(group.alive().await.unwrap(), []);
    let keepalive = KeepAlive::new(&session, "workers", "n1");
    assert_eq!(group.alive().await.unwrap(), [], "a handle alone announces nothing");

    let announcement = keepalive.announce("here").await.unwrap();
    assert_eq!((announcement.group(), announcement.node()), ("workers", "n1"));
    assert_eq!(announcement.status().state, PresenceState::Kept);
    let alive = group.alive().await.unwrap();
    assert_eq!(names(&alive), ["n1"]);
    assert_eq!(&alive[0].value[..], b"here");
    assert_eq!(alive[0].since, announcement.status().revision);
    assert_eq!(group.get("n1").await.unwrap().as_ref(), alive.first());
    assert_eq!(group.get("n2").await.unwrap(), None);
    assert_eq!(oracle.get(key(&client, "workers", "n1")).await.as_deref(), Some(&b"here"[..]));

    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n1");
    let started = Instant::now();
    announcement.leave().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "left n1");
    println!("leave seen by a watcher after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(group.alive().await.unwrap(), []);
    assert_eq!(members.alive(), []);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_update_is_seen_as_a_change_and_never_as_an_absence() {
    let (client, _) = place("update").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "g");
    let announcement = KeepAlive::new(&session, "g", "n").announce("0").await.unwrap();
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    let reader = tokio::spawn({
        let group = group.clone();
        async move {
            let mut readings = 0;
            loop {
                let alive = group.alive().await.unwrap();
                assert_eq!(names(&alive), ["n"], "absent after {readings} readings");
                readings += 1;
                if &alive[0].value[..] == b"100" {
                    return readings;
                }
            }
        }
    });
    for round in 1..=100 {
        announcement.update(round.to_string()).await.unwrap();
    }
    for round in 1..=100 {
        let expected = format!("changed n {:?} -> {:?}", (round - 1).to_string(), round.to_string());
        assert_eq!(told(&next(&mut members).await), expected);
    }
    let readings = tokio::time::timeout(LONG, reader).await.unwrap().unwrap();
    assert!(readings > 0);
    assert_eq!(announcement.status().restored, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_bytes_are_a_value_and_any_text_is_a_name() {
    let (client, _) = place("names").await;
    let session = session(&client, 15).await;
    let odd = ["a/b", "%2F", "\0", " ", "🦉", ".", "..", &"x".repeat(255)];
    let bytes: Vec<u8> = (0..=255).collect();
    for group_name in odd {
        let mut kept = Vec::new();
        for node in odd {
            kept.push(KeepAlive::new(&session, group_name, node).announce(bytes.clone()).await.unwrap());
        }
        let alive = Group::new(&client, group_name).alive().await.unwrap();
        let mut expected = odd.to_vec();
        expected.sort_unstable();
        assert_eq!(names(&alive), expected, "group {group_name:?}");
        assert!(alive.iter().all(|node| node.value == bytes));
        for announcement in kept {
            announcement.leave().await.unwrap();
        }
    }
    for (group, node) in [("", "n"), ("g", "")] {
        let refused = KeepAlive::new(&session, group, node).announce("x").await.unwrap_err();
        assert!(
            matches!(refused, Error::Core(core::Error::InvalidKey(KeyError::Empty))),
            "{group:?} {node:?}: {refused:?}"
        );
    }
    let refused = Group::new(&client, "y".repeat(256)).alive().await.unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::InvalidKey(KeyError::TooLong { len: 256 }))));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_does_not_see_its_siblings_nor_foreign_keys() {
    let (client, oracle) = place("siblings").await;
    let session = session(&client, 15).await;
    let _one = KeepAlive::new(&session, "svc", "a").announce("").await.unwrap();
    let _two = KeepAlive::new(&session, "svc2", "b").announce("").await.unwrap();
    let _three = KeepAlive::new(&session, "svc/x", "c").announce("").await.unwrap();
    oracle.put(key(&client, "svc", "deeper/key"), "foreign").await;
    oracle.put(key(&client, "svc", "not%escaped"), "foreign").await;
    let group = Group::new(&client, "svc");
    assert_eq!(names(&group.alive().await.unwrap()), ["a"]);
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot a");
    oracle.delete(key(&client, "svc", "deeper/key")).await;
    let _four = KeepAlive::new(&session, "svc", "d").announce("").await.unwrap();
    assert_eq!(told(&next(&mut members).await), "joined d");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_name_in_use_is_refused_when_asked_so_until_its_holder_leaves() {
    let (client, _) = place("refuse").await;
    let (first, second) = (session(&client, 15).await, session(&client, 15).await);
    let held = KeepAlive::new(&first, "g", "n").announce("first").await.unwrap();
    let options = KeepAliveOptions::default().conflict(Conflict::Refuse);
    let other = KeepAlive::with_options(&second, "g", "n", options);
    let refused = other.announce("second").await.unwrap_err();
    assert!(
        matches!(&refused, Error::NameTaken { group, node } if group == "g" && node == "n"),
        "{refused:?}"
    );
    assert!(refused.is_retryable() && !refused.is_session_lost() && !refused.is_outcome_unknown());
    let group = Group::new(&client, "g");
    assert_eq!(&group.get("n").await.unwrap().unwrap().value[..], b"first");
    assert_eq!(held.status().state, PresenceState::Kept);
    held.leave().await.unwrap();
    let _taken = other.announce("second").await.unwrap();
    assert_eq!(&group.get("n").await.unwrap().unwrap().value[..], b"second");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_name_in_use_is_taken_over_and_its_former_holder_is_told_and_does_not_fight() {
    let (client, _) = place("takeover").await;
    let (first, second) = (session(&client, 15).await, session(&client, 15).await);
    let group = Group::new(&client, "g");
    let mut old = KeepAlive::new(&first, "g", "n").announce("first").await.unwrap();
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot n");
    let new = KeepAlive::new(&second, "g", "n").announce("second").await.unwrap();
    assert_eq!(told(&next(&mut members).await), "changed n \"first\" -> \"second\"", "never absent");
    let status = tokio::time::timeout(LONG, old.changed()).await.unwrap().unwrap();
    assert_eq!(status.state, PresenceState::Displaced);
    assert_eq!(old.lost().await, PresenceState::Displaced);
    assert!(matches!(old.update("mine").await, Err(Error::NameTaken { .. })));
    old.leave().await.unwrap();
    assert_eq!(&group.get("n").await.unwrap().unwrap().value[..], b"second", "leaving takes only one's own");
    assert_eq!(new.status().state, PresenceState::Kept);
    first.close().await.unwrap();
    assert_eq!(names(&group.alive().await.unwrap()), ["n"]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropping_the_announcement_and_closing_the_session_take_the_node_away() {
    let (client, _) = place("drop").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "g");
    let one = KeepAlive::new(&session, "g", "one").announce("").await.unwrap();
    let mut two = KeepAlive::new(&session, "g", "two").announce("").await.unwrap();
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "snapshot one,two");
    drop(one);
    assert_eq!(told(&next(&mut members).await), "left one");
    session.close().await.unwrap();
    assert_eq!(told(&next(&mut members).await), "left two");
    let status = tokio::time::timeout(LONG, two.changed()).await.unwrap().unwrap();
    assert_eq!(status.state, PresenceState::Left);
    assert_eq!(two.changed().await, None, "a final state is the last one");
    let refused = two.update("x").await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
    let refused = KeepAlive::new(&session, "g", "three").announce("").await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn waiting_for_a_number_of_nodes_ends_when_they_are_there() {
    let (client, _) = place("waitfor").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "g");
    assert_eq!(group.wait_for(0).await.unwrap(), []);
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait_for(3).await.unwrap() }
    });
    let mut kept = Vec::new();
    for node in ["c", "a", "b"] {
        assert!(!waiting.is_finished());
        kept.push(KeepAlive::new(&session, "g", node).announce("").await.unwrap());
    }
    let there = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(names(&there), ["a", "b", "c"]);
}

/// The stream and the inherent `next` are the same.
async fn through_stream(members: &mut Members) -> Event {
    let mut members = std::pin::Pin::new(members);
    std::future::poll_fn(|cx| members.as_mut().poll_next(cx)).await.unwrap().unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn members_are_a_stream_and_a_dropped_next_loses_nothing() {
    let (client, _) = place("stream").await;
    let session = session(&client, 15).await;
    let group = Group::new(&client, "g");
    let mut members = group.watch().await.unwrap();
    assert_eq!(told(&through_stream(&mut members).await), "snapshot ");
    let mut kept = Vec::new();
    let mut seen = Vec::new();
    for node in 0..50 {
        kept.push(KeepAlive::new(&session, "g", format!("n{node:02}")).announce("").await.unwrap());
        // Most of these end before there is anything.
        if let Ok(Some(event)) = tokio::time::timeout(Duration::from_micros(50), members.next()).await {
            seen.push(told(&event.unwrap()));
        }
    }
    while seen.len() < 50 {
        seen.push(told(&next(&mut members).await));
    }
    let expected: Vec<String> = (0..50).map(|node| format!("joined n{node:02}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_time_to_live_below_a_second_is_refused_instead_of_a_node_that_vanishes() {
    let (client, _) = place("subsecond").await;
    let options = core::SessionOptions::default().ttl(Duration::from_millis(500));
    let refused = core::Session::open_with(&client, options).await.unwrap_err();
    assert!(matches!(refused, core::Error::InvalidOption { option: "ttl", .. }), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_thousand_kept_names_cost_one_lease_and_no_write_while_they_are_kept() {
    const NAMES: usize = 1000;
    let member = Member::single().await;
    let client = common::client_of(&member.endpoint(), "thousand").await;
    let oracle = member.oracle().await;
    // Four keepalives a second.
    let session = session(&client, 5).await;
    let started = Instant::now();
    let mut kept = Vec::new();
    for node in 0..NAMES {
        kept.push(KeepAlive::new(&session, "g", format!("n{node:04}")).announce("v").await.unwrap());
    }
    println!("{NAMES} names announced one after the other in {:?}", started.elapsed());
    assert_eq!(Group::new(&client, "g").alive().await.unwrap().len(), NAMES);
    assert_eq!(oracle.leases().await.len(), 1, "one lease for all");
    let metrics = member.metrics().await;
    let watchers = metrics.get("etcd_debugging_mvcc_watch_stream_total").unwrap();
    println!("{watchers} watch stream(s) for {NAMES} names");
    assert!(watchers <= 2.0, "{watchers}");

    let proposals = async || member.metrics().await.get("etcd_server_proposals_committed_total").unwrap();
    let heartbeats = async || member.metrics().await.get("etcd_debugging_lease_renewed_total").unwrap();
    let (revision, before, renewed) = (oracle.revision().await, proposals().await, heartbeats().await);
    let beats = eventually(LONG, "ten heartbeats", async || {
        Some(heartbeats().await - renewed).filter(|beats| *beats >= 10.0)
    })
    .await;
    let after = proposals().await;
    println!("{beats} heartbeats, {} proposals", after - before);
    assert_eq!(oracle.revision().await, revision, "heartbeats are no writes");
    // etcd itself may log a word of its own now and then; one per heartbeat would be ten or more.
    assert!(after - before <= 2.0, "{} raft proposals for {beats} heartbeats", after - before);
    assert!(kept.iter().all(|announcement| announcement.status().state == PresenceState::Kept));
    assert_eq!(session.epoch().number(), 1);

    session.close().await.unwrap();
    assert_eq!(Group::new(&client, "g").alive().await.unwrap(), []);
    assert_eq!(oracle.leases().await.len(), 0);
}
