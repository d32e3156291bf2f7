//! What a topic does when something breaks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use futures_util::future::join_all;
use sereno_pubsub::core::Error as CoreError;
use sereno_pubsub::{Delivery, Error, From, Position, Retention, Topic, TopicOptions};
use sereno_testkit::{Flaky, Member, Mode, Proxy, eventually};

/// Checks that exactly the published messages are there, each once, at the position returned for it.
async fn check(place: &Place, published: &[(String, Position)], unknown: &[String]) {
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::Oldest).await.unwrap();
    topic.publish("end").await.unwrap();
    let mut delivered = Vec::new();
    loop {
        let message = message(&mut subscription).await;
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        if text == "end" {
            break;
        }
        if !unknown.contains(&text) {
            delivered.push((text, message.position));
        }
    }
    let mut expected = published.to_vec();
    expected.sort_by_key(|(_, position)| *position);
    assert_eq!(delivered.len(), expected.len());
    assert_eq!(delivered, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn with_answers_lost_at_random_every_message_is_there_once_where_it_was_said_to_be() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("lost_answers", vec![proxy.endpoint()]);
    let options = TopicOptions::default().batch_bytes(1);
    let topic = Topic::with_options(&place.session().await, "t", options);
    let mut live = topic.subscribe(From::Now).await.unwrap();
    topic.publish("first").await.unwrap();
    proxy.set(Mode::Flaky(Flaky::new(0.04, 11).lose_request(0.01))).await;
    let publish = join_all((0..8).map(async |task| {
        let mut published = Vec::new();
        for n in 0..100 {
            let text = format!("{task}/{n}");
            published.push((text.clone(), topic.publish(text).await.unwrap()));
        }
        published
    }));
    let receive = async {
        let mut received = Vec::new();
        for _ in 0..801 {
            let message = message(&mut live).await;
            received.push((String::from_utf8(message.payload.to_vec()).unwrap(), message.position));
        }
        received
    };
    let (published, received) = tokio::join!(publish, receive);
    proxy.pass().await;
    let stats = proxy.stats();
    println!("{stats:?}");
    assert!(stats.responses_dropped > 0, "the fault must have happened: {stats:?}");
    let mut published: Vec<_> = published.into_iter().flatten().collect();
    published.sort_by_key(|(_, position)| *position);
    assert_eq!(received[1..], published[..], "the live subscriber saw the same through the same wire");
    published.insert(0, received[0].clone());
    check(&place, &published, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn answers_lost_while_retention_deletes_do_not_make_a_message_come_twice() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("lost_and_trimmed", vec![proxy.endpoint()]);
    let options = TopicOptions::default().batch_bytes(1).retention(Retention::unlimited().messages(3));
    let topic = Topic::with_options(&place.session().await, "t", options);
    // It sees every publish, kept or not: nothing is compacted.
    let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
    let mut watching = direct.topic().await.subscribe(From::Now).await.unwrap();
    proxy.flaky(0.03, 5).await;
    let mut published = Vec::new();
    // How many publishes share one answer depends on the machine: it ends when enough answers were lost.
    while published.len() < 300 || proxy.stats().responses_dropped <= 5 {
        let n = published.len();
        assert!(n < 20_000, "{:?}", proxy.stats());
        published.push((n.to_string(), topic.publish(n.to_string()).await.unwrap()));
    }
    proxy.pass().await;
    for expected in published {
        let message = message(&mut watching).await;
        assert_eq!((String::from_utf8(message.payload.to_vec()).unwrap(), message.position), expected);
    }
    nothing_before_a_marker(&mut watching, &topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_publish_that_landed_and_was_deleted_before_its_answer_came_is_not_published_again() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("deleted_early", vec![proxy.endpoint()]);
    let topic = place.topic().await;
    let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
    let mut watching = direct.topic().await.subscribe(From::Now).await.unwrap();
    let oracle = member.oracle().await;
    for n in 0..6 {
        topic.publish("ordinary").await.unwrap();
        assert_eq!(text(&mut watching).await, "ordinary");
        proxy.drop_responses().await;
        let publishing = tokio::spawn({
            let topic = topic.clone();
            async move { topic.publish(format!("deleted {n}")).await }
        });
        let landed = message(&mut watching).await;
        assert_eq!(landed.payload, format!("deleted {n}"));
        oracle.delete_prefix(place.key("t/log/batches/")).await;
        proxy.pass().await;
        assert_eq!(publishing.await.unwrap().unwrap(), landed.position);
    }
    nothing_before_a_marker(&mut watching, &topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_lost_in_the_middle_loses_and_repeats_no_message() {
    let place = Place::new("session_lost").await;
    let session = place.session_ttl(Duration::from_secs(10)).await;
    let topic = Topic::new(&session, "t");
    let oracle = place.oracle().await;
    let mut published = Vec::new();
    for n in 0..300 {
        if n % 100 == 50 {
            // Its lease ends underneath it, as an operator or a long pause would have it.
            let epoch = session.epoch();
            let key = epoch.key().as_bytes().to_vec();
            let answer = oracle.client().get(key, None).await.unwrap();
            assert!(oracle.revoke(answer.kvs()[0].lease()).await);
        }
        published.push((n.to_string(), topic.publish(n.to_string()).await.unwrap()));
    }
    assert!(session.epoch().number() >= 4, "{:?}", session.epoch());
    check(&place, &published, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_lost_while_answers_are_lost_still_publishes_once() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("lost_twice", vec![proxy.endpoint()]);
    let session = place.session_ttl(Duration::from_secs(10)).await;
    let topic = Topic::new(&session, "t");
    let oracle = member.oracle().await;
    let mut published = Vec::new();
    let mut unknown = Vec::new();
    for n in 0..12 {
        published.push((format!("before {n}"), topic.publish(format!("before {n}")).await.unwrap()));
        let lease = {
            let key = session.epoch().key().as_bytes().to_vec();
            oracle.client().get(key, None).await.unwrap().kvs()[0].lease()
        };
        // The request arrives, its answer does not; then the session ends; then the wire heals.
        let before = oracle.count_prefix(place.key("t/log/batches/")).await;
        proxy.drop_responses().await;
        let text = format!("within {n}");
        let publishing = tokio::spawn({
            let (topic, text) = (topic.clone(), text.clone());
            async move { topic.publish(text).await }
        });
        if n % 2 == 0 {
            let landed =
                async || (oracle.count_prefix(place.key("t/log/batches/")).await > before).then_some(());
            eventually(SOON, "the publish to land", landed).await;
        }
        oracle.revoke(lease).await;
        proxy.pass().await;
        match publishing.await.unwrap() {
            Ok(position) => published.push((text, position)),
            Err(error) if error.is_outcome_unknown() => unknown.push(text),
            Err(error) => panic!("{error:?}"),
        }
    }
    println!("{} of unknown outcome", unknown.len());
    assert!(unknown.len() <= 2, "an outcome is nearly always found out: {unknown:?}");
    check(&place, &published, &unknown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn where_retention_has_taken_what_would_have_told_the_outcome_is_said_to_be_unknown() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("told_unknown", vec![proxy.endpoint()]);
    let session = place.session_ttl(Duration::from_secs(10)).await;
    let topic = Topic::new(&session, "t");
    let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
    let mut watching = direct.topic().await.subscribe(From::Now).await.unwrap();
    topic.publish("0").await.unwrap();
    let oracle = member.oracle().await;
    let key = session.epoch().key().as_bytes().to_vec();
    let lease = oracle.client().get(key, None).await.unwrap().kvs()[0].lease();
    proxy.drop_responses().await;
    let publishing = tokio::spawn({
        let topic = topic.clone();
        async move { topic.publish("1").await }
    });
    assert_eq!(texts(&mut watching, 2).await, numbers(0..2));
    // Head, batch and everything older are gone before the publisher can look.
    oracle.delete_prefix(place.key("t/log/batches/")).await;
    oracle.revoke(lease).await;
    proxy.pass().await;
    let error = publishing.await.unwrap().unwrap_err();
    assert!(error.is_outcome_unknown() && !error.is_retryable(), "{error:?}");
    topic.publish("2").await.unwrap();
    assert_eq!(text(&mut watching).await, "2", "and not 1 again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn etcd_killed_and_started_again_in_the_middle_loses_and_repeats_nothing() {
    let member = Member::single().await;
    let place = Place::at("killed", vec![member.endpoint()]);
    let topic = place.topic().await;
    let mut live = topic.subscribe(From::Now).await.unwrap();
    let publish = async {
        let mut published = Vec::new();
        let mut unknown = Vec::new();
        for n in 0..600 {
            match topic.publish(n.to_string()).await {
                Ok(position) => published.push((n.to_string(), position)),
                Err(error) if error.is_outcome_unknown() => unknown.push(n.to_string()),
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        }
        topic.publish("end").await.unwrap();
        (published, unknown)
    };
    let receive = async {
        let mut received = Vec::new();
        loop {
            let message = message(&mut live).await;
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            if text == "end" {
                return received;
            }
            received.push((text, message.position));
            if [100, 300].contains(&received.len()) {
                member.kill().await;
                member.start().await;
            }
        }
    };
    let ((published, unknown), mut received) = tokio::join!(publish, receive);
    println!("{} published, {} unknown", published.len(), unknown.len());
    assert!(unknown.len() <= 2, "one for each kill at most");
    assert!(published.len() >= 590);
    received.retain(|(text, _)| !unknown.contains(text));
    assert_eq!(received, published);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_subscription_survives_resets_and_compaction_without_gap_or_repetition() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("resets", vec![proxy.endpoint()]);
    let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
    let topic = direct.topic().await;
    let mut subscription = place.topic().await.subscribe(From::Now).await.unwrap();
    let oracle = member.oracle().await;
    for round in 0..8 {
        if round % 2 == 0 {
            proxy.refuse().await;
            eventually(SOON, "the wire to be cut", async || (proxy.stats().open == 0).then_some(())).await;
        } else {
            proxy.reset();
        }
        for n in 0..25 {
            topic.publish((round * 25 + n).to_string()).await.unwrap();
        }
        if round % 4 == 0 {
            oracle.compact_to_head().await;
        }
        proxy.pass().await;
        assert_eq!(texts(&mut subscription, 25).await, numbers(round * 25..round * 25 + 25));
    }
    assert!(proxy.stats().resets >= 4, "{:?}", proxy.stats());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_gap_made_by_retention_and_compaction_is_counted_exactly() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("gap", vec![proxy.endpoint()]);
    let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
    let topic = direct.topic().await;
    let mut subscription = place.topic().await.subscribe(From::Now).await.unwrap();
    topic.publish("0").await.unwrap();
    assert_eq!(text(&mut subscription).await, "0");
    proxy.refuse().await;
    eventually(SOON, "the wire to be cut", async || (proxy.stats().open == 0).then_some(())).await;
    for n in 1..30 {
        topic.publish(n.to_string()).await.unwrap();
    }
    // The oldest 20 go, as retention would have it, and so does the history.
    let oracle = member.oracle().await;
    for (key, _) in oracle.range(place.key("t/log/batches/")).await.into_iter().take(20) {
        assert!(oracle.delete(key).await);
    }
    oracle.compact_to_head().await;
    proxy.pass().await;
    assert_eq!(next(&mut subscription).await, Delivery::Lagged { missed: Some(19) });
    assert_eq!(texts(&mut subscription, 10).await, numbers(20..30));
    nothing_before_a_marker(&mut subscription, &topic).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn acknowledgements_through_a_lossy_wire_move_the_cursor_to_the_last() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("acks", vec![proxy.endpoint()]);
    let topic = place.topic().await;
    let mut subscription = topic.subscribe(From::cursor("c")).await.unwrap();
    proxy.flaky(0.06, 3).await;
    let mut last = None;
    let mut rounds = 0;
    while rounds < 150 || proxy.stats().responses_dropped <= 5 {
        assert!(rounds < 10_000, "{:?}", proxy.stats());
        topic.publish(rounds.to_string()).await.unwrap();
        let position = message(&mut subscription).await.position;
        subscription.ack(&position).await.unwrap();
        last = Some(position);
        rounds += 1;
    }
    proxy.pass().await;
    assert_eq!(topic.cursor("c").await.unwrap(), last);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn against_a_black_hole_every_call_ends_in_time() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let place = Place::at("black_hole", vec![proxy.endpoint()]);
    let client = place.client().await;
    let session = sereno_pubsub::core::Session::open(&client).await.unwrap();
    let topic = Topic::new(&session, "t");
    topic.publish("0").await.unwrap();
    proxy.blackhole().await;
    let limit = client.deadline() + Duration::from_secs(3);
    let started = Instant::now();
    let (first, (second, took), subscribing) = tokio::join!(
        topic.publish("1"),
        async {
            // Queued behind the first one, and later.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let started = Instant::now();
            (topic.publish("2").await, started.elapsed())
        },
        topic.subscribe(From::Now),
    );
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    assert!(took < limit, "{took:?}");
    assert!(first.as_ref().is_err_and(Error::is_outcome_unknown), "{first:?}");
    assert!(matches!(second, Err(Error::Core(CoreError::Unavailable { .. }))), "never sent: {second:?}");
    assert!(subscribing.is_err());
    let started = Instant::now();
    let _ = session.close().await;
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_cursor_taken_while_etcd_was_out_of_reach_is_told_when_it_is_back() {
    for compacted in [false, true] {
        let member = Member::single().await;
        let proxy = Proxy::to(member.endpoint()).await;
        let place = Place::at("taken_away", vec![proxy.endpoint()]);
        let direct = Place { namespace: place.namespace.clone(), endpoints: vec![member.endpoint()] };
        let topic = Topic::new(&place.session_ttl(Duration::from_secs(60)).await, "t");
        let mut stale = topic.subscribe(From::cursor("c")).await.unwrap();
        proxy.refuse().await;
        eventually(SOON, "the wire to be cut", async || (proxy.stats().open == 0).then_some(())).await;
        let mut current = direct.topic().await.subscribe(From::cursor("c")).await.unwrap();
        direct.topic().await.publish("1").await.unwrap();
        if compacted {
            member.oracle().await.compact_to_head().await;
        }
        proxy.pass().await;
        // What was published meanwhile may come before: nobody could tell it of the other one then.
        let end = loop {
            match tokio::time::timeout(SOON, stale.next()).await.unwrap().unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(end, Error::CursorTaken), "{end:?}");
        assert_eq!(text(&mut current).await, "1");
    }
}
