//! One generator, nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, Set, ascending, distinct, place, reserved, session, worker_key};
use sereno_id::{Clock, Error, IdGenerator, IdOptions, core, decompose};
use sereno_testkit::eventually;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn ids_ascend_and_say_when_and_by_whom_they_were_made() {
    let (client, _) = place("parts").await;
    let session = session(&client, 15).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    let worker = generator.workers()[0];
    let before = Clock::system().now();
    let mut ids = Vec::new();
    for _ in 0..2000 {
        ids.push(generator.next_id().await.unwrap());
    }
    let after = Clock::system().now();
    assert!(ascending(&ids));
    for id in ids {
        let parts = decompose(id);
        assert_eq!(parts.worker, worker);
        assert_eq!(id >> 63, 0, "fits a signed number");
        let step = Duration::from_millis(10);
        assert!(
            parts.time + step >= before && parts.time <= after + step,
            "{parts:?} not in {before:?}..{after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 7)]
#[ignore = "needs etcd: cargo xtask test"]
async fn seven_threads_with_ten_thousand_ids_each_get_no_duplicate() {
    let (client, _) = place("seven").await;
    let session = session(&client, 15).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    let started = Instant::now();
    let tasks: Vec<_> = (0..7)
        .map(|_| {
            let generator = generator.clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..10_000 {
                    ids.push(generator.next_id().await.unwrap());
                }
                ids
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let ids = task.await.unwrap();
        assert!(ascending(&ids), "also for each thread");
        all.extend(ids);
    }
    let took = started.elapsed();
    println!("70,000 ids by 7 threads in {took:?}");
    assert_eq!(all.len(), 70_000);
    assert!(distinct(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn several_worker_ids_multiply_the_rate_and_the_order_stays() {
    let (client, _) = place("rate").await;
    let session = session(&client, 15).await;
    for workers in [1_u32, 4] {
        let options = IdOptions::default().workers(workers as usize);
        let generator = IdGenerator::open_with(&session, options).await.unwrap();
        assert_eq!(generator.workers().len(), workers as usize);
        let count = 40_000 * workers as usize;
        let started = Instant::now();
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.extend(generator.next_ids(1000).await.unwrap());
        }
        let rate = f64::from(count as u32) / started.elapsed().as_secs_f64();
        println!("{workers} worker id(s): {rate:.0} ids/s in batches of 1,000");
        assert!(ascending(&ids));
        let ticks = decompose(ids[count - 1]).time - decompose(ids[0]).time;
        assert!(
            ticks >= Duration::from_millis(10) * (40_000 / 256 - 1),
            "never faster than the layout allows"
        );
        let used: std::collections::BTreeSet<u16> = ids.iter().map(|id| decompose(*id).worker).collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), generator.workers());
        let mut per_tick = std::collections::BTreeMap::<Duration, usize>::new();
        for id in &ids {
            *per_tick.entry(decompose(*id).time).or_default() += 1;
        }
        // A batch that begins in a fresh tick takes up to all of its slots, whatever else the machine does.
        let most = per_tick.into_values().max().unwrap();
        let (less, all) = (256 * (workers as usize - 1), 256 * workers as usize);
        assert!(most > less && most <= all, "{most} ids in one tick");
        let started = Instant::now();
        for _ in 0..count / 4 {
            generator.next_id().await.unwrap();
        }
        let rate = f64::from(count as u32 / 4) / started.elapsed().as_secs_f64();
        println!("{workers} worker id(s): {rate:.0} ids/s one by one");
    }
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn waiting_for_ids_never_blocks_the_thread() {
    let (client, _) = place("async").await;
    let session = session(&client, 15).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    let (turns, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let other = tokio::spawn({
        let (turns, stop) = (turns.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let ids = generator.next_ids(256 * 50).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    other.await.unwrap();
    let span = decompose(ids[ids.len() - 1]).time - decompose(ids[0]).time;
    assert!(span >= Duration::from_millis(490), "{span:?}");
    let turns = turns.load(Ordering::SeqCst);
    println!("{turns} turns of another task while {span:?} of ids were made on the same thread");
    // A generator that blocked would leave one turn per tick at most.
    assert!(turns > 200, "{turns}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn worker_ids_are_leased_and_their_time_is_reserved_ahead_without_a_write_per_id() {
    let (client, oracle) = place("keys").await;
    let session = session(&client, 15).await;
    let before = Clock::system().now();
    let generator = IdGenerator::open(&session).await.unwrap();
    let after = Clock::system().now();
    let worker = generator.workers()[0];
    let reserved = reserved(&client, &oracle, worker).await;
    let ahead = Duration::from_secs(30);
    // Time is reserved in whole ticks.
    let tick = Duration::from_millis(10);
    assert!(
        before + ahead < reserved + tick && reserved <= after + ahead,
        "{before:?} {reserved:?} {after:?}"
    );
    assert_ne!(common::lease_of(&oracle, worker_key(&client, worker)).await, 0);
    assert_eq!(common::lease_of(&oracle, common::clock_key(&client, worker)).await, 0, "it must stay");
    let prefix = client.namespace().prefix("id").unwrap();
    let range = || async { client.range(&prefix).await.unwrap().entries };
    let before = range().await;
    for _ in 0..1000 {
        generator.next_id().await.unwrap();
    }
    assert_eq!(range().await, before);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_closed_or_dropped_generator_gives_its_worker_ids_back_and_leaves_its_mark() {
    let (client, oracle) = place("close").await;
    let session = session(&client, 15).await;
    let options = IdOptions::default().workers(3);
    let generator = IdGenerator::open_with(&session, options.clone()).await.unwrap();
    let workers = generator.workers();
    let last = generator.next_ids(100).await.unwrap()[99];
    generator.close().await.unwrap();
    generator.close().await.unwrap();
    for worker in &workers {
        assert_eq!(oracle.get(worker_key(&client, *worker)).await, None);
        let mark = reserved(&client, &oracle, *worker).await;
        assert_eq!(mark, decompose(last).time + Duration::from_millis(10), "just after the last id");
    }
    assert!(matches!(generator.next_id().await, Err(Error::Closed)));
    generator.reopen().await.unwrap();
    assert!(generator.next_id().await.unwrap() > last);

    let workers = generator.workers();
    let twin = generator.clone();
    drop(generator);
    twin.next_id().await.unwrap();
    drop(twin);
    eventually(LONG, "the worker ids to be given back", async || {
        for worker in &workers {
            if oracle.get(worker_key(&client, *worker)).await.is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;

    let generator = IdGenerator::open_with(&session, options).await.unwrap();
    let worker = generator.workers()[0];
    session.close().await.unwrap();
    assert_eq!(oracle.get(worker_key(&client, worker)).await, None);
    let refused = generator.next_id().await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
    let refused = generator.reopen().await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_generator_dropped_while_it_opens_takes_no_worker_id() {
    let (client, oracle) = place("dropped").await;
    let session = session(&client, 15).await;
    let workers = client.namespace().prefix("id").unwrap().join("workers").unwrap();
    for micros in (0..4000).step_by(200) {
        let opening = IdGenerator::open(&session);
        if let Ok(opened) = tokio::time::timeout(Duration::from_micros(micros), opening).await {
            opened.unwrap().close().await.unwrap();
        }
    }
    // The tasks of the session are done when it has closed: it waits for them before its lease goes.
    eventually(LONG, "all worker ids to be given back", async || {
        (oracle.count_prefix(workers.as_bytes()).await == 0).then_some(())
    })
    .await;
    assert!(session.epoch().is_valid());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn after_an_idle_time_the_next_id_reserves_time_anew() {
    let (client, oracle) = place("idle").await;
    let session = session(&client, 15).await;
    let set = Set::new();
    let options = IdOptions::default().clock(set.clock());
    let generator = IdGenerator::open_with(&session, options).await.unwrap();
    let worker = generator.workers()[0];
    let first = generator.next_id().await.unwrap();
    let mark = reserved(&client, &oracle, worker).await;
    set.forward(Duration::from_secs(3600));
    assert_eq!(reserved(&client, &oracle, worker).await, mark, "no write while nobody wants ids");
    let second = generator.next_id().await.unwrap();
    assert!(decompose(second).time - decompose(first).time >= Duration::from_secs(3600));
    assert!(reserved(&client, &oracle, worker).await > decompose(second).time);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn time_is_reserved_again_before_it_is_used_up() {
    let (client, oracle) = place("ahead").await;
    let session = session(&client, 15).await;
    let set = Set::new();
    let options = IdOptions::default().clock(set.clock());
    let generator = IdGenerator::open_with(&session, options).await.unwrap();
    let worker = generator.workers()[0];
    let mark = reserved(&client, &oracle, worker).await;
    set.forward(Duration::from_secs(20));
    let id = generator.next_id().await.unwrap();
    assert!(decompose(id).time < mark, "served from what was reserved");
    let later = eventually(LONG, "a later mark", async || {
        Some(reserved(&client, &oracle, worker).await).filter(|later| *later > mark)
    })
    .await;
    assert!(later >= decompose(id).time + Duration::from_secs(30), "{later:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn options_that_make_no_sense_are_refused() {
    let (client, _) = place("options").await;
    let session = session(&client, 15).await;
    let base = IdOptions::default;
    let second = Duration::from_secs(1);
    let bad = [
        base().workers(0),
        base().workers(65),
        base().ahead(second / 2),
        base().ahead(second * 3601),
        base().max_lead(second / 20),
    ];
    for options in bad {
        let refused = IdGenerator::open_with(&session, options.clone()).await.unwrap_err();
        assert!(
            matches!(refused, Error::Core(core::Error::InvalidOption { .. })),
            "{options:?}: {refused:?}"
        );
    }
    let most = IdGenerator::open_with(&session, base().workers(64)).await.unwrap();
    assert_eq!(most.workers().len(), 64);
    assert!(ascending(&most.next_ids(100_000).await.unwrap()));
    most.close().await.unwrap();
}
