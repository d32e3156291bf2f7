//! Wait groups under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};
use sereno_waitgroup::core::{Session, chance};
use sereno_waitgroup::{CrashPolicy, Error, WaitGroup, WaitGroupOptions};
use tokio::task::JoinHandle;

const NAME: &str = "batch";
/// Done by each of the tasks that report.
const EACH: u64 = 3;

/// What is known of calls that change the group.
#[derive(Default)]
struct Book {
    added: AtomicU64,
    perhaps_added: AtomicU64,
    done: AtomicU64,
    perhaps_done: AtomicU64,
}

fn tally(result: Result<(), Error>, applied: &AtomicU64, perhaps: &AtomicU64) -> bool {
    match result {
        Ok(()) => applied.fetch_add(1, Ordering::Relaxed),
        Err(error) if error.is_outcome_unknown() => perhaps.fetch_add(1, Ordering::Relaxed),
        Err(error) => {
            assert!(error.is_retryable(), "{error:?}");
            return false;
        }
    };
    true
}

/// Up to so long, for something else to happen meanwhile.
async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

fn group(session: &Session) -> WaitGroup {
    WaitGroup::with_options(session, NAME, WaitGroupOptions::default().crash(CrashPolicy::CountAsDone))
}

async fn report(session: Session, book: Arc<Book>) {
    let group = group(&session);
    let mut left = EACH;
    while left > 0 {
        idle(400).await;
        left -= u64::from(tally(group.done().await, &book.done, &book.perhaps_done));
    }
}

async fn hand_out(session: Session, book: Arc<Book>) {
    let group = group(&session);
    for _ in 0..2 {
        idle(600).await;
        tally(group.add(1).await, &book.added, &book.perhaps_added);
    }
}

/// Enters, works, leaves; or dies of its lease.
async fn work(session: Session) {
    let group = group(&session);
    for round in 0..2 {
        let Ok(worker) = group.enter(format!("{round}")).await else { continue };
        idle(2000).await;
        for attempt in 0.. {
            match worker.done().await {
                Ok(()) | Err(Error::Dismissed { .. }) => break,
                Err(error) if error.is_session_lost() => break,
                Err(error) => assert!(attempt < 20, "{error:?}"),
            }
        }
    }
}

fn wait(group: WaitGroup, after: Option<u64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for _ in 0..1000 {
            let waited = match after {
                Some(generation) => group.wait_after(generation).await,
                None => group.wait().await,
            };
            match waited {
                Ok(()) => return,
                Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
            }
        }
        panic!("it can neither wait nor say why");
    })
}

async fn many_finish(stage: &Stage) {
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(stage.session().await);
    }
    let book = Arc::new(Book::default());
    // One more than will be reported: the last one is held back.
    let first = group(&sessions[0]);
    first.add(3 * EACH + 1).await.unwrap();
    book.added.store(3 * EACH + 1, Ordering::Relaxed);
    let waiters = [wait(group(&sessions[1]), None), wait(group(&stage.session().await), Some(1))];
    stage.disturb();
    let mut tasks = Vec::new();
    for session in &sessions {
        tasks.push(tokio::spawn(report(session.clone(), book.clone())));
        tasks.push(tokio::spawn(work(session.clone())));
    }
    tasks.push(tokio::spawn(hand_out(sessions[2].clone(), book.clone())));
    for task in tasks {
        task.await.unwrap();
    }
    stage.calm();
    // Those who died are taken out by those who wait, those who may have entered by themselves.
    let settled = async || {
        let workers = first.workers().await.ok()?;
        workers.is_empty().then_some(())
    };
    stage.until("the workers to be gone", settled).await;
    let left = first.count().await.unwrap();
    let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let most = number(&book.added) + number(&book.perhaps_added) - number(&book.done);
    let least = most - number(&book.perhaps_added) - number(&book.perhaps_done);
    assert!((least..=most).contains(&left) && left >= 1, "{left} are left, not {least} to {most}");
    assert_eq!(first.generation().await.unwrap(), 1, "one is outstanding");
    first.done_many(left - 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()), "released early");
    group(&sessions[2]).done().await.unwrap();
    for waiter in waiters {
        stage.soon("a waiter to be released", waiter).await.unwrap();
    }
    assert_eq!((first.count().await.unwrap(), first.generation().await.unwrap()), (0, 2));
    for session in &sessions {
        let refused = group(session).done().await;
        assert!(matches!(refused, Err(Error::TooManyDone { done: 1, count: 0 })), "{refused:?}");
    }
    assert_eq!(first.count().await.unwrap(), 0);
}

#[test]
fn nobody_is_released_before_all_is_done_and_everybody_is_when_it_is() {
    let test = "nobody_is_released_before_all_is_done_and_everybody_is_when_it_is";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 110).run(many_finish);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_finish);
}

#[test]
fn a_worker_whose_lease_ends_in_the_middle_is_told_and_so_is_who_waits() {
    let test = "a_worker_whose_lease_ends_in_the_middle_is_told_and_so_is_who_waits";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let (session, other) = (stage.session().await, stage.session().await);
        let worker = group(&session).enter("n1").await.unwrap();
        let strict = WaitGroup::new(&other, NAME);
        let told = tokio::spawn(async move { strict.wait().await });
        assert_eq!(stage.faults().expire_all_sessions(), 2);
        stage.soon("the worker to be told", worker.lost()).await;
        let told = stage.soon("the waiter", told).await.unwrap();
        assert!(matches!(&told, Err(Error::WorkerDied { workers }) if workers.len() == 1), "{told:?}");
        let late = worker.done().await;
        assert!(late.as_ref().is_err_and(Error::is_session_lost), "{late:?}");
        // Who counts it as done goes on.
        stage.soon("a waiter that counts it as done", group(&other).wait()).await.unwrap();
        assert_eq!(group(&other).count().await.unwrap(), 0);
    });
}

#[test]
fn a_release_while_the_watch_is_cut_off_and_compacted_is_not_missed() {
    let test = "a_release_while_the_watch_is_cut_off_and_compacted_is_not_missed";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let (here, there) = (group(&stage.session().await), group(&stage.session().await));
        here.add(2).await.unwrap();
        let waiter = wait(here, None);
        there.done().await.unwrap();
        stage.faults().next(Call::Watch, 6, Fault::LoseRequest);
        stage.faults().cut_streams();
        there.done().await.unwrap();
        there.add(1).await.unwrap();
        stage.faults().compact();
        stage.soon("the waiter", waiter).await.unwrap();
        assert_eq!(there.count().await.unwrap(), 1, "the next generation has begun all the same");
    });
}
