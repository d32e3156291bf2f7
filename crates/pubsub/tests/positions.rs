//! Resuming: from positions, from the oldest kept, from cursors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::*;
use sereno_pubsub::{
    Delivery, Error, From, NewCursor, Position, Retention, SubscribeOptions, Topic, TopicOptions,
};
use sereno_testkit::eventually;
use std::time::Duration;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn one_resumes_behind_any_position_also_within_a_batch() {
    let place = Place::new("resume").await;
    let topic = place.topic().await;
    let mut publisher = topic.publisher();
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    for n in 0..200 {
        publisher.send(n.to_string()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let mut positions = Vec::new();
    for n in 0..200 {
        let message = message(&mut subscription).await;
        assert_eq!(message.payload, n.to_string());
        positions.push(message.position);
    }
    assert!(positions.iter().any(|position| position.index() > 0), "some were packed");
    assert!(positions.is_sorted() && positions.windows(2).all(|pair| pair[0] != pair[1]));
    let oracle = place.oracle().await;
    for how in ["watched", "compacted", "listed"] {
        match how {
            "watched" => {}
            "compacted" => drop(oracle.compact_to_head().await),
            _ => {
                for n in 0..1100 {
                    oracle.put(format!("{}/x", place.namespace), n.to_string()).await;
                }
            }
        }
        for at in [0, 1, 57, 198, 199] {
            let text_form: Position = positions[at].to_string().parse().unwrap();
            let mut resumed = topic.subscribe(From::Position(text_form)).await.unwrap();
            assert_eq!(texts(&mut resumed, 199 - at).await, numbers(at + 1..200), "{how} behind {at}");
            if at == 199 {
                nothing_before_a_marker(&mut resumed, &topic).await;
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_oldest_kept_comes_first_then_what_is_new() {
    let place = Place::new("oldest").await;
    let topic = place.topic().await;
    for n in 0..250 {
        topic.publish(n.to_string()).await.unwrap();
    }
    place.oracle().await.compact_to_head().await;
    let mut subscription = topic.subscribe(From::Oldest).await.unwrap();
    topic.publish("250").await.unwrap();
    assert_eq!(texts(&mut subscription, 251).await, numbers(0..251));
    let mut empty = Topic::new(&place.session().await, "empty").subscribe(From::Oldest).await.unwrap();
    Topic::new(&place.session().await, "empty").publish("first").await.unwrap();
    assert_eq!(text(&mut empty).await, "first");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_position_of_another_store_is_refused() {
    let place = Place::new("ahead").await;
    let topic = place.topic().await;
    let ahead: Position = "9000000000000000.0.5.0".parse().unwrap();
    let refused = topic.subscribe(From::Position(ahead)).await;
    assert!(matches!(refused, Err(Error::PositionAhead { .. })), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_cursor_continues_behind_what_was_acknowledged() {
    let place = Place::new("cursor").await;
    let topic = place.topic().await;
    topic.publish("before").await.unwrap();
    let mut subscription = topic.subscribe(From::cursor("c")).await.unwrap();
    for n in 0..10 {
        topic.publish(n.to_string()).await.unwrap();
    }
    for _ in 0..4 {
        let position = message(&mut subscription).await.position;
        subscription.ack(&position).await.unwrap();
        subscription.ack(&position).await.unwrap();
    }
    assert_eq!(text(&mut subscription).await, "4");
    drop(subscription);
    let another = place.topic().await;
    let mut resumed = another.subscribe(From::cursor("c")).await.unwrap();
    assert_eq!(texts(&mut resumed, 6).await, numbers(4..10));
    assert!(topic.remove_cursor("c").await.unwrap());
    assert!(!topic.remove_cursor("c").await.unwrap());
    assert_eq!(topic.cursor("c").await.unwrap(), None);
    topic.publish("after").await.unwrap();
    let end = tokio::time::timeout(SOON, resumed.next()).await.unwrap().unwrap();
    assert!(matches!(end, Err(Error::CursorGone)), "{end:?}");
    assert!(resumed.next().await.is_none());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_cursor_moves_forward_only_and_no_further_than_delivered() {
    let place = Place::new("ack").await;
    let topic = place.topic().await;
    topic.publish("0").await.unwrap();
    let options = SubscribeOptions::default().new_cursor(NewCursor::Oldest);
    let mut subscription = topic.subscribe_with(From::cursor("c"), options).await.unwrap();
    let first = message(&mut subscription).await.position;
    let second = topic.publish("1").await.unwrap();
    assert!(matches!(subscription.ack(&second).await, Err(Error::AckAhead)));
    assert_eq!(message(&mut subscription).await.position, second);
    subscription.ack(&second).await.unwrap();
    let behind = subscription.ack(&first).await;
    assert!(matches!(behind, Err(Error::AckBehind { at }) if at == second), "{behind:?}");
    assert_eq!(topic.cursor("c").await.unwrap(), Some(second));
    let plain = topic.subscribe(From::Now).await.unwrap();
    assert!(matches!(plain.ack(&second).await, Err(Error::NoCursor)));
    assert!(plain.acker().is_none());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_later_subscription_takes_the_cursor_over() {
    let place = Place::new("taken").await;
    let topic = place.topic().await;
    let mut stale = topic.subscribe(From::cursor("c")).await.unwrap();
    topic.publish("0").await.unwrap();
    let seen = message(&mut stale).await.position;
    let mut current = place.topic().await.subscribe(From::cursor("c")).await.unwrap();
    let again = message(&mut current).await.position;
    assert_eq!(again, seen, "not acknowledged, so delivered again");
    // Told while it waits, with nothing published, and before it acknowledges anything.
    let end = tokio::time::timeout(SOON, stale.next()).await.unwrap().unwrap();
    assert!(matches!(end, Err(Error::CursorTaken)), "{end:?}");
    assert!(stale.next().await.is_none());
    assert!(matches!(stale.ack(&seen).await, Err(Error::CursorTaken)));
    current.ack(&again).await.unwrap();
    assert_eq!(topic.cursor("c").await.unwrap(), Some(again));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_dropped_acknowledgement_does_not_disturb_the_next() {
    let place = Place::new("dropped_ack").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::cursor("c")).await.unwrap();
    for n in 0..40_u32 {
        topic.publish("x").await.unwrap();
        let position = message(&mut subscription).await.position;
        let acker = subscription.acker().unwrap();
        let limit = Duration::from_micros(u64::from(n) * 50);
        // Given up at a different moment each time: before it was sent, under way, or after.
        if tokio::time::timeout(limit, acker.ack(&position)).await.is_err() {
            acker.ack(&position).await.unwrap();
        }
        assert_eq!(topic.cursor("c").await.unwrap(), Some(position));
    }
}

fn limited(retention: Retention) -> TopicOptions {
    TopicOptions::default().retention(retention).batch_bytes(1)
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn retention_by_count_keeps_the_newest_and_the_gap_is_counted_exactly() {
    let place = Place::new("by_count").await;
    let options = limited(Retention::unlimited().messages(100));
    let publisher = place.session().await;
    let topic = Topic::with_options(&publisher, "t", options.clone());
    let mut subscription = topic.subscribe(From::cursor("c")).await.unwrap();
    topic.publish("0").await.unwrap();
    let first = message(&mut subscription).await.position;
    subscription.ack(&first).await.unwrap();
    drop(subscription);
    let oracle = place.oracle().await;
    for n in 1..600 {
        topic.publish(n.to_string()).await.unwrap();
        let kept = oracle.count_prefix(place.key("t/log/batches/")).await;
        assert!(kept >= 100.min(n), "{kept} of {n}");
    }
    eventually(SOON, "trimming", async || {
        let kept = oracle.count_prefix(place.key("t/log/batches/")).await;
        (kept < 140).then_some(())
    })
    .await;
    // What is reported must hold for what is read: who publishes trims, and does so no more.
    publisher.close().await.unwrap();
    let kept = oracle.count_prefix(place.key("t/log/batches/")).await as usize;
    let topic = Topic::with_options(&place.session().await, "t", options);
    oracle.compact_to_head().await;
    let mut resumed = topic.subscribe(From::cursor("c")).await.unwrap();
    let missed = (600 - kept - 1) as u64;
    assert_eq!(next(&mut resumed).await, Delivery::Lagged { missed: Some(missed) });
    assert_eq!(texts(&mut resumed, kept).await, numbers(600 - kept..600));
    let mut oldest = topic.subscribe(From::Oldest).await.unwrap();
    assert_eq!(text(&mut oldest).await, (600 - kept).to_string(), "no gap: it was never asked for");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn retention_by_bytes_bounds_what_is_stored() {
    let place = Place::new("by_bytes").await;
    let options = limited(Retention::unlimited().bytes(200_000));
    let one = Topic::with_options(&place.session().await, "t", options.clone());
    let other = Topic::with_options(&place.session().await, "t", options);
    for n in 0..100_u8 {
        let topic = if n % 2 == 0 { &one } else { &other };
        topic.publish(vec![n; 10_000]).await.unwrap();
    }
    let oracle = place.oracle().await;
    let stored = async || {
        let log = oracle.range(place.key("t/log/")).await;
        log.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    };
    let stored = eventually(SOON, "trimming", async || {
        let stored = stored().await;
        (stored < 260_000).then_some(stored)
    })
    .await;
    assert!(stored > 100_000, "{stored} bytes: no more than needed was taken");
    let newest = oracle.range(place.key("t/log/batches/")).await;
    assert!(newest.iter().any(|(_, value)| value.last() == Some(&99)));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn retention_by_age_takes_what_is_old_and_leaves_what_is_new() {
    let place = Place::new("by_age").await;
    let session = place.session().await;
    let brief = limited(Retention::unlimited().age(Duration::from_secs(1)));
    let brief = Topic::with_options(&session, "t", brief);
    let begun = std::time::Instant::now();
    let first = brief.publish("old").await.unwrap();
    brief.publish("old too").await.unwrap();
    let oracle = place.oracle().await;
    let gone = async || (oracle.count_prefix(place.key("t/log/batches/")).await == 0).then_some(());
    eventually(SOON, "the lease to end", gone).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "kept as long as promised");
    oracle.compact_to_head().await;
    let position = brief.publish("new").await.unwrap();
    assert_eq!(position.ordinal(), Some(3), "positions go on");
    oracle.compact_to_head().await;
    let mut resumed = brief.subscribe(From::Position(first)).await.unwrap();
    assert_eq!(next(&mut resumed).await, Delivery::Lagged { missed: Some(1) });
    assert_eq!(text(&mut resumed).await, "new");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_topic_in_use_stays_when_its_publisher_has_gone() {
    let place = Place::new("stays").await;
    let session = place.session().await;
    Topic::new(&session, "t").publish("kept").await.unwrap();
    session.close().await.unwrap();
    let oracle = place.oracle().await;
    assert_eq!(oracle.count_prefix(place.key("t/publishers/")).await, 0, "leased keys go at once");
    let topic = place.topic().await;
    assert_eq!(text(&mut topic.subscribe(From::Oldest).await.unwrap()).await, "kept");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_topic_that_was_deleted_underneath_goes_on() {
    let place = Place::new("deleted").await;
    let topic = place.topic().await;
    let mut live = topic.subscribe(From::Now).await.unwrap();
    for n in 0..5 {
        topic.publish(n.to_string()).await.unwrap();
    }
    let old = topic.publish("5").await.unwrap();
    place.oracle().await.delete_prefix(place.key("t/")).await;
    assert_eq!(topic.publish("6").await.unwrap().ordinal(), Some(1), "counted anew");
    assert_eq!(texts(&mut live, 7).await, numbers(0..7));
    place.oracle().await.compact_to_head().await;
    topic.publish("7").await.unwrap();
    let mut resumed = topic.subscribe(From::Position(old)).await.unwrap();
    assert_eq!(next(&mut resumed).await, Delivery::Lagged { missed: None });
    assert_eq!(texts(&mut resumed, 2).await, numbers(6..8));
}
