//! What a topic does when nothing fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::*;
use futures_util::StreamExt as _;
use sereno_pubsub::core::{Error as CoreError, Overflow};
use sereno_pubsub::{
    Delivery, Draft, Error, From, MAX_HEADERS, MAX_PAYLOAD, Position, Retention, SubscribeOptions, Topic,
    TopicOptions,
};
use sereno_testkit::{Member, eventually};
use tokio::time::timeout;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn fifteen_hundred_messages_arrive_in_order() {
    let place = Place::new("signal").await;
    let (publisher, subscriber) = (place.topic().await, place.topic().await);
    let mut subscription = subscriber.subscribe(From::Now).await.unwrap();
    let publish = async {
        for n in 0..1500 {
            publisher.publish(n.to_string()).await.unwrap();
        }
    };
    let (received, ()) = tokio::join!(texts(&mut subscription, 1500), publish);
    assert_eq!(received, numbers(0..1500));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_message_published_right_after_subscribing_is_always_seen() {
    let place = Place::new("ready").await;
    let (publisher, subscriber) = (place.topic().await, place.topic().await);
    for n in 0..100 {
        let mut subscription = subscriber.subscribe(From::Now).await.unwrap();
        publisher.publish(n.to_string()).await.unwrap();
        assert_eq!(text(&mut subscription).await, n.to_string());
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_position_returned_is_the_position_delivered() {
    let place = Place::new("positions").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let mut before: Option<Position> = None;
    for n in 1..=20_u64 {
        let position = topic.publish("x").await.unwrap();
        let message = message(&mut subscription).await;
        assert_eq!(message.position, position);
        assert_eq!(position.ordinal(), Some(n), "publishes are counted without gaps");
        assert_eq!(message.position.to_string(), position.to_string());
        assert!(before.is_none_or(|before| before < position));
        before = Some(position);
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_bytes_arrive_as_they_were() {
    let place = Place::new("binary").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let payloads: [&[u8]; 4] = [&[0xff, 0x00, 0xfe], b"", &[0; 300], "🦉".as_bytes()];
    for payload in payloads {
        topic.publish(payload.to_vec()).await.unwrap();
        assert_eq!(message(&mut subscription).await.payload, payload);
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn headers_publisher_and_time_come_with_the_message() {
    let place = Place::new("headers").await;
    let (one, other) = (place.topic().await, place.topic().await);
    let mut subscription = one.subscribe(From::Now).await.unwrap();
    let draft = Draft::new("x").header("kind", "a").header("näme", "wért").header("kind", "b").header("", "");
    let before = std::time::SystemTime::now() - Duration::from_secs(1);
    one.publish(draft).await.unwrap();
    other.publish("y").await.unwrap();
    let first = message(&mut subscription).await;
    let pairs: Vec<_> = first.headers.iter().collect();
    assert_eq!(pairs, [("kind", "a"), ("näme", "wért"), ("kind", "b"), ("", "")]);
    assert_eq!((first.headers.get("kind"), first.headers.get("none")), (Some("a"), None));
    assert!(first.published_at() >= before);
    assert!(first.published_at() <= std::time::SystemTime::now() + Duration::from_secs(1));
    let second = message(&mut subscription).await;
    assert!(second.headers.is_empty());
    assert_ne!(first.publisher(), second.publisher());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn values_travel_as_json() {
    let place = Place::new("json").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    topic.publish_json(&vec![("a", 1), ("b", 2)]).await.unwrap();
    topic.publish("{").await.unwrap();
    let value: Vec<(String, i32)> = message(&mut subscription).await.json().unwrap();
    assert_eq!(value, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert!(matches!(message(&mut subscription).await.json::<String>(), Err(Error::Json(_))));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_mebibyte_passes_and_one_byte_more_is_refused() {
    let place = Place::new("large").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let payload: Vec<u8> = (0..MAX_PAYLOAD).map(|n| (n % 251) as u8).collect();
    let draft = Draft::new(payload.clone()).header("h", "v".repeat(MAX_HEADERS - 6));
    topic.publish(draft).await.unwrap();
    assert_eq!(message(&mut subscription).await.payload, payload);
    let refused = topic.publish(vec![0; MAX_PAYLOAD + 1]).await;
    assert!(matches!(refused, Err(Error::PayloadTooLarge { .. })), "{refused:?}");
    let refused = topic.publish(Draft::new("").header("h", "v".repeat(MAX_HEADERS))).await;
    assert!(matches!(refused, Err(Error::HeadersTooLarge { .. })), "{refused:?}");
    nothing_before_a_marker(&mut subscription, &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn twenty_mebibytes_of_backlog_are_delivered() {
    let place = Place::new("backlog").await;
    let topic = place.topic().await;
    let mut live = topic.subscribe(From::Now).await.unwrap();
    for n in 0..20_u8 {
        topic.publish(vec![n; MAX_PAYLOAD]).await.unwrap();
    }
    let mut listed = topic.subscribe(From::Oldest).await.unwrap();
    for subscription in [&mut live, &mut listed] {
        for n in 0..20_u8 {
            let message = message(subscription).await;
            assert_eq!((message.payload.len(), message.payload[77]), (MAX_PAYLOAD, n));
        }
    }
    nothing_before_a_marker(&mut live, &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn fifteen_hundred_unrelated_writes_do_not_end_a_subscription() {
    let place = Place::new("unrelated").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let oracle = place.oracle().await;
    for n in 0..1500 {
        oracle.put(format!("{}/elsewhere/{}", place.namespace, n % 10), "x").await;
    }
    nothing_before_a_marker(&mut subscription, &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn topics_do_not_mix_whatever_their_names() {
    let place = Place::new("names").await;
    let session = place.session().await;
    for (one, other) in [("t", "t2"), ("a/b", "a"), ("a", "a/log"), ("%", "%25"), (" ", "\0")] {
        let (one, other) = (Topic::new(&session, one), Topic::new(&session, other));
        let mut subscription = one.subscribe(From::Now).await.unwrap();
        other.publish("not for us").await.unwrap();
        nothing_before_a_marker(&mut subscription, &one).await;
    }
    for bad in [String::new(), "x".repeat(256)] {
        let topic = Topic::new(&session, bad);
        assert!(matches!(topic.publish("x").await, Err(Error::Core(CoreError::InvalidKey(_)))));
        assert!(matches!(topic.subscribe(From::Now).await, Err(Error::Core(CoreError::InvalidKey(_)))));
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn unsubscribing_is_immediate_and_leaves_nothing_on_the_server() {
    let member = Member::single().await;
    let place = Place::at("unsubscribe", vec![member.endpoint()]);
    let topic = place.topic().await;
    let watchers = async || member.metrics().await.get("etcd_debugging_mvcc_watcher_total").unwrap_or(0.0);
    // Far more than the session's own.
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(topic.subscribe(From::Now).await.unwrap());
    }
    eventually(SOON, "the watches", async || (watchers().await >= 20.0).then_some(())).await;
    let one = kept.pop();
    drop(kept);
    eventually(SOON, "their end", async || (watchers().await <= 5.0).then_some(())).await;
    nothing_before_a_marker(&mut one.unwrap(), &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn several_subscriptions_of_one_handle_are_independent() {
    let place = Place::new("several").await;
    let topic = place.topic().await;
    let mut first = topic.subscribe(From::Now).await.unwrap();
    topic.publish("0").await.unwrap();
    let mut second = topic.subscribe(From::Now).await.unwrap();
    topic.publish("1").await.unwrap();
    assert_eq!(texts(&mut first, 2).await, ["0", "1"]);
    drop(first);
    assert_eq!(text(&mut second).await, "1");
    topic.publish("2").await.unwrap();
    assert_eq!(text(&mut second).await, "2");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_subscription_is_a_stream() {
    let place = Place::new("stream").await;
    let topic = place.topic().await;
    let subscription = topic.subscribe(From::Oldest).await.unwrap();
    topic.publish("a").await.unwrap();
    topic.publish("b").await.unwrap();
    let received: Vec<_> = timeout(SOON, subscription.take(2).collect()).await.unwrap();
    assert!(received.iter().all(|item| matches!(item, Ok(Delivery::Message(_)))), "{received:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn publishing_through_a_closed_session_is_a_typed_error_and_subscriptions_go_on() {
    let place = Place::new("closed").await;
    let session = place.session().await;
    let topic = Topic::new(&session, "t");
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let mut publisher = topic.publisher();
    for n in 0..100 {
        publisher.send(n.to_string()).await.unwrap();
    }
    // What was queued is published before the session ends.
    session.close().await.unwrap();
    assert_eq!(texts(&mut subscription, 100).await, numbers(0..100));
    assert!(matches!(topic.publish("x").await, Err(Error::Closed)));
    assert!(matches!(publisher.send("x").await, Err(Error::Closed)));
    publisher.flush().await.unwrap();
    assert!(matches!(Topic::new(&session, "u").publish("x").await, Err(Error::Closed)));
    nothing_before_a_marker(&mut subscription, &place.topic().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropped_handles_leave_no_key_but_the_log() {
    let place = Place::new("tidy").await;
    let session = place.session().await;
    let topic = Topic::with_options(
        &session,
        "t",
        TopicOptions::default().retention(Retention::default().bytes(None)),
    );
    topic.publish("x").await.unwrap();
    let oracle = place.oracle().await;
    assert_eq!(oracle.count_prefix(place.key("t/publishers/")).await, 1);
    drop(topic);
    let gone = async || (oracle.count_prefix(place.key("t/publishers/")).await == 0).then_some(());
    eventually(SOON, "the head to go", gone).await;
    assert_eq!(oracle.count_prefix(place.key("t/log/")).await, 2, "the batch and the tail");
    // A handle made anew works as if nothing had been.
    let topic = Topic::new(&session, "t");
    assert_eq!(topic.publish("y").await.unwrap().ordinal(), Some(2));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn malformed_batches_are_skipped_and_reported() {
    let place = Place::new("malformed").await;
    let topic = place.topic().await;
    let mut live = topic.subscribe(From::Now).await.unwrap();
    topic.publish("0").await.unwrap();
    let oracle = place.oracle().await;
    let first = oracle.put(place.key("t/log/batches/0000000000000001.alien.1.1.3"), "abc").await;
    let second = oracle.put(place.key("t/log/batches/nonsense"), [0xff]).await;
    topic.publish("1").await.unwrap();
    let mut listed = topic.subscribe(From::Oldest).await.unwrap();
    for subscription in [&mut live, &mut listed] {
        assert_eq!(text(subscription).await, "0");
        for at in [first, second] {
            let delivery = next(subscription).await;
            assert!(
                matches!(delivery, Delivery::Malformed { revision, .. } if revision == at),
                "{delivery:?}"
            );
        }
        assert_eq!(text(subscription).await, "1");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_subscriber_that_wants_to_end_rather_than_lag_is_ended() {
    let place = Place::new("overflow_end").await;
    let options = TopicOptions::default().batch_bytes(1);
    let topic = Topic::with_options(&place.session().await, "t", options);
    let end = SubscribeOptions::default().overflow(Overflow::End);
    let drop_oldest = SubscribeOptions::default().overflow(Overflow::DropOldest);
    let mut ending = topic.subscribe_with(From::Now, end).await.unwrap();
    let mut dropping = topic.subscribe_with(From::Now, drop_oldest).await.unwrap();
    let mut pausing = topic.subscribe(From::Now).await.unwrap();
    for n in 0..20_u8 {
        topic.publish(vec![n; MAX_PAYLOAD]).await.unwrap();
    }
    // The one with room for everything tells when everything has come.
    for n in 0..20_u8 {
        assert_eq!(message(&mut pausing).await.payload[0], n);
    }
    let mut received = 0;
    let end = loop {
        match timeout(SOON, ending.next()).await.unwrap().unwrap() {
            Ok(_) => received += 1,
            Err(error) => break error,
        }
        assert!(received < 20, "it could not keep up");
    };
    assert!(matches!(end, Error::TooSlow), "{end:?}");
    assert!(ending.next().await.is_none());
    let last = topic.publish("last").await.unwrap();
    let (mut received, mut lost) = (0, 0);
    loop {
        match next(&mut dropping).await {
            Delivery::Message(message) if message.position == last => break,
            Delivery::Message(_) => received += 1,
            Delivery::Lagged { missed } => lost += missed.unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received + lost, 20, "{received} received, {lost} reported lost");
    assert!(lost > 0);
}
