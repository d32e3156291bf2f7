//! Counters that do not stay for ever.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{NAME, Place, SOON};
use sereno_counter::{Counter, CounterOptions};
use sereno_testkit::eventually;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_counter_with_a_time_to_live_outlasts_its_last_user_by_that_and_no_more() {
    let place = Place::shared("counter-ttl").await;
    let ttl = CounterOptions::default().ttl(Duration::from_secs(4));
    let (first, second) = (place.session().await, place.session().await);
    let counter = Counter::with_options(&first, NAME, ttl.clone());
    counter.add(5).await.unwrap();
    // A reader is a user too.
    let reader = Counter::with_options(&second, NAME, ttl);
    assert_eq!(reader.get().await.unwrap(), 5);
    first.close().await.unwrap();
    // Longer than the time to live, which only use renews.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) {
        assert_eq!(reader.get().await.unwrap(), 5, "it is in use");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(reader.add(1).await.unwrap(), 6);
    drop(reader);
    eventually(SOON, "everything of the counter to be gone", async || {
        place.stored().await.is_empty().then_some(())
    })
    .await;
    let again = Counter::new(&second, NAME);
    assert_eq!(again.add(1).await.unwrap(), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_counter_begun_without_a_time_to_live_is_given_one_by_the_first_who_wants_it() {
    let place = Place::shared("counter-ttl-later").await;
    let (plain, timed) = (place.session().await, place.session().await);
    let without = Counter::new(&plain, NAME);
    without.add(5).await.unwrap();
    let with = Counter::with_options(&timed, NAME, CounterOptions::default().ttl(Duration::from_secs(4)));
    assert_eq!(with.add(1).await.unwrap(), 6);
    eventually(SOON, "the time to live to be set", async || {
        place.stored().await.iter().any(|(_, value)| value.contains(r#""ttl":{"lease":"#)).then_some(())
    })
    .await;
    drop(with);
    timed.close().await.unwrap();
    assert_eq!(without.add(1).await.unwrap(), 7);
    // Longer than the time to live, which only use renews.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) {
        assert_eq!(without.get().await.unwrap(), 7, "whoever writes follows");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    plain.close().await.unwrap();
    eventually(SOON, "everything of the counter to be gone", async || {
        place.stored().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lost_time_to_live_begins_anew() {
    let place = Place::shared("counter-ttl-lost").await;
    let options = CounterOptions::default().ttl(Duration::from_secs(60));
    let counter = Counter::with_options(&place.session().await, NAME, options);
    counter.add(5).await.unwrap();
    let base = place.stored().await.into_iter().find(|(key, _)| key == "value").unwrap().1;
    let lease = base.split(r#""lease":"#).nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(place.oracle().await.revoke(lease).await);
    assert_eq!(place.stored().await, []);
    assert_eq!(counter.add(1).await.unwrap(), 1);
    let again = place.stored().await.into_iter().find(|(key, _)| key == "value").unwrap().1;
    assert!(again.contains(r#""seconds":60"#) && again != base, "{again}");
}
