//! Counters under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use sereno_counter::core::{Error as CoreError, Session};
use sereno_counter::{Counter, Error};
use sereno_testkit::{Seeds, Stage};

const NAME: &str = "jobs";

/// What was done, in which order, and what came of it.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    /// Additions of one that were told their value: when they began, when they ended, the value.
    told: Vec<(u64, u64, i64)>,
    /// Readings, the same.
    read: Vec<(u64, u64, i64)>,
    /// Applied, the value lost.
    untold: usize,
    /// Applied or not.
    unknown: usize,
}

impl Book {
    fn note(&self, began: u64, ended: u64, result: Result<i64, Error>) {
        let mut pages = self.0.lock().unwrap();
        match result {
            Ok(value) => pages.told.push((began, ended, value)),
            Err(Error::Core(CoreError::ValueUnknown { .. })) => pages.untold += 1,
            Err(error) if error.is_outcome_unknown() => pages.unknown += 1,
            Err(Error::Mismatch { expected, actual }) => assert_ne!(expected, actual),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }

    /// Whether all of it can have happened one after the other, in the order in which it was seen to happen.
    fn check(&self, last: i64) {
        let pages = self.0.lock().unwrap();
        let told = pages.told.len() + pages.untold;
        let all = told..=told + pages.unknown;
        assert!(all.contains(&(last as usize)), "{all:?} were added, it is {last}");
        let mut values: Vec<i64> = pages.told.iter().map(|(.., value)| *value).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), pages.told.len(), "no value is told twice");
        assert!(values.iter().all(|value| (1..=last).contains(value)), "{values:?} up to {last}");
        for (_, ended, earlier) in pages.told.iter().chain(&pages.read) {
            for (began, _, later) in pages.told.iter().filter(|(began, ..)| began > ended) {
                assert!(later > earlier, "{earlier} was over at {ended} before {later} began at {began}");
            }
            for (began, _, later) in pages.read.iter().filter(|(began, ..)| began > ended) {
                assert!(later >= earlier, "{earlier} was over at {ended}; {later} was read from {began} on");
            }
        }
    }
}

async fn count(stage: Stage, session: Session, book: Book, rounds: usize) {
    let counter = Counter::new(&session, NAME);
    for round in 0..rounds {
        let began = stage.step();
        let result = counter.add(1).await;
        book.note(began, stage.step(), result);
        if round % 4 == 3 {
            let began = stage.step();
            let Ok(value) = counter.get().await else { continue };
            book.0.lock().unwrap().read.push((began, stage.step(), value));
            let (began, swapped) = (stage.step(), counter.compare_and_set(value, value + 1).await);
            book.note(began, stage.step(), swapped.map(|()| value + 1));
        }
    }
}

async fn many_count(stage: &Stage) {
    let book = Book::default();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(stage.session().await);
    }
    let mut watcher = Counter::new(&sessions[0], NAME).watch().await.unwrap();
    stage.disturb();
    let mut tasks = Vec::new();
    for session in sessions.iter().chain(&sessions) {
        tasks.push(tokio::spawn(count(stage.clone(), session.clone(), book.clone(), 8)));
    }
    for task in tasks {
        task.await.unwrap();
    }
    stage.calm();
    let mut last = None;
    for session in &sessions {
        let value = stage.until("reading", async || Counter::new(session, NAME).get().await.ok()).await;
        assert!(last.is_none_or(|last| last == value), "{last:?}, {value}");
        last = Some(value);
    }
    let last = last.unwrap();
    book.check(last);
    let mut seen = -1;
    stage
        .soon("the watcher", async {
            while seen != last {
                let value = watcher.next().await.unwrap().unwrap();
                assert!(value > seen && value <= last, "{value} after {seen}, up to {last}");
                seen = value;
            }
        })
        .await;
    // Counting the cells of those who go into the base changes nothing.
    drop(watcher);
    let after = stage.session().await;
    for session in sessions {
        session.close().await.unwrap();
        assert_eq!(Counter::new(&after, NAME).get().await.unwrap(), last);
    }
    assert_eq!(Counter::new(&after, NAME).add(1).await.unwrap(), last + 1);
}

#[test]
fn what_many_add_under_faults_is_the_sum_and_no_value_is_told_twice() {
    Seeds::new(
        env!("CARGO_PKG_NAME"),
        "what_many_add_under_faults_is_the_sum_and_no_value_is_told_twice",
        120,
    )
    .run(many_count);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_count);
}
