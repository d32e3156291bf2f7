//! Many at once.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{NAME, Place, SOON, assert_gapless, hammer};
use sereno_counter::{Counter, Error};
use sereno_testkit::{Member, eventually};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn three_workers_of_100_increments_each_make_300() {
    let place = Place::shared("counter-inc").await;
    let workers: Vec<_> = futures(3, async || hammer(&place.counter().await, 1, 100).await).await;
    assert_gapless(workers.into_iter().flatten(), 1, 300);
    assert_eq!(place.counter().await.get().await.unwrap(), 300);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn three_workers_of_100_decrements_each_bring_300_to_0() {
    let place = Place::shared("counter-dec").await;
    place.counter().await.set(300).await.unwrap();
    let decrement = async || {
        let counter = place.counter().await;
        for _ in 0..100 {
            counter.add(-1).await.unwrap();
        }
    };
    futures(3, decrement).await;
    assert_eq!(place.counter().await.get().await.unwrap(), 0);
}

/// Runs so many futures at once on this task.
async fn futures<T>(count: usize, make: impl AsyncFn() -> T) -> Vec<T> {
    let mut running: Vec<_> = (0..count).map(|_| Box::pin(make())).collect();
    let mut done: Vec<Option<T>> = (0..count).map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn forty_handles_that_come_and_go_lose_no_update_of_one_writer() {
    let place = Place::shared("counter-lost-updates").await;
    let session = place.session().await;
    let stop = Arc::new(AtomicBool::new(false));
    // Each handle keeps the counter alive in its own way: reading, watching, folding when it goes.
    let mut others = Vec::new();
    for _ in 0..40 {
        let (session, stop) = (session.clone(), stop.clone());
        others.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let counter = Counter::new(&session, NAME);
                counter.get().await.unwrap();
                let mut changes = counter.watch().await.unwrap();
                changes.next().await.unwrap().unwrap();
                // Until the writer does something, or has done.
                let _ = timeout(Duration::from_millis(500), changes.next()).await;
            }
        }));
    }
    let writer = place.counter().await;
    assert_gapless(hammer(&writer, 3, 1000).await, 1, 3000);
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(writer.get().await.unwrap(), 3000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn all_values_told_to_several_sessions_are_distinct_and_gapless() {
    const SESSIONS: usize = 6;
    const TASKS: usize = 16;
    const EACH: usize = 100;
    let place = Place::shared("counter-gapless").await;
    let mut running = Vec::new();
    for _ in 0..SESSIONS {
        let counter = place.counter().await;
        running.push(tokio::spawn(async move { hammer(&counter, TASKS, EACH).await }));
    }
    let mut told = Vec::new();
    for session in running {
        told.extend(session.await.unwrap());
    }
    assert_gapless(told, 1, SESSIONS * TASKS * EACH);
    assert_eq!(place.counter().await.get().await.unwrap(), (SESSIONS * TASKS * EACH) as i64);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn handles_of_one_name_in_one_session_write_one_cell() {
    let place = Place::shared("counter-handles").await;
    let session = place.session().await;
    let handles: Vec<_> = (0..5).map(|_| Counter::new(&session, NAME)).collect();
    let running: Vec<_> = handles
        .iter()
        .cloned()
        .map(|counter| tokio::spawn(async move { hammer(&counter, 4, 50).await }))
        .collect();
    let mut told = Vec::new();
    for handle in running {
        told.extend(handle.await.unwrap());
    }
    assert_gapless(told, 1, 1000);
    let cells = place.stored().await.iter().filter(|(key, _)| key.starts_with("cells/")).count();
    assert_eq!(cells, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn handles_that_are_dropped_and_made_again_count_nothing_twice() {
    let place = Place::shared("counter-churn").await;
    let session = place.session().await;
    let churn = async || {
        let mut told = Vec::new();
        for _ in 0..60 {
            // The fold of the handle before and the first write of this one meet.
            told.push(Counter::new(&session, NAME).add(1).await.unwrap());
        }
        told
    };
    let told = timeout(SOON, futures(4, churn)).await.unwrap();
    assert_gapless(told.into_iter().flatten(), 1, 240);
    assert_eq!(place.counter().await.get().await.unwrap(), 240);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn exactly_one_of_many_compare_and_sets_wins_each_round() {
    let place = Place::shared("counter-cas-race").await;
    let counters = [place.counter().await, place.counter().await, place.counter().await];
    for round in 0..20 {
        let racers: Vec<_> = (0..12)
            .map(|racer| {
                let counter = counters[racer % 3].clone();
                tokio::spawn(async move { counter.compare_and_set(round, round + 1).await })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(()) => won += 1,
                Err(Error::Mismatch { expected, actual }) => {
                    assert_eq!((expected, actual), (round, round + 1))
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_set_gets_through_under_load_and_nothing_of_before_counts_after_it() {
    let place = Place::shared("counter-set-load").await;
    let mut running = Vec::new();
    for _ in 0..3 {
        let counter = place.counter().await;
        running.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for _ in 0..500 {
                told.push(counter.add(1).await.unwrap());
            }
            told
        }));
    }
    let setter = place.counter().await;
    for _ in 0..10 {
        setter.add(1).await.unwrap();
        timeout(SOON, setter.set(1_000_000)).await.unwrap().unwrap();
    }
    let last = 1_000_000 - 10;
    setter.set(last).await.unwrap();
    let mut after = 0;
    for session in running {
        let told = session.await.unwrap();
        after += told.iter().filter(|value| (last..1_000_000).contains(*value)).count() as i64;
    }
    let value = setter.get().await.unwrap();
    assert!(value >= last && value <= last + 1500, "{value}");
    assert!(after <= value - last, "{after} were told a value after the last set, {} count", value - last);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropped_futures_count_once_or_not_at_all() {
    let place = Place::shared("counter-dropped").await;
    let counter = place.counter().await;
    counter.add(1).await.unwrap();
    let mut answered = Vec::new();
    let mut dropped = 0;
    // From not begun to surely done, by what it takes here and now.
    let started = Instant::now();
    counter.add(0).await.unwrap();
    let usual = started.elapsed();
    let mut round = 0;
    while round < 400 || ((dropped <= 20 || answered.len() <= 20) && round < 10_000) {
        let patience = usual * (round % 80) / 20;
        round += 1;
        let both = futures(2, async || timeout(patience, counter.add(1)).await.ok());
        for answer in both.await {
            match answer {
                Some(value) => answered.push(value.unwrap()),
                None => dropped += 1,
            }
        }
    }
    assert!(dropped > 20 && answered.len() > 20, "{dropped} dropped, {} answered", answered.len());
    let end = counter.add(1).await.unwrap();
    let distinct: std::collections::BTreeSet<_> = answered.iter().collect();
    assert_eq!(distinct.len(), answered.len(), "nobody was told another's value");
    assert!(answered.iter().all(|value| (2..end).contains(value)));
    assert!(end > answered.len() as i64 + 1 && end <= (answered.len() + dropped) as i64 + 2, "{end}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_under_load_only_grows_and_ends_at_the_last_value() {
    let place = Place::shared("counter-watch-load").await;
    let watching = place.counter().await;
    let mut changes = watching.watch().await.unwrap();
    let mut running = Vec::new();
    for _ in 0..3 {
        let counter = place.counter().await;
        running.push(tokio::spawn(async move { hammer(&counter, 4, 100).await }));
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&1200) {
        seen.push(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    for session in running {
        session.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn concurrent_additions_on_one_handle_share_transactions() {
    const TASKS: usize = 256;
    const EACH: usize = 20;
    let member = Member::single().await;
    let place = Place::at("counter-shared", vec![member.endpoint()]);
    let counter = place.counter().await;
    let oracle = member.oracle().await;
    let before = oracle.revision().await;
    let told = hammer(&counter, TASKS, EACH).await;
    let transactions = oracle.revision().await - before;
    println!("{} additions in {transactions} transactions", TASKS * EACH);
    assert_gapless(told, 1, TASKS * EACH);
    // One transaction each would be 5,120. That many are waiting while one is under way, whatever the machine does.
    assert!(transactions < (TASKS * EACH / 4) as i64, "{transactions} transactions");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn cells_of_many_idle_sessions_are_counted_in() {
    let place = Place::shared("counter-many").await;
    let client = place.client().await;
    let mut counters = Vec::new();
    for _ in 0..50 {
        let session = sereno_counter::core::Session::open(&client).await.unwrap();
        let counter = Counter::new(&session, NAME);
        counter.add(1).await.unwrap();
        counters.push(counter);
    }
    assert_eq!(counters[0].add(1).await.unwrap(), 51);
    eventually(SOON, "one key to be left", async || (place.stored().await.len() == 1).then_some(())).await;
    assert_eq!(counters[49].add(1).await.unwrap(), 52);
}
