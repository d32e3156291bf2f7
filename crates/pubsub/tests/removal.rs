//! Removing topics.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Place, message, next, nothing_before_a_marker, text};
use sereno_pubsub::{Delivery, Error, From, NewCursor, Retention, SubscribeOptions, Topic, TopicOptions};
use tokio::time::timeout;

fn for_ever() -> TopicOptions {
    TopicOptions::default().retention(Retention::unlimited()).batch_bytes(1)
}

fn oldest() -> SubscribeOptions {
    SubscribeOptions::default().new_cursor(NewCursor::Oldest)
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_removed_topic_leaves_nothing_and_begins_anew() {
    let place = Place::new("removed").await;
    let session = place.session().await;
    let topic = Topic::with_options(&session, "t", for_ever());
    assert!(!topic.remove().await.unwrap(), "there was none");
    // More than one transaction deletes.
    for n in 0..250 {
        topic.publish(n.to_string()).await.unwrap();
    }
    let mut durable = topic.subscribe_with(From::cursor("c"), oldest()).await.unwrap();
    let first = message(&mut durable).await;
    durable.ack(&first.position).await.unwrap();
    assert!(topic.remove().await.unwrap(), "its own publisher and cursor do not hinder it");
    assert!(!topic.remove().await.unwrap());
    assert_eq!(topic.cursor("c").await.unwrap(), None);
    let position = topic.publish("new").await.unwrap();
    assert_eq!(position.ordinal(), Some(1), "counted anew");
    let mut all = topic.subscribe(From::Oldest).await.unwrap();
    assert_eq!(text(&mut all).await, "new");
    assert!(topic.remove().await.unwrap());
    session.close().await.unwrap();
    assert_eq!(place.oracle().await.range(place.key("t/")).await, []);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_topic_that_others_publish_to_or_read_by_cursor_is_removed_by_force_only() {
    let place = Place::new("in_use").await;
    let (publishing, reading) = (place.session().await, place.session().await);
    let other = Topic::with_options(&publishing, "t", for_ever());
    other.publish("0").await.unwrap();
    let mut durable = Topic::new(&reading, "t").subscribe_with(From::cursor("c"), oldest()).await.unwrap();
    let topic = place.topic().await;
    let mut plain = topic.subscribe(From::Oldest).await.unwrap();
    assert_eq!(text(&mut plain).await, "0");
    let in_use = |error: Error, publishers: usize, cursors: &[&str]| {
        let Error::InUse { publishers: told, cursors: named } = error else { panic!("{error:?}") };
        assert_eq!(
            (told, named),
            (publishers, cursors.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        );
    };
    in_use(topic.remove().await.unwrap_err(), 1, &["c"]);
    publishing.close().await.unwrap();
    in_use(topic.remove().await.unwrap_err(), 0, &["c"]);
    assert_eq!(text(&mut durable).await, "0", "nothing was removed");
    assert!(topic.remove_forced().await.unwrap());
    let ended = timeout(common::SOON, async {
        loop {
            match durable.next().await {
                Some(Err(error)) => return error,
                Some(Ok(Delivery::Lagged { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(matches!(ended.await.unwrap(), Error::CursorGone));
    topic.publish("1").await.unwrap();
    assert_eq!(text(&mut plain).await, "1", "who reads without a cursor goes on");
    nothing_before_a_marker(&mut plain, &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_cursor_of_a_session_that_ended_holds_no_topic() {
    let place = Place::new("ended").await;
    let reading = place.session_ttl(Duration::from_secs(5)).await;
    let topic = Topic::with_options(&place.session().await, "t", for_ever());
    topic.publish("0").await.unwrap();
    let durable = Topic::new(&reading, "t").subscribe(From::cursor("c")).await.unwrap();
    assert!(matches!(topic.remove().await.unwrap_err(), Error::InUse { publishers: 0, .. }));
    drop(durable);
    reading.close().await.unwrap();
    assert!(topic.remove().await.unwrap());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_is_published_during_a_forced_removal_is_of_the_old_topic_or_of_the_new_one() {
    let place = Place::new("during").await;
    let other = Topic::with_options(&place.session().await, "t", for_ever());
    let topic = place.topic().await;
    for _ in 0..10 {
        let publishing = tokio::spawn({
            let other = other.clone();
            async move {
                for n in 0..50 {
                    other.publish(n.to_string()).await.unwrap();
                }
            }
        });
        while !publishing.is_finished() {
            topic.remove_forced().await.unwrap();
        }
        publishing.await.unwrap();
        let mut left = topic.subscribe(From::Oldest).await.unwrap();
        other.publish("marker").await.unwrap();
        let mut read = Vec::new();
        loop {
            match next(&mut left).await {
                Delivery::Message(message) if message.payload == "marker" => break,
                Delivery::Message(message) => read.push(message.payload),
                other => panic!("{other:?}"),
            }
        }
        // What is left is the end of what was published, without a hole.
        let expected: Vec<String> = (50 - read.len()..50).map(|n| n.to_string()).collect();
        assert_eq!(read, expected);
        topic.remove_forced().await.unwrap();
    }
}
