//! Topics under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sereno_pubsub::core::{Session, chance};
use sereno_pubsub::{Delivery, Error, From, Position, Retention, Subscription, Topic, TopicOptions};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

const NAME: &str = "work";
/// Published by each task.
const EACH: usize = 8;

/// What became of each message, by its payload.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<String, Fate>>>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Acknowledged with this position.
    At(Position),
    /// Not published.
    Refused,
    Unknown,
}

impl Book {
    fn note(&self, payload: String, result: Result<Position, Error>) {
        let fate = match result {
            Ok(position) => Fate::At(position),
            Err(error) if error.is_outcome_unknown() => Fate::Unknown,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                Fate::Refused
            }
        };
        assert_eq!(self.0.lock().unwrap().insert(payload, fate), None);
    }
}

/// What one subscription saw.
#[derive(Debug, Clone, Default)]
struct Seen {
    messages: Vec<(String, Position)>,
    missed: u64,
}

fn topic(session: &Session, stage: &Stage) -> Topic {
    // Every second run of all kinds of faults keeps messages on leases that faults may end.
    let retention = match stage.seed() % 10 >= 5 {
        true => Retention::unlimited().age(Duration::from_secs(3600)),
        false => Retention::unlimited(),
    };
    let options = TopicOptions::default().retention(retention).batch_bytes(1);
    Topic::with_options(session, NAME, options)
}

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

async fn publish(topic: Topic, name: usize, book: Book) {
    for n in 0..EACH {
        let payload = format!("one {name} {n:03}");
        let result = topic.publish(payload.clone()).await;
        book.note(payload, result);
        idle(100).await;
    }
}

/// As [`publish`], without waiting for each.
async fn pipeline(topic: Topic, name: usize, book: Book) {
    let mut publisher = topic.publisher();
    for part in 0..2 {
        let mut receipts = Vec::new();
        for n in 0..EACH / 2 {
            let payload = format!("many {name} {:03}", part * EACH + n);
            match publisher.send(payload.clone()).await {
                Ok(receipt) => receipts.push((payload, receipt)),
                Err(error) => book.note(payload, Err(error)),
            }
        }
        let flushed = publisher.flush().await;
        let mut failed = false;
        for (payload, receipt) in receipts {
            let result = receipt.position().await;
            assert!(!failed || result.is_err(), "what was published is a beginning of what was sent");
            failed = result.is_err();
            book.note(payload, result);
        }
        assert!(!failed || flushed.is_err(), "the flush tells of it");
        idle(300).await;
    }
}

/// Reads until the messages that are published last have been seen.
async fn read(mut subscription: Subscription, ends: usize) -> Seen {
    let mut seen = Seen::default();
    let mut left = ends;
    while left > 0 {
        match subscription.next().await.unwrap().unwrap() {
            Delivery::Message(message) => {
                let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                left -= usize::from(payload.starts_with("end"));
                seen.messages.push((payload, message.position));
            }
            Delivery::Lagged { missed } => seen.missed += missed.expect("the number of those missed"),
            other => panic!("{other:?}"),
        }
    }
    seen
}

/// Reads from a cursor, in several lives that each acknowledge some of what they saw.
async fn resume(topic: Topic, ends: usize) -> Vec<Seen> {
    let mut lives = Vec::new();
    for _ in 0..3 {
        let mut seen = Seen::default();
        let from = From::cursor("reader");
        let Ok(mut subscription) = topic.subscribe(from).await else { continue };
        for n in 0..10 {
            let next = tokio::time::timeout(Duration::from_secs(5), subscription.next());
            let Ok(next) = next.await else { break };
            match next.unwrap().unwrap() {
                Delivery::Message(message) => {
                    let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                    let over = payload.starts_with("end");
                    seen.messages.push((payload, message.position));
                    if over {
                        break; // Not acknowledged: the last life is to end with it.
                    }
                    if n % 3 == 2 {
                        // When it is not known whether that was taken, it comes again or does not.
                        let _ = subscription.ack(&message.position).await;
                    }
                }
                Delivery::Lagged { missed } => seen.missed += missed.unwrap(),
                other => panic!("{other:?}"),
            }
        }
        lives.push(seen);
    }
    let subscription = async || topic.subscribe(From::cursor("reader")).await.ok();
    let mut last = None;
    while last.is_none() {
        last = subscription().await;
    }
    lives.push(read(last.unwrap(), ends).await);
    lives
}

/// One subscription saw each message once, in one order, which is that of each publisher, too.
fn check_order(seen: &Seen) {
    let mut payloads = BTreeSet::new();
    let mut latest: BTreeMap<&str, &str> = BTreeMap::new();
    let mut before: Option<Position> = None;
    for (payload, position) in &seen.messages {
        assert!(payloads.insert(payload), "{payload} came twice");
        assert!(before.is_none_or(|before| before < *position), "{position} after {before:?}");
        before = Some(*position);
        let (publisher, number) = payload.rsplit_once(' ').unwrap();
        let earlier = latest.insert(publisher, number);
        assert!(earlier.is_none_or(|earlier| earlier < number), "{payload} after {earlier:?}");
    }
}

