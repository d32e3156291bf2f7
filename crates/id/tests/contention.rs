//! Many generators at the same time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{
    LONG, ascending, client_of, distinct, patient_place, place, read_ids, session, take_all_but, to_line,
};
use sereno_id::{Error, IdGenerator, IdOptions, decompose};
use sereno_testkit::{ChildHost, child, fresh_namespace, shared};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn two_processes_on_one_host_making_50_000_ids_at_the_same_time_make_no_equal_ones() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("processes");
    let start =
        || ChildHost::new("child_entry", "maker").argument(&endpoints[0]).argument(&namespace).spawn();
    let mut children = [start(), start()];
    for child in &mut children {
        assert_eq!(child.line().await, "ready");
    }
    for child in &mut children {
        child.send("go");
    }
    let mut all = Vec::new();
    let mut times = Vec::new();
    for child in &mut children {
        let (ids, end) = read_ids(child).await;
        assert_eq!(end, "done");
        assert_eq!(ids.len(), 50_000);
        assert!(ascending(&ids));
        times.push((decompose(ids[0]).time, decompose(ids[49_999]).time));
        all.extend(ids);
        assert!(child.wait(LONG).await);
    }
    assert!(distinct(&all), "two processes made the same id");
    assert!(times[0].0 < times[1].1 && times[1].0 < times[0].1, "they did run at the same time: {times:?}");
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("maker") {
        return; // Run by hand.
    }
    let client = client_of(&child::argument(0), &child::argument(1)).await;
    let session = session(&client, 15).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    child::say("ready");
    assert_eq!(child::hear().as_deref(), Some("go"));
    let mut ids = Vec::new();
    for _ in 0..50_000 {
        ids.push(generator.next_id().await.unwrap());
    }
    for some in ids.chunks(1000) {
        child::say(&format!("ids {}", to_line(some)));
    }
    child::say("done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn generators_opened_at_the_same_time_get_different_worker_ids() {
    let (client, _) = place("opening").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let session = session(&client, 15).await;
        for _ in 0..4 {
            let session = session.clone();
            let options = IdOptions::default().workers(2);
            tasks.push(tokio::spawn(async move { IdGenerator::open_with(&session, options).await.unwrap() }));
        }
    }
    let mut generators = Vec::new();
    let mut workers = BTreeSet::new();
    for task in tasks {
        let generator = task.await.unwrap();
        workers.extend(generator.workers());
        generators.push(generator);
    }
    assert_eq!(workers.len(), 64);
    let mut all = Vec::new();
    for generator in &generators {
        all.extend(generator.next_ids(1000).await.unwrap());
    }
    assert!(distinct(&all));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_last_free_worker_ids_go_to_as_many_and_the_others_are_told() {
    let (client, oracle) = patient_place("last").await;
    take_all_but(&client, &[7, 40_000, 65_535]).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let session = session(&client, 15).await;
        tasks.push(tokio::spawn(async move { (IdGenerator::open(&session).await, session) }));
    }
    let mut workers = Vec::new();
    let mut kept = Vec::new();
    let mut refused = 0;
    for task in tasks {
        let (outcome, session) = task.await.unwrap();
        match outcome {
            Ok(generator) => {
                workers.extend(generator.workers());
                kept.push((generator, session));
            }
            Err(error @ Error::Exhausted) => {
                assert!(error.is_retryable());
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    workers.sort_unstable();
    assert_eq!((workers, refused), (vec![7, 40_000, 65_535], 3));

    // Wanting more than there are takes none.
    let (generator, session) = kept.pop().unwrap();
    let free = generator.workers()[0];
    generator.close().await.unwrap();
    let two = IdGenerator::open_with(&session, IdOptions::default().workers(2)).await;
    assert!(matches!(two, Err(Error::Exhausted)), "{two:?}");
    assert_eq!(oracle.get(common::worker_key(&client, free)).await, None);
    assert_eq!(IdGenerator::open(&session).await.unwrap().workers(), [free]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn callers_of_one_generator_are_served_in_turn() {
    let (client, _) = place("turn").await;
    let session = session(&client, 15).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    let started = Instant::now();
    let tasks: Vec<_> = (0..512)
        .map(|_| {
            let generator = generator.clone();
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                let mut ids = Vec::new();
                for _ in 0..50 {
                    let asked = Instant::now();
                    ids.push(generator.next_id().await.unwrap());
                    slowest = slowest.max(asked.elapsed());
                }
                (ids, slowest)
            })
        })
        .collect();
    let mut all = Vec::new();
    let mut slowest = Duration::ZERO;
    for task in tasks {
        let (ids, wait) = task.await.unwrap();
        all.extend(ids);
        slowest = slowest.max(wait);
    }
    println!("{} ids for 512 tasks in {:?}, the longest wait {slowest:?}", all.len(), started.elapsed());
    assert!(distinct(&all));
    // In turn, each waits for about 512 ids, two ticks; unfairly, some would wait nearly to the end.
    assert!(slowest < started.elapsed() * 2 / 3, "{slowest:?}");
}
