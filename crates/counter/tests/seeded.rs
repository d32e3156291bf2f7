//! Counters under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sereno_counter::core::{Error as CoreError, Session};
use sereno_counter::{Counter, Error};
use sereno_testkit::embed::{Call, Fault};
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

/// A script is the same whatever the seed, but for the chances of the library.
fn script<S: AsyncFn(&Stage) + Send + Sync + 'static>(test: &'static str, scenario: S) {
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(scenario);
}

#[test]
fn an_addition_whose_answers_are_lost_counts_once_and_is_told_the_value_of_then() {
    script("an_addition_whose_answers_are_lost_counts_once_and_is_told_the_value_of_then", async |stage| {
        let (counter, other) =
            (Counter::new(&stage.session().await, NAME), Counter::new(&stage.session().await, NAME));
        assert_eq!(counter.add(5).await.unwrap(), 5);
        assert_eq!(other.add(10).await.unwrap(), 15);
        stage.faults().next(Call::Txn, 1, Fault::HangReply);
        let (told, after) = tokio::join!(counter.add(7), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            other.add(100).await
        });
        assert_eq!((told.unwrap(), after.unwrap()), (22, 122));
        stage.faults().next(Call::Txn, 3, Fault::LoseReply);
        assert_eq!(counter.add(1).await.unwrap(), 123);
        assert_eq!(stage.faults().injected().len(), 4, "{:?}", stage.faults().injected());
    });
}

#[test]
fn a_session_that_dies_before_its_answer_learns_what_became_of_it() {
    script("a_session_that_dies_before_its_answer_learns_what_became_of_it", async |stage| {
        let counter = Counter::new(&stage.session().await, NAME);
        counter.add(1).await.unwrap();
        stage.faults().next(Call::Txn, 1, Fault::HangReply);
        let (told, ()) = tokio::join!(counter.add(1), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(stage.faults().expire_all_sessions(), 1);
        });
        assert_eq!(told.unwrap(), 2);
        assert_eq!(counter.add(1).await.unwrap(), 3);
    });
}

#[test]
fn a_store_that_was_rolled_back_is_reported_and_not_counted_on() {
    script("a_store_that_was_rolled_back_is_reported_and_not_counted_on", async |stage| {
        let session = stage.session().await;
        let counter = Counter::new(&session, NAME);
        for _ in 0..3 {
            counter.add(1).await.unwrap();
        }
        stage.faults().roll_back(stage.server().status().revision - 2).unwrap();
        for result in [counter.get().await, counter.add(1).await] {
            assert!(matches!(result, Err(Error::Core(CoreError::StoreRolledBack { .. }))), "{result:?}");
        }
        // A client that has seen nothing of before has nothing to complain about.
        assert_eq!(Counter::new(&stage.session().await, NAME).get().await.unwrap(), 1);
    });
}
