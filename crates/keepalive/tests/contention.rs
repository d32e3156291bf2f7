//! Many at the same time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{LONG, names, next, place, session};
use sereno_keepalive::{Conflict, Error, Event, Group, KeepAlive, KeepAliveOptions, PresenceState};
use sereno_testkit::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn of_many_who_refuse_exactly_one_gets_the_name() {
    let (client, _) = place("one").await;
    let mut tasks = Vec::new();
    for contender in 0..8 {
        let session = session(&client, 15).await;
        tasks.push(tokio::spawn(async move {
            let options = KeepAliveOptions::default().conflict(Conflict::Refuse);
            let keepalive = KeepAlive::with_options(&session, "g", "leader", options);
            (session, keepalive.announce(contender.to_string()).await)
        }));
    }
    let mut winners = Vec::new();
    let mut sessions = Vec::new();
    for task in tasks {
        let (session, outcome) = task.await.unwrap();
        sessions.push(session);
        match outcome {
            Ok(announcement) => winners.push(announcement),
            Err(Error::NameTaken { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(names(&Group::new(&client, "g").alive().await.unwrap()), ["leader"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn of_many_who_take_over_exactly_one_keeps_the_name_and_all_others_know() {
    let (client, _) = place("takeovers").await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(session(&client, 15).await);
    }
    let tasks = sessions.iter().enumerate().map(|(contender, session)| {
        let keepalive = KeepAlive::new(session, "g", "n");
        tokio::spawn(async move { keepalive.announce(contender.to_string()).await })
    });
    let mut announcements = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        announcements.push(task.await.unwrap().unwrap());
    }
    let kept = eventually(LONG, "one holder", async || {
        let kept: Vec<usize> = announcements
            .iter()
            .enumerate()
            .filter(|(_, announcement)| announcement.status().state == PresenceState::Kept)
            .map(|(contender, _)| contender)
            .collect();
        let displaced = announcements
            .iter()
            .filter(|announcement| announcement.status().state == PresenceState::Displaced)
            .count();
        (kept.len() == 1 && displaced == 7).then(|| kept[0])
    })
    .await;
    let node = Group::new(&client, "g").get("n").await.unwrap().unwrap();
    assert_eq!(node.value, kept.to_string(), "the holder is whose value is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn every_watcher_sees_every_join_change_and_departure_once_and_in_the_same_order() {
    const SESSIONS: usize = 10;
    const NODES: usize = 20;
    let (client, _) = place("churn").await;
    let group = Group::new(&client, "g");
    let mut watchers = Vec::new();
    for _ in 0..4 {
        let mut members = group.watch().await.unwrap();
        watchers.push(tokio::spawn(async move {
            let mut view: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            let mut told = Vec::new();
            assert!(matches!(next(&mut members).await, Event::Snapshot(nodes) if nodes.is_empty()));
            while told.len() < SESSIONS * NODES * 3 {
                let event = next(&mut members).await;
                told.push(common::told(&event));
                match event {
                    Event::Joined(node) => {
                        assert_eq!(view.insert(node.name, node.value.to_vec()), None, "joined twice");
                    }
                    Event::Changed { old, new } => {
                        let before = view.insert(new.name, new.value.to_vec());
                        assert_eq!(before.as_deref(), Some(&old.value[..]), "a change was missed");
                    }
                    Event::Left(node) => {
                        assert_eq!(view.remove(&node.name).as_deref(), Some(&node.value[..]));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(view.len(), 0);
            told
        }));
    }
    let mut workers = Vec::new();
    for session_number in 0..SESSIONS {
        let session = session(&client, 15).await;
        workers.push(tokio::spawn(async move {
            for node in 0..NODES {
                let keepalive = KeepAlive::new(&session, "g", format!("{session_number}-{node}"));
                let announcement = keepalive.announce("old").await.unwrap();
                announcement.update("new").await.unwrap();
                announcement.leave().await.unwrap();
            }
        }));
    }
    for worker in workers {
        tokio::time::timeout(LONG, worker).await.unwrap().unwrap();
    }
    let mut histories = BTreeSet::new();
    for watcher in watchers {
        histories.insert(tokio::time::timeout(LONG, watcher).await.unwrap().unwrap());
    }
    assert_eq!(histories.len(), 1, "all watchers saw the same history");
}