fn check_fates(seen: &Seen, fates: &BTreeMap<String, Fate>) {
    let mut left: BTreeMap<&String, &Fate> = fates.iter().collect();
    for (payload, position) in &seen.messages {
        match left.remove(payload).unwrap_or_else(|| panic!("{payload} was never sent")) {
            Fate::At(acknowledged) => assert_eq!(acknowledged, position, "{payload}"),
            Fate::Unknown => {}
            Fate::Refused => panic!("{payload} was said not to be published"),
        }
    }
    let lost: Vec<_> = left.iter().filter(|(_, fate)| matches!(fate, Fate::At(_))).collect();
    assert!(lost.len() as u64 <= seen.missed, "never seen: {lost:?}, reported: {}", seen.missed);
}

async fn many_publish(stage: &Stage) {
    let sessions = [stage.session().await, stage.session().await];
    let topics: Vec<Topic> = sessions.iter().map(|session| topic(session, stage)).collect();
    let watching = topic(&stage.session().await, stage);
    let first = watching.subscribe(From::Now).await.unwrap();
    drop(watching.subscribe(From::cursor("reader")).await.unwrap());
    // Two messages end it: one of each session.
    let first = tokio::spawn(read(first, 2));
    let book = Book::default();
    stage.disturb();
    let resumed = tokio::spawn(resume(watching.clone(), 2));
    let mut tasks = Vec::new();
    for (name, topic) in topics.iter().enumerate() {
        tasks.push(tokio::spawn(publish(topic.clone(), name, book.clone())));
        tasks.push(tokio::spawn(pipeline(topic.clone(), name, book.clone())));
    }
    idle(1000).await;
    let late = loop {
        if let Ok(late) = watching.subscribe(From::Oldest).await {
            break tokio::spawn(read(late, 2));
        }
    };
    for task in tasks {
        task.await.unwrap();
    }
    stage.calm();
    for (name, topic) in topics.iter().enumerate() {
        let payload = format!("end {name} 0");
        let publish = async || topic.publish(payload.clone()).await.ok();
        let position = stage.until("publishing", publish).await;
        book.note(payload.clone(), Ok(position));
    }
    let fates = book.0.lock().unwrap().clone();
    let first = stage.soon("the first subscriber", first).await.unwrap();
    let late = stage.soon("the second subscriber", late).await.unwrap();
    let lives = stage.soon("the resumed subscriber", resumed).await.unwrap();
    check_order(&first);
    check_fates(&first, &fates);
    // One message is one publish here: what was not seen was reported, to the last one.
    if let Some(ordinal) = first.messages.last().unwrap().1.ordinal() {
        assert_eq!(first.messages.len() as u64 + first.missed, ordinal, "a gap that was not reported");
    }
    check_order(&late);
    // What had gone before the oldest message kept is no gap to one that begins there.
    let gone = first.messages.iter().filter(|message| !late.messages.contains(message)).count();
    check_fates(&Seen { missed: late.missed + first.missed + gone as u64, ..late.clone() }, &fates);
    if stage.seed() % 10 < 5 {
        assert_eq!((first.missed, late.missed), (0, 0), "nothing was taken by retention");
        assert_eq!(first.messages, late.messages);
    }
    let mut together = Seen::default();
    for life in lives {
        check_order(&life);
        together.missed += life.missed;
        together.messages.extend(life.messages);
    }
    together.messages.sort_by(|one, other| one.1.partial_cmp(&other.1).unwrap());
    together.messages.dedup();
    check_order(&together);
    check_fates(&together, &fates);
}

#[test]
fn everybody_sees_what_was_acknowledged_once_in_one_order_and_gaps_only_as_reported() {
    let test = "everybody_sees_what_was_acknowledged_once_in_one_order_and_gaps_only_as_reported";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 110).run(many_publish);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_publish);
}

#[test]
fn a_compaction_while_a_subscriber_is_cut_off_leaves_no_gap() {
    let test = "a_compaction_while_a_subscriber_is_cut_off_leaves_no_gap";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let (topic, other) = (topic(&stage.session().await, stage), topic(&stage.session().await, stage));
        let reading = tokio::spawn(read(other.subscribe(From::Now).await.unwrap(), 1));
        for n in 0..10 {
            topic.publish(format!("one 0 {n:03}")).await.unwrap();
        }
        // Nobody can watch for a while.
        stage.faults().next(Call::Watch, 6, Fault::LoseRequest);
        stage.faults().cut_streams();
        for n in 10..20 {
            topic.publish(format!("one 0 {n:03}")).await.unwrap();
        }
        stage.faults().compact();
        topic.publish("end 0 0").await.unwrap();
        let seen = stage.soon("the subscriber", reading).await.unwrap();
        check_order(&seen);
        assert_eq!((seen.messages.len(), seen.missed), (21, 0));
        assert!(stage.faults().injected().len() >= 2, "{:?}", stage.faults().injected());
    });
}

#[test]
fn a_publish_whose_answers_are_lost_is_there_once() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_publish_whose_answers_are_lost_is_there_once", 5).run(
        async |stage| {
            let topic = topic(&stage.session().await, stage);
            let first = topic.publish("one 0 000").await.unwrap();
            stage.faults().next(Call::Txn, 3, Fault::LoseReply);
            let second = topic.publish("one 0 001").await.unwrap();
            assert!(second > first);
            assert_eq!(stage.faults().injected().len(), 3);
            topic.publish("end 0 0").await.unwrap();
            let seen = read(topic.subscribe(From::Oldest).await.unwrap(), 1).await;
            assert_eq!(seen.messages.len(), 3);
            assert_eq!((seen.messages[0].1, seen.messages[1].1), (first, second));
        },
    );
}
