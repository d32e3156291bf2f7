//! Many publishers, many subscribers, slow ones among them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::*;
use futures_util::future::join_all;
use sereno_pubsub::{Delivery, Error, From, Receipt, Topic, TopicOptions};
use sereno_testkit::Member;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn five_publishers_and_a_slow_subscriber_lose_and_repeat_nothing() {
    let place = Place::new("signal_with_load").await;
    let mut subscription = place.topic().await.subscribe(From::Now).await.unwrap();
    let publishers = (0..5).map(async |publisher| {
        let topic = place.topic().await;
        for n in 0..500 {
            topic.publish(format!("{publisher}/{n}")).await.unwrap();
        }
    });
    let receive = async {
        let mut received = texts(&mut subscription, 10).await;
        // The fault under test: a subscriber that does not come for a while.
        tokio::time::sleep(Duration::from_secs(5)).await;
        received.extend(texts(&mut subscription, 2490).await);
        received
    };
    let (received, _) = tokio::join!(receive, join_all(publishers));
    let mut times = HashMap::new();
    for text in &received {
        *times.entry(text.clone()).or_insert(0) += 1;
    }
    let expected = (0..5).flat_map(|publisher| (0..500).map(move |n| format!("{publisher}/{n}")));
    for text in expected {
        assert_eq!(times.remove(&text), Some(1), "{text}");
    }
    assert!(times.is_empty(), "{times:?}");
    nothing_before_a_marker(&mut subscription, &place.topic().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn all_subscribers_see_one_order_and_it_is_the_order_of_commits() {
    let place = Place::new("order").await;
    let mut subscriptions = Vec::new();
    for _ in 0..4 {
        subscriptions.push(place.topic().await.subscribe(From::Now).await.unwrap());
    }
    let publishers = (0..4).map(async |publisher| {
        let topic = place.topic().await;
        let tasks = (0..50).map(async |n| {
            let name = format!("{publisher}/{n}");
            (topic.publish(name.clone()).await.unwrap(), name)
        });
        join_all(tasks).await
    });
    let mut committed: Vec<_> = join_all(publishers).await.into_iter().flatten().collect();
    committed.sort_by_key(|(position, _)| *position);
    for subscription in &mut subscriptions {
        for (position, name) in &committed {
            let message = message(subscription).await;
            assert_eq!((message.position, message.payload.as_ref()), (*position, name.as_bytes()));
        }
    }
    let mut oldest = place.topic().await.subscribe(From::Oldest).await.unwrap();
    let listed = texts(&mut oldest, committed.len()).await;
    assert!(listed.iter().eq(committed.iter().map(|(_, name)| name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn receipts_of_pipelined_messages_tell_where_they_are() {
    let place = Place::new("receipts").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    let mut publisher = topic.publisher();
    let mut receipts: Vec<Receipt> = Vec::new();
    for n in 0..20_000_u32 {
        receipts.push(publisher.send(n.to_le_bytes().to_vec()).await.unwrap());
    }
    publisher.flush().await.unwrap();
    let mut batches = 0;
    for (n, receipt) in receipts.into_iter().enumerate() {
        let message = message(&mut subscription).await;
        batches += u32::from(message.position.index() == 0);
        assert_eq!(message.payload.as_ref(), (n as u32).to_le_bytes());
        assert_eq!(receipt.await.unwrap(), message.position);
    }
    assert!(batches < 2000, "{batches} transactions for 20,000 messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn handles_made_and_dropped_all_the_time_publish_each_message_once() {
    let place = Place::new("handles").await;
    let session = place.session().await;
    let mut subscription = Topic::new(&session, "t").subscribe(From::Now).await.unwrap();
    let tasks = (0..8).map(async |task| {
        for n in 0..25 {
            Topic::new(&session, "t").publish(format!("{task}/{n}")).await.unwrap();
        }
    });
    join_all(tasks).await;
    let mut received = texts(&mut subscription, 200).await;
    received.sort();
    received.dedup();
    assert_eq!(received.len(), 200);
    nothing_before_a_marker(&mut subscription, &Topic::new(&session, "t")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_dropped_publish_future_leaves_the_message_whole_or_out() {
    let place = Place::new("cancelled").await;
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Now).await.unwrap();
    for n in 0..200_u64 {
        let limit = Duration::from_micros(n * 5);
        let _ = tokio::time::timeout(limit, topic.publish(n.to_string())).await;
    }
    topic.publish("end").await.unwrap();
    let mut before: Option<u64> = None;
    loop {
        let text = text(&mut subscription).await;
        if text == "end" {
            break;
        }
        let number = text.parse().unwrap();
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
        before = Some(number);
    }
    assert!(before.is_some(), "some were long enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stalled_subscriber_holds_nobody_back_and_misses_nothing() {
    let place = Place::new("stalled").await;
    let topic = Topic::with_options(&place.session().await, "t", TopicOptions::default().batch_bytes(1));
    let mut stalled = place.topic().await.subscribe(From::Now).await.unwrap();
    // On the same client, so on the same stream.
    let mut quick = topic.subscribe(From::Now).await.unwrap();
    let mut stalled_too = topic.subscribe(From::Now).await.unwrap();
    let publish = async {
        let mut publisher = topic.publisher();
        for n in 0..3000 {
            publisher.send(n.to_string()).await.unwrap();
        }
        publisher.flush().await.unwrap();
    };
    let (received, ()) = tokio::join!(texts(&mut quick, 3000), publish);
    assert_eq!(received, numbers(0..3000));
    // Its backlog is in etcd, and then that is compacted: it is listed.
    place.oracle().await.compact_to_head().await;
    assert_eq!(texts(&mut stalled, 3000).await, numbers(0..3000));
    assert_eq!(texts(&mut stalled_too, 3000).await, numbers(0..3000));
    nothing_before_a_marker(&mut stalled, &topic).await;
    assert_eq!(text(&mut stalled_too).await, "marker");
    assert_eq!(text(&mut quick).await, "marker");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_publisher_tells_an_error_before_it_publishes_anything_more() {
    let member = Member::single().await;
    let place = Place::at("sticky", vec![member.endpoint()]);
    let topic = place.topic().await;
    let mut publisher = topic.publisher();
    publisher.send("0").await.unwrap();
    publisher.flush().await.unwrap();
    member.stop().await;
    let receipt = publisher.send("1").await.unwrap();
    let failed = receipt.position().await.unwrap_err();
    assert!(failed.is_retryable() || failed.is_outcome_unknown(), "{failed:?}");
    assert!(publisher.send("2").await.is_err(), "a hole would follow");
    member.start().await;
    assert!(publisher.send("2").await.is_err(), "still");
    assert!(publisher.flush().await.is_err());
    publisher.send("3").await.unwrap();
    publisher.flush().await.unwrap();
    let mut subscription = topic.subscribe(From::Oldest).await.unwrap();
    let mut received = texts(&mut subscription, 2).await;
    if failed.is_outcome_unknown() && received[1] == "1" {
        received.remove(1);
        received.extend(texts(&mut subscription, 1).await);
    }
    assert_eq!(received, ["0", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn how_fast_it_is() {
    let member = Member::single().await;
    let place = Place::at("speed", vec![member.endpoint()]);
    let topic = place.topic().await;
    let started = Instant::now();
    for _ in 0..1000 {
        topic.publish([7; 64].to_vec()).await.unwrap();
    }
    println!("one at a time: {:.0} publishes/s", 1000.0 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    join_all((0..64).map(async |_| {
        for _ in 0..100 {
            topic.publish([7; 64].to_vec()).await.unwrap();
        }
    }))
    .await;
    println!("64 tasks: {:.0} publishes/s", 6400.0 / started.elapsed().as_secs_f64());
    const COUNT: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    for fan in [1, 10] {
        let count = COUNT / fan;
        let mut subscriptions = Vec::new();
        for _ in 0..fan {
            subscriptions.push(topic.subscribe(From::Now).await.unwrap());
        }
        let started = Instant::now();
        let publisher = tokio::spawn({
            let topic = topic.clone();
            async move {
                let payload = bytes::Bytes::from_static(&[7; 64]);
                let mut publisher = topic.publisher();
                for _ in 0..count {
                    publisher.send(payload.clone()).await?;
                }
                publisher.flush().await?;
                Ok::<_, Error>(())
            }
        });
        let receivers = subscriptions.into_iter().map(|mut subscription| {
            tokio::spawn(async move {
                for _ in 0..count {
                    let delivery = subscription.next().await.unwrap().unwrap();
                    assert!(matches!(delivery, Delivery::Message(m) if m.payload.len() == 64));
                }
            })
        });
        for receiver in join_all(receivers).await {
            receiver.unwrap();
        }
        publisher.await.unwrap().unwrap();
        let rate = count as f64 / started.elapsed().as_secs_f64();
        println!("packed, to {fan}: {rate:.0} messages/s published, {:.0}/s delivered", rate * fan as f64);
    }
}
