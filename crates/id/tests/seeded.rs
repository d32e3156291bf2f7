//! Ids under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use sereno_id::core::{Session, chance, pace};
use sereno_id::{Clock, Error, IdGenerator, IdOptions};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

fn options(workers: usize) -> IdOptions {
    // So short a time is reserved that it has to be done again and again, among the faults, and no two clocks agree.
    let fast = Duration::from_millis(chance::number() % 4000);
    let clock = Clock::new(move || pace::wall() + fast);
    IdOptions::default().workers(workers).ahead(Duration::from_secs(1)).clock(clock)
}

fn passing(error: &Error) -> bool {
    error.is_retryable() || error.is_session_lost() || matches!(error, Error::WorkerLost { .. })
}

async fn open(session: &Session, workers: usize) -> IdGenerator {
    for _ in 0..100 {
        match IdGenerator::open_with(session, options(workers)).await {
            Ok(generator) => return generator,
            Err(error) => assert!(passing(&error), "{error:?}"),
        }
        idle(200).await;
    }
    panic!("no generator can be opened");
}

/// Asks for ids in portions, whatever gets in the way.
async fn generate(session: Session, workers: usize) -> (IdGenerator, Vec<u64>) {
    let generator = open(&session, workers).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        match generator.next_ids(1 + chance::below(600)).await {
            Ok(more) => ids.extend(more),
            Err(error) => {
                assert!(passing(&error), "{error:?}");
                if let Err(error) = generator.reopen().await {
                    assert!(passing(&error), "{error:?}");
                }
            }
        }
        idle(800).await;
    }
    (generator, ids)
}

async fn many_generate(stage: &Stage) {
    let sessions = [stage.session().await, stage.session().await, stage.session().await];
    stage.disturb();
    let mut tasks = Vec::new();
    for (session, workers) in [(0, 1), (0, 2), (1, 1), (1, 3), (2, 1)] {
        tasks.push(tokio::spawn(generate(sessions[session].clone(), workers)));
    }
    let mut all = BTreeSet::new();
    let mut generators = Vec::new();
    for task in tasks {
        let (generator, ids) = task.await.unwrap();
        assert!(ids.is_sorted_by(|one, other| one < other), "a generator's ids ascend");
        assert!(ids.into_iter().all(|id| all.insert(id)), "an id was given out twice");
        generators.push(generator);
    }
    stage.calm();
    let mut workers = BTreeSet::new();
    for generator in &generators {
        let more = async || match generator.next_ids(300).await {
            Ok(ids) => Some(ids),
            Err(error) => {
                assert!(passing(&error), "{error:?}");
                generator.reopen().await.ok()?;
                None
            }
        };
        let ids = stage.until("ids", more).await;
        assert!(ids.into_iter().all(|id| all.insert(id)), "an id was given out twice");
        for worker in generator.workers() {
            assert!(workers.insert(worker), "worker id {worker} is had twice");
        }
    }
}

#[test]
fn no_id_is_given_out_twice() {
    Seeds::new(env!("CARGO_PKG_NAME"), "no_id_is_given_out_twice", 110).run(many_generate);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_generate);
}

#[test]
fn a_claim_whose_answers_are_lost_is_ours_and_nobody_elses() {
    let test = "a_claim_whose_answers_are_lost_is_ours_and_nobody_elses";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        stage.faults().next(Call::Txn, 4, Fault::LoseReply);
        let (one, other) = (open(&session, 1).await, open(&session, 1).await);
        assert_eq!(stage.faults().injected().len(), 4);
        assert_ne!(one.workers(), other.workers());
        let mut ids = one.next_ids(500).await.unwrap();
        ids.extend(other.next_ids(500).await.unwrap());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1000);
    });
}

#[test]
fn a_lease_that_ends_in_the_middle_ends_the_ids_and_whoever_is_next_goes_on_above_them() {
    let test = "a_lease_that_ends_in_the_middle_ends_the_ids_and_whoever_is_next_goes_on_above_them";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        let generator = open(&session, 1).await;
        let before = generator.next_ids(300).await.unwrap();
        assert_eq!(stage.faults().expire_all_sessions(), 1);
        let ended = async || generator.next_id().await.err();
        let error = stage.until("the generator to end", ended).await;
        assert!(error.is_session_lost(), "{error:?}");
        let again = async || generator.reopen().await.ok();
        stage.until("the generator to be reopened", again).await;
        assert!(generator.next_id().await.unwrap() > *before.last().unwrap());
    });
}

#[test]
fn a_worker_id_whose_clock_was_ahead_is_left_alone() {
    let test = "a_worker_id_whose_clock_was_ahead_is_left_alone";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let (session, other) = (stage.session().await, stage.session().await);
        let ahead = IdOptions::default().clock(Clock::new(|| pace::wall() + Duration::from_secs(600)));
        let fast = IdGenerator::open_with(&session, ahead).await.unwrap();
        fast.next_ids(300).await.unwrap();
        let theirs = fast.workers()[0];
        session.close().await.unwrap();
        // Under a seed worker ids are looked for from the first few on: twelve generators have all of those.
        let mut all = BTreeSet::new();
        let mut generators = Vec::new();
        for _ in 0..12 {
            let generator = IdGenerator::open_with(&other, IdOptions::default()).await.unwrap();
            all.extend(generator.workers());
            generators.push(generator);
        }
        assert_eq!(all.len(), 12);
        assert!(
            all.iter().any(|worker| worker.abs_diff(theirs) <= 1) && !all.contains(&theirs),
            "{theirs}: {all:?}"
        );
    });
}
