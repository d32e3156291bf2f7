//! Additions whose answers never came.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{NAME, Place, SOON, assert_gapless, hammer};
use sereno_counter::core::Error as CoreError;
use sereno_counter::{Counter, Error};
use sereno_testkit::{Flaky, Member, Mode, Proxy, eventually};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn ten_thousand_increments_with_replies_dropped_at_random_count_exactly() {
    const SESSIONS: usize = 5;
    const TASKS: usize = 4;
    const EACH: usize = 500;
    let member = Member::single().await;
    let mut place = Place::at("counter-lossy", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(30);
    let mut proxies = Vec::new();
    let mut running = Vec::new();
    for seed in 0..SESSIONS {
        let proxy = Proxy::to(member.endpoint()).await;
        let session = place.session_at(vec![proxy.endpoint()]).await;
        proxy.set(Mode::Flaky(Flaky::new(0.08, seed as u64).lose_request(0.02))).await;
        let counter = Counter::new(&session, NAME);
        running.push(tokio::spawn(async move { hammer(&counter, TASKS, EACH).await }));
        proxies.push(proxy);
    }
    let mut told = Vec::new();
    for session in running {
        told.extend(session.await.unwrap());
    }
    // Every one of them was told its own value: no error of any kind, nothing twice, no gap.
    assert_gapless(told, 1, SESSIONS * TASKS * EACH);
    assert_eq!(place.counter().await.get().await.unwrap(), 10_000);
    let dropped: u64 = proxies.iter().map(|proxy| proxy.stats().responses_dropped).sum();
    let resets: u64 = proxies.iter().map(|proxy| proxy.stats().resets).sum();
    println!("{dropped} pieces of answers were dropped, connections were reset {resets} times");
    assert!(dropped >= 100 && resets >= 50, "too few faults to prove anything: {dropped}, {resets}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn mixed_operations_with_replies_dropped_tell_nothing_false() {
    let member = Member::single().await;
    let mut place = Place::at("counter-lossy-mixed", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(30);
    let proxy = Proxy::to(member.endpoint()).await;
    let counters = [
        Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME),
        Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME),
    ];
    proxy.flaky(0.08, 7).await;
    // Each compare-and-set that wins adds 1 too, so that all of them together still count.
    let won = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for task in 0..6 {
        let (counter, won) = (counters[task % 2].clone(), won.clone());
        running.push(tokio::spawn(async move {
            let mut values = Vec::new();
            for _ in 0..60 {
                values.push(counter.add(1).await.unwrap());
                let now = counter.get().await.unwrap();
                match counter.compare_and_set(now, now + 1).await {
                    Ok(()) => {
                        won.fetch_add(1, Ordering::Relaxed);
                        values.push(now + 1);
                    }
                    Err(Error::Mismatch { expected, actual }) => assert!(actual > expected),
                    Err(error) => panic!("{error:?}"),
                }
            }
            values
        }));
    }
    let mut values = Vec::new();
    for task in running {
        values.extend(task.await.unwrap());
    }
    let won = won.load(Ordering::Relaxed) as usize;
    assert!(won > 0);
    assert_gapless(values, 1, 360 + won);
    assert_eq!(place.counter().await.get().await.unwrap(), 360 + won as i64);
    assert!(proxy.stats().responses_dropped >= 5, "{:?}", proxy.stats());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_lost_while_its_answer_was_lost_learns_what_became_of_it() {
    let member = Member::single().await;
    let mut place = Place::at("counter-receipt", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(20);
    let proxy = Proxy::to(member.endpoint()).await;
    let session = place.session_at(vec![proxy.endpoint()]).await;
    let (counter, other) = (Counter::new(&session, NAME), place.counter().await);
    other.add(100).await.unwrap();
    counter.add(1).await.unwrap();
    // When this returns, the look for dead sessions that follows a first use is over.
    counter.add(0).await.unwrap();
    // The addition reaches etcd, its answer is lost; the session dies; somebody folds its cell and counts on.
    proxy.drop_responses().await;
    let adding = tokio::spawn({
        let counter = counter.clone();
        async move { counter.add(10).await }
    });
    eventually(SOON, "the addition to arrive", async || (other.get().await.unwrap() == 111).then_some(()))
        .await;
    place.revoke(&session).await;
    let receipt = eventually(SOON, "the cell to be folded", async || {
        assert!(!adding.is_finished(), "it cannot know yet");
        other.add(1000).await.unwrap();
        place.stored().await.into_iter().find(|(key, _)| key.starts_with("folded/"))
    })
    .await;
    assert!(receipt.1.contains(r#""total":11,"seq":3"#), "{receipt:?}");
    let seen = other.get().await.unwrap();
    proxy.pass().await;
    let told = timeout(SOON, adding).await.unwrap().unwrap().unwrap();
    assert_eq!(told % 1000, 111, "it is told the value of then, not of now: {told}");
    assert_eq!(other.get().await.unwrap(), seen, "it was not applied again");
    assert_eq!(counter.add(1).await.unwrap(), seen + 1, "and goes on under the next epoch");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lost_answer_whose_history_was_compacted_is_told_as_applied_without_value() {
    let member = Member::single().await;
    let mut place = Place::at("counter-compacted", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(20);
    let proxy = Proxy::to(member.endpoint()).await;
    let counter = Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME);
    let other = place.counter().await;
    counter.add(1).await.unwrap();
    proxy.drop_responses().await;
    let adding = tokio::spawn({
        let counter = counter.clone();
        async move { counter.add(10).await }
    });
    eventually(SOON, "the addition to arrive", async || (other.get().await.unwrap() == 11).then_some(()))
        .await;
    other.add(100).await.unwrap();
    member.oracle().await.compact_to_head().await;
    proxy.pass().await;
    let told = timeout(SOON, adding).await.unwrap().unwrap();
    assert!(matches!(told, Err(Error::Core(CoreError::ValueUnknown { .. }))), "{told:?}");
    let error = told.unwrap_err();
    assert!(!error.is_retryable() && !error.is_outcome_unknown(), "it is known to have been applied");
    assert_eq!(counter.add(1).await.unwrap(), 112);
}
