//! What each verb does.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{NAME, Place, SOON, assert_gapless};
use sereno_counter::core::{Error as CoreError, KeyError};
use sereno_counter::{Counter, Error};
use sereno_testkit::eventually;
use tokio::time::timeout;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn adding_returns_the_new_value_and_reading_sees_it() {
    let place = Place::shared("counter-add").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    assert_eq!(counter.get().await.unwrap(), 0, "what was never written is 0");
    assert_eq!(counter.add(5).await.unwrap(), 5);
    assert_eq!(other.add(-7).await.unwrap(), -2, "negative amounts and negative values");
    assert_eq!(counter.add(0).await.unwrap(), -2);
    assert_eq!(counter.get().await.unwrap(), -2);
    assert_eq!(other.get().await.unwrap(), -2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn setting_overrides_what_others_have_added() {
    let place = Place::shared("counter-set").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    counter.add(3).await.unwrap();
    other.add(4).await.unwrap();
    counter.set(100).await.unwrap();
    assert_eq!(other.get().await.unwrap(), 100);
    assert_eq!(other.add(1).await.unwrap(), 101, "its own cell of before counts no more");
    assert_eq!(counter.add(1).await.unwrap(), 102);
    other.set(-5).await.unwrap();
    assert_eq!(counter.add(1).await.unwrap(), -4);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_set_on_nothing_begins_the_counter() {
    let place = Place::shared("counter-set-first").await;
    let counter = place.counter().await;
    counter.set(7).await.unwrap();
    assert_eq!(place.counter().await.add(1).await.unwrap(), 8);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn compare_and_set_replaces_only_what_was_expected() {
    let place = Place::shared("counter-cas").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    counter.compare_and_set(0, 10).await.unwrap();
    other.add(1).await.unwrap();
    let refused = counter.compare_and_set(10, 20).await.unwrap_err();
    assert!(matches!(refused, Error::Mismatch { expected: 10, actual: 11 }), "{refused:?}");
    assert_eq!(refused.to_string(), "the value is 11, not 10");
    assert!(!refused.is_retryable());
    counter.compare_and_set(11, 20).await.unwrap();
    assert_eq!(other.get().await.unwrap(), 20);
    other.compare_and_set(20, 20).await.unwrap();
    assert_eq!(counter.add(2).await.unwrap(), 22);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_addition_that_would_overflow_is_refused_and_changes_nothing() {
    let place = Place::shared("counter-overflow").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    other.add(1).await.unwrap();
    counter.set(i64::MAX - 10).await.unwrap();
    assert_eq!(counter.add(7).await.unwrap(), i64::MAX - 3);
    for adder in [&counter, &other] {
        let refused = adder.add(4).await.unwrap_err();
        assert!(matches!(refused, Error::Overflow { value, by: 4 } if value == i64::MAX - 3), "{refused:?}");
    }
    assert_eq!(other.add(3).await.unwrap(), i64::MAX);
    assert!(matches!(other.add(1).await, Err(Error::Overflow { value: i64::MAX, by: 1 })));
    assert_eq!(other.add(0).await.unwrap(), i64::MAX);
    assert_eq!(counter.get().await.unwrap(), i64::MAX);
    counter.set(i64::MIN).await.unwrap();
    assert!(matches!(other.add(-1).await, Err(Error::Overflow { value: i64::MIN, by: -1 })));
    assert_eq!(other.add(i64::MAX).await.unwrap(), -1, "amounts of any size");
    assert_eq!(
        counter.add(i64::MIN).await.unwrap_err().to_string(),
        format!("adding {} to -1 overflows", i64::MIN)
    );
    counter.set(0).await.unwrap();
    assert_eq!(other.add(5).await.unwrap(), 5);
    let base = place.stored().await.into_iter().find(|(key, _)| key == "value").unwrap().1;
    assert!(!base.contains("exact"), "back in the middle nothing needs checking: {base}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn combined_additions_near_the_limit_are_refused_one_by_one() {
    let place = Place::shared("counter-overflow-many").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    counter.set(i64::MAX - 50).await.unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let counter = if task % 2 == 0 { counter.clone() } else { other.clone() };
            tokio::spawn(async move { counter.add(1).await })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(value) => told.push(value),
            Err(error) => assert!(matches!(error, Error::Overflow { value: i64::MAX, by: 1 }), "{error:?}"),
        }
    }
    assert_gapless(told, i64::MAX - 49, 50);
    assert_eq!(counter.get().await.unwrap(), i64::MAX);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_begins_with_the_present_value_and_follows_each_writer() {
    let place = Place::shared("counter-watch").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    counter.add(3).await.unwrap();
    let mut changes = other.watch().await.unwrap();
    let mut next = async || timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, 3);
    counter.add(1).await.unwrap();
    assert_eq!(next().await, 4);
    other.add(-4).await.unwrap();
    assert_eq!(next().await, 0);
    other.add(0).await.unwrap();
    counter.set(0).await.unwrap();
    counter.set(9).await.unwrap();
    assert_eq!(next().await, 9, "what stays the same is not told");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_that_is_behind_skips_to_the_last_value() {
    let place = Place::shared("counter-watch-slow").await;
    let counter = place.counter().await;
    let mut changes = counter.watch().await.unwrap();
    for _ in 0..50 {
        counter.add(1).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&50) {
        seen.push(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap());
    }
    assert!(seen.is_sorted(), "never an old value: {seen:?}");
    let dropped = timeout(Duration::from_millis(20), changes.next()).await;
    assert!(dropped.is_err(), "nothing more to tell");
    counter.add(1).await.unwrap();
    assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 51, "next() is cancel-safe");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_is_stored_can_be_read_by_a_person() {
    let place = Place::shared("counter-keys").await;
    let session = place.session().await;
    let counter = Counter::new(&session, NAME);
    counter.set(40).await.unwrap();
    counter.add(2).await.unwrap();
    let stored = place.stored().await;
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert!(stored[0].0.starts_with(&format!("cells/{}-", session.epoch().id())), "{stored:?}");
    assert_eq!(stored[0].1, r#"{"total":2,"seq":2,"generation":2}"#);
    assert_eq!(stored[1], ("value".to_owned(), r#"{"value":40,"generation":2}"#.to_owned()));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_closing_session_counts_its_cell_in() {
    let place = Place::shared("counter-close").await;
    let session = place.session().await;
    let counter = Counter::new(&session, NAME);
    counter.add(12).await.unwrap();
    session.close().await.unwrap();
    let left = [("value".to_owned(), r#"{"value":12,"generation":1}"#.to_owned())];
    assert_eq!(place.stored().await, left);
    let refused = counter.add(1).await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
    assert_eq!(place.counter().await.add(1).await.unwrap(), 13);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_last_handle_counts_its_cell_in() {
    let place = Place::shared("counter-drop").await;
    let session = place.session().await;
    let counter = Counter::new(&session, NAME);
    let twin = counter.clone();
    counter.add(12).await.unwrap();
    drop(counter);
    assert_eq!(twin.add(1).await.unwrap(), 13, "one of two handles is enough");
    drop(twin);
    eventually(SOON, "the cell to be counted in", async || (place.stored().await.len() == 1).then_some(()))
        .await;
    assert_eq!(Counter::new(&session, NAME).add(1).await.unwrap(), 14, "the session goes on");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_idle_cell_is_counted_in() {
    let place = Place::shared("counter-idle").await;
    let counter = place.counter().await;
    counter.add(5).await.unwrap();
    assert_eq!(place.stored().await.len(), 2);
    eventually(SOON, "the cell to be counted in", async || (place.stored().await.len() == 1).then_some(()))
        .await;
    assert_eq!(counter.add(1).await.unwrap(), 6);
    assert_eq!(place.stored().await.len(), 2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_dead_sessions_cell_is_counted_in_once_and_leaves_a_receipt() {
    let place = Place::shared("counter-dead").await;
    let session = place.session().await;
    let dying = Counter::new(&session, NAME);
    dying.add(30).await.unwrap();
    let name = place.stored().await[0].0.strip_prefix("cells/").unwrap().to_owned();
    place.revoke(&session).await;
    let counter = place.counter().await;
    assert_eq!(counter.add(1).await.unwrap(), 31);
    eventually(SOON, "the cell of the dead to be counted in", async || {
        let stored = place.stored().await;
        let receipt = stored.iter().find(|(key, _)| *key == format!("folded/{name}"))?;
        assert!(receipt.1.starts_with(r#"{"total":30,"seq":1,"generation":1,"revision":"#), "{receipt:?}");
        assert!(stored.iter().all(|(key, _)| *key != format!("cells/{name}")));
        Some(())
    })
    .await;
    assert_eq!(counter.get().await.unwrap(), 31);
    assert_eq!(dying.add(1).await.unwrap(), 32, "it goes on under the next epoch");
    assert_eq!(counter.add(1).await.unwrap(), 33);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn names_cannot_leave_their_place_and_bad_ones_are_reported() {
    let place = Place::shared("counter-names").await;
    let session = place.session().await;
    let names = ["a", "a/b", "a/cells", "..", "%2F", "ü 🦉", ".s", &"n".repeat(255)];
    for (at, name) in names.iter().enumerate() {
        assert_eq!(Counter::new(&session, name).add(at as i64 + 1).await.unwrap(), at as i64 + 1);
    }
    for (at, name) in names.iter().enumerate() {
        assert_eq!(Counter::new(&session, name).get().await.unwrap(), at as i64 + 1, "{name}");
    }
    for (bad, len) in [("", 0), (&*"n".repeat(256), 256)] {
        let counter = Counter::new(&session, bad);
        let refused = counter.add(1).await.unwrap_err();
        let expected = if len == 0 { KeyError::Empty } else { KeyError::TooLong { len } };
        assert!(
            matches!(&refused, Error::Core(CoreError::InvalidKey(error)) if *error == expected),
            "{refused:?}"
        );
        assert!(
            counter.get().await.is_err() && counter.set(1).await.is_err() && counter.watch().await.is_err()
        );
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_is_not_ours_is_reported_and_left_alone() {
    let place = Place::shared("counter-malformed").await;
    let oracle = place.oracle().await;
    for (key, value) in [
        ("value", "12abc"),
        ("value", r#"{"value":1}"#),
        ("value", r#"{"value":1e9,"generation":1}"#),
        ("cells/0123456789abcdef-1", r#"{"total":"2","seq":1,"generation":1}"#),
        (
            "cells/0123456789abcdef-1",
            r#"{"total":99999999999999999999999999999999999999,"seq":1,"generation":1}"#,
        ),
        ("cells/somebody", r#"{"total":2,"seq":1,"generation":1}"#),
        ("cells/0123456789abcdef-1/x", r#"{"total":2,"seq":1,"generation":1}"#),
    ] {
        oracle.put(place.key(key), value).await;
        let counter = place.counter().await;
        for refused in [
            counter.add(1).await.map(drop),
            counter.get().await.map(drop),
            counter.set(1).await,
            counter.compare_and_set(0, 1).await,
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, Error::Core(CoreError::Malformed { .. })), "{key}: {refused:?}");
            assert!(!refused.is_retryable() && !refused.is_outcome_unknown());
        }
        let mut changes = counter.watch().await.unwrap();
        let told = timeout(SOON, changes.next()).await.unwrap().unwrap();
        assert!(matches!(told, Err(Error::Core(CoreError::Malformed { .. }))), "{told:?}");
        assert_eq!(place.stored().await, [(key.to_owned(), value.to_owned())], "left alone");
        oracle.delete(place.key(key)).await;
        assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 0, "it was mended");
        assert_eq!(counter.add(1).await.unwrap(), 1);
        oracle.delete_prefix(place.key("")).await;
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn deleting_the_value_by_hand_resets_the_counter() {
    let place = Place::shared("counter-reset").await;
    let (counter, other) = (place.counter().await, place.counter().await);
    counter.add(5).await.unwrap();
    other.add(5).await.unwrap();
    place.oracle().await.delete(place.key("value")).await;
    assert_eq!(counter.get().await.unwrap(), 0);
    assert_eq!(counter.add(1).await.unwrap(), 1, "cells of before count no more");
    assert_eq!(other.add(1).await.unwrap(), 2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn futures_of_the_verbs_are_small() {
    let place = Place::shared("counter-size").await;
    let counter = place.counter().await;
    // A caller may hold thousands of them.
    assert!(size_of_val(&counter.add(1)) <= 768, "add: {}", size_of_val(&counter.add(1)));
    assert!(size_of_val(&counter.set(1)) <= 768, "set: {}", size_of_val(&counter.set(1)));
    let cas = counter.compare_and_set(0, 1);
    assert!(size_of_val(&cas) <= 1024, "compare_and_set: {}", size_of_val(&cas));
    assert!(size_of_val(&counter.get()) <= 1024, "get: {}", size_of_val(&counter.get()));
    assert!(size_of_val(&counter.watch()) <= 1024, "watch: {}", size_of_val(&counter.watch()));
}
