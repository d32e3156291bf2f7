//! Many at once.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Place, p50_p99, soon};
use sereno_waitgroup::core::Session;
use sereno_waitgroup::{CrashPolicy, Error, WaitGroup, WaitGroupOptions};
use tokio::task::JoinSet;

async fn sessions(place: &Place, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(place.patient_session().await);
    }
    sessions
}

async fn all(mut tasks: JoinSet<()>) {
    let joined = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), joined).await.expect("all must end");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn nobody_is_released_while_anything_is_outstanding() {
    let place = Place::shared("busy").await;
    let sessions = sessions(&place, 8).await;
    let holder = WaitGroup::new(&place.session().await, "g");
    holder.add(1).await.unwrap();
    let held = Arc::new(AtomicBool::new(true));
    let mut waiters = JoinSet::new();
    for session in &sessions {
        let (group, held) = (WaitGroup::new(session, "g"), held.clone());
        waiters.spawn(async move {
            group.wait().await.unwrap();
            assert!(!held.load(Ordering::SeqCst), "released while held");
        });
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for session in &sessions {
        for number in 0..8 {
            let group = WaitGroup::new(session, "g");
            tasks.spawn(async move {
                for round in 0..20 {
                    if (number + round) % 5 == 0 {
                        let worker = group.enter(format!("worker {number}")).await.unwrap();
                        worker.done().await.unwrap();
                    } else {
                        group.add(2).await.unwrap();
                        group.done().await.unwrap();
                        group.done().await.unwrap();
                    }
                }
            });
        }
    }
    all(tasks).await;
    let took = started.elapsed();
    println!("8 sessions x 8 tasks x 20 rounds of add and done twice, or enter and done: {took:?}");
    assert_eq!((holder.count().await.unwrap(), holder.generation().await.unwrap()), (1, 1));
    held.store(false, Ordering::SeqCst);
    holder.done().await.unwrap();
    all(waiters).await;
    assert_eq!((holder.count().await.unwrap(), holder.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn of_more_dones_than_adds_exactly_as_many_are_accepted() {
    let place = Place::shared("race").await;
    let sessions = sessions(&place, 8).await;
    let group = WaitGroup::new(&sessions[0], "g");
    group.add(500).await.unwrap();
    let (accepted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for session in &sessions {
        for _ in 0..100 {
            let (group, accepted, refused) =
                (WaitGroup::new(session, "g"), accepted.clone(), refused.clone());
            tasks.spawn(async move {
                match group.done().await {
                    Ok(()) => accepted.fetch_add(1, Ordering::SeqCst),
                    Err(Error::TooManyDone { count: 0, done: 1 }) => refused.fetch_add(1, Ordering::SeqCst),
                    Err(error) => panic!("{error:?}"),
                };
            });
        }
    }
    soon(group.wait()).await.unwrap();
    all(tasks).await;
    println!("800 dones from 8 sessions: {:?}", started.elapsed());
    assert_eq!((accepted.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (500, 300));
    assert_eq!((group.count().await.unwrap(), group.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn hundreds_of_workers_enter_together_and_leave_together() {
    let place = Place::shared("crowd").await;
    let sessions = sessions(&place, 16).await;
    let waiter = WaitGroup::new(&place.session().await, "g");
    let waiting = tokio::spawn({
        let waiter = waiter.clone();
        async move { waiter.wait().await }
    });
    let started = Instant::now();
    let mut entering = JoinSet::new();
    for number in 0..400 {
        let group = WaitGroup::new(&sessions[number % 16], "g");
        entering.spawn(async move { group.enter(format!("worker {number}")).await.unwrap() });
    }
    let workers = entering.join_all().await;
    let entered = started.elapsed();
    assert_eq!(waiter.count().await.unwrap(), 400);
    assert!(!waiting.is_finished());
    let started = Instant::now();
    let mut leaving = JoinSet::new();
    for worker in workers {
        leaving.spawn(async move { worker.done().await.unwrap() });
    }
    all(leaving).await;
    println!("400 workers of 16 sessions entered in {entered:?} and left in {:?}", started.elapsed());
    soon(waiting).await.unwrap().unwrap();
    assert_eq!((waiter.count().await.unwrap(), waiter.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn however_the_last_ones_go_somebody_releases() {
    const ROUNDS: u64 = 60;
    let place = Place::shared("last").await;
    let sessions = sessions(&place, 5).await;
    let group = WaitGroup::new(&sessions[0], "g");
    let lenient = WaitGroupOptions::default().crash(CrashPolicy::CountAsDone);
    for round in 1..=ROUNDS {
        let one = WaitGroup::new(&sessions[1], "g").enter("one").await.unwrap();
        let two = WaitGroup::new(&sessions[2], "g").enter("two").await.unwrap();
        let dead = WaitGroup::new(&sessions[3], "g").enter("dead").await.unwrap();
        group.add(1).await.unwrap();
        let mut tasks = JoinSet::new();
        // Two who leave, one who dies and is buried by two waiters at once, and one who is done.
        for session in &sessions[3..5] {
            let waiter = WaitGroup::with_options(session, "g", lenient.clone());
            tasks.spawn(async move { waiter.wait_after(round).await.unwrap() });
        }
        tasks.spawn(async move { one.done().await.unwrap() });
        tasks.spawn(async move { two.done().await.unwrap() });
        tasks.spawn(async move { drop(dead) });
        tasks.spawn({
            let group = group.clone();
            async move { group.done().await.unwrap() }
        });
        all(tasks).await;
        assert_eq!((group.count().await.unwrap(), group.generation().await.unwrap()), (0, round + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn hundreds_of_waiters_are_released_together() {
    let place = Place::shared("waiters").await;
    let sessions = sessions(&place, 4).await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let mut waiters = JoinSet::new();
    for number in 0..200 {
        let (waiter, released) = (WaitGroup::new(&sessions[number % 4], "g"), released.clone());
        waiters.spawn(async move {
            waiter.wait().await.unwrap();
            assert!(released.load(Ordering::SeqCst), "released too early");
        });
    }
    for _ in 0..50 {
        group.add(1).await.unwrap();
        group.done().await.unwrap();
    }
    released.store(true, Ordering::SeqCst);
    let started = Instant::now();
    group.done().await.unwrap();
    all(waiters).await;
    println!("200 waiters released after {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn generations_follow_each_other_without_a_waiter_lost() {
    const ROUNDS: u64 = 100;
    let place = Place::shared("rounds").await;
    let sessions = sessions(&place, 4).await;
    let current = Arc::new(AtomicU64::new(1));
    let mut waiters = JoinSet::new();
    for session in &sessions {
        let (group, current) = (WaitGroup::new(session, "g"), current.clone());
        waiters.spawn(async move {
            for round in 1..=ROUNDS {
                group.wait_after(round).await.unwrap();
                assert!(current.load(Ordering::SeqCst) >= round, "released before its last done");
            }
        });
    }
    // Whoever waits for whatever is outstanding is never left behind either.
    let ended = Arc::new(AtomicBool::new(false));
    for session in &sessions {
        let (group, ended) = (WaitGroup::new(session, "g"), ended.clone());
        waiters.spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                group.wait().await.unwrap();
            }
        });
    }
    let group = WaitGroup::new(&place.session().await, "g");
    for round in 1..=ROUNDS {
        assert_eq!(group.generation().await.unwrap(), round);
        group.add(sessions.len() as u64).await.unwrap();
        let mut tasks = JoinSet::new();
        current.store(round, Ordering::SeqCst);
        for session in &sessions {
            let group = WaitGroup::new(session, "g");
            tasks.spawn(async move { group.done().await.unwrap() });
        }
        all(tasks).await;
        ended.store(round == ROUNDS, Ordering::SeqCst);
    }
    all(waiters).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wake_up_takes_about_as_long_as_a_put() {
    const GROUPS: usize = 200;
    let place = Place::shared("latency").await;
    let (session, other) = (place.session().await, place.session().await);
    let mut raw = place.oracle().await.client();
    let mut waiting = Vec::new();
    for number in 0..GROUPS {
        let group = WaitGroup::new(&session, format!("g{number}"));
        group.add(1).await.unwrap();
        let waiter = WaitGroup::new(&other, format!("g{number}"));
        let woken = tokio::spawn(async move {
            waiter.wait().await.unwrap();
            Instant::now()
        });
        waiting.push((group, woken));
    }
    // Not for correctness: so that what is measured is the waking up, and not the lying down.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut puts, mut dones, mut wakes, mut lags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (group, woken) in waiting {
        let started = Instant::now();
        raw.put(format!("{}/raw", place.namespace), "x", None).await.unwrap();
        puts.push(started.elapsed());
        let started = Instant::now();
        group.done().await.unwrap();
        let done = Instant::now();
        let woken = soon(woken).await.unwrap();
        dones.push(done - started);
        wakes.push(woken - started);
        lags.push(woken.saturating_duration_since(done));
    }
    println!("                                p50, p99 of {GROUPS}");
    println!("raw put                         {:?}", p50_p99(puts));
    println!("done                            {:?}", p50_p99(dones));
    println!("from calling done to woken      {:?}", p50_p99(wakes));
    println!("from done's return to woken     {:?}", p50_p99(lags));
}
