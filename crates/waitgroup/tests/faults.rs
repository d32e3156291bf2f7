//! What happens when things break.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Place, SOON, soon, still_waiting};
use sereno_testkit::{ChildHost, ChildProcess, Flaky, Member, Mode, Proxy, child, eventually};
use sereno_waitgroup::core::{LostReason, Session};
use sereno_waitgroup::{CrashPolicy, Error, WaitGroup, WaitGroupOptions, Worker};
use tokio::task::JoinSet;

const TTL: Duration = Duration::from_secs(2);

fn lenient(session: &Session, name: &str) -> WaitGroup {
    WaitGroup::with_options(session, name, WaitGroupOptions::default().crash(CrashPolicy::CountAsDone))
}

fn told_of(error: &Error, label: &str) -> bool {
    matches!(error, Error::WorkerDied { workers } if workers.len() == 1 && workers[0].label == label)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("worker") {
        return;
    }
    let place = Place { endpoints: vec![child::argument(0)], namespace: child::argument(1) };
    let session = place.session_for(TTL).await;
    let worker = WaitGroup::new(&session, "g").enter(child::argument(2)).await.unwrap();
    child::say("entered");
    tokio::spawn(async {
        // Blocks a thread of its own until the parent is gone or says so.
        tokio::task::spawn_blocking(child::hear).await.unwrap();
    })
    .await
    .unwrap();
    match worker.done().await {
        Ok(()) => child::say("done"),
        Err(error) if error.is_session_lost() => child::say("lost"),
        Err(error) => child::say(&format!("failed: {error}")),
    }
}

async fn worker_process(place: &Place, label: &str) -> ChildProcess {
    let host = ChildHost::new("child_entry", "worker").argument(&place.endpoints[0]);
    let mut worker = host.argument(&place.namespace).argument(label).spawn();
    assert_eq!(worker.line().await, "entered");
    worker
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_killed_process_is_noticed_after_its_lease_and_named() {
    let place = Place::shared("kill").await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    let mut process = worker_process(&place, "host-9").await;
    let mut waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    assert!(still_waiting(&mut waiting).await);
    process.kill();
    let killed = Instant::now();
    let error = soon(waiting).await.unwrap().unwrap_err();
    println!("a killed worker with a lease of {TTL:?} was noticed after {:?}", killed.elapsed());
    assert!(told_of(&error, "host-9"), "{error:?}");
    assert!(killed.elapsed() > TTL / 4, "a lease cannot end so early");
    assert!(told_of(&soon(group.wait()).await.unwrap_err(), "host-9"), "late waiters are told too");
    assert_eq!(group.count().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_killed_process_counts_as_done_for_those_who_want_it_so() {
    let place = Place::shared("killok").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "g");
    let mut process = worker_process(&place, "host-9").await;
    let mut other = worker_process(&place, "host-10").await;
    let mut waiting = tokio::spawn({
        let group = lenient(&session, "g");
        async move { group.wait().await }
    });
    process.kill();
    eventually(SOON, "the burial", async || (group.count().await.unwrap() == 1).then_some(())).await;
    assert!(still_waiting(&mut waiting).await, "the other one is at work");
    other.send("enough");
    assert_eq!(other.line().await, "done");
    soon(waiting).await.unwrap().unwrap();
    assert_eq!((group.count().await.unwrap(), group.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_process_that_was_stopped_for_too_long_is_not_believed() {
    let place = Place::shared("stop").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let mut process = worker_process(&place, "sleeper").await;
    process.pause();
    let error = soon(group.wait()).await.unwrap_err();
    assert!(told_of(&error, "sleeper"), "{error:?}");
    process.send("say that you are done");
    process.resume();
    assert_eq!(process.line().await, "lost");
    assert_eq!(group.count().await.unwrap(), 1, "it is still dead");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lease_revoked_underneath_ends_the_worker_for_good() {
    let place = Place::shared("revoke").await;
    // Renewed every half a minute: only the watch of the session's key can tell sooner.
    let session = place.session_for(Duration::from_secs(600)).await;
    let (group, other) = (WaitGroup::new(&session, "g"), WaitGroup::new(&place.session().await, "g"));
    let worker = group.enter("victim").await.unwrap();
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.wait().await }
    });
    let oracle = place.oracle().await;
    let alive = format!("{}/waitgroup/g/alive/{}", place.namespace, worker.id());
    let lease = oracle.client().get(alive, None).await.unwrap().kvs()[0].lease();
    assert!(oracle.revoke(lease).await);
    let revoked = Instant::now();
    assert_eq!(soon(worker.lost()).await, LostReason::Expired);
    assert!(told_of(&soon(waiting).await.unwrap().unwrap_err(), "victim"));
    assert!(revoked.elapsed() < Duration::from_secs(20), "at once, not at the next keepalive");
    assert!(worker.done().await.unwrap_err().is_session_lost());

    // The session goes on, the worker does not.
    let again = group.enter("again").await.unwrap();
    assert_ne!(again.id(), worker.id());
    assert!(worker.done().await.unwrap_err().is_session_lost());
    assert!(other.dismiss(worker.id()).await.unwrap());
    again.done().await.unwrap();
    soon(other.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_release_is_not_missed_by_one_who_was_cut_off_from_it_and_its_history() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "resync");
    let proxy = Proxy::to(member.endpoint()).await;
    let far = place.through(proxy.endpoint());
    let group = WaitGroup::new(&place.session().await, "g");
    let waiter = WaitGroup::new(&far.session().await, "g");
    group.add(2).await.unwrap();
    let mut waiting = tokio::spawn(async move { waiter.wait().await });
    assert!(still_waiting(&mut waiting).await);
    proxy.blackhole().await;
    for _ in 0..3 {
        group.done_many(2).await.unwrap();
        group.add(2).await.unwrap();
    }
    member.oracle().await.compact_to_head().await;
    assert!(still_waiting(&mut waiting).await, "it cannot know yet");
    let frozen = proxy.stats().frozen;
    proxy.pass().await;
    proxy.reset();
    soon(waiting).await.unwrap().unwrap();
    assert!(frozen > 0, "the fault must have happened");
    assert_eq!(group.count().await.unwrap(), 2, "in use again all the time");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_restart_of_etcd_is_waited_through() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "restart");
    let group = WaitGroup::new(&place.session_for(Duration::from_secs(30)).await, "g");
    let waiter = WaitGroup::new(&place.session().await, "g");
    let worker = group.enter("survivor").await.unwrap();
    group.add(1).await.unwrap();
    let mut waiting = tokio::spawn(async move { waiter.wait().await });
    assert!(still_waiting(&mut waiting).await);
    member.kill().await;
    let refused = group.done().await.unwrap_err();
    assert!(refused.is_retryable() || refused.is_outcome_unknown(), "{refused:?}");
    assert!(still_waiting(&mut waiting).await);
    member.start().await;
    // It may be known only now whether the first one was applied.
    if refused.is_retryable() || group.count().await.unwrap() == 2 {
        group.done().await.unwrap();
    }
    assert_eq!(group.count().await.unwrap(), 1);
    worker.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_guard_dropped_while_etcd_is_away_is_told_when_it_is_back() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "away");
    let proxy = Proxy::to(member.endpoint()).await;
    let group = WaitGroup::new(&place.session().await, "g");
    let far = place.through(proxy.endpoint()).session_for(Duration::from_secs(60)).await;
    let worker = WaitGroup::new(&far, "g").enter("dropped").await.unwrap();
    let mut waiting = tokio::spawn(async move { group.wait().await });
    proxy.refuse().await;
    drop(worker);
    // Longer than any one attempt.
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut waiting).await.is_err());
    proxy.pass().await;
    let back = Instant::now();
    assert!(told_of(&soon(waiting).await.unwrap().unwrap_err(), "dropped"));
    assert!(back.elapsed() < Duration::from_secs(10), "not only when its lease ended");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_that_is_deleted_is_not_mistaken_for_one_that_was_released() {
    let place = Place::shared("deleted").await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    let mut waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    assert!(still_waiting(&mut waiting).await);
    place.oracle().await.delete_prefix(format!("{}/waitgroup/g/", place.namespace)).await;
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Deleted), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn who_entered_without_being_told_is_taken_out_again() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "ghost");
    let proxy = Proxy::to(member.endpoint()).await;
    let near = WaitGroup::new(&place.session().await, "g");
    near.add(1).await.unwrap();
    let far = place.through(proxy.endpoint()).session_for(Duration::from_secs(60)).await;
    let group = WaitGroup::new(&far, "g");
    proxy.drop_responses().await;
    let entering = tokio::spawn(async move { group.enter("ghost").await });
    eventually(SOON, "the entering", async || (near.count().await.unwrap() == 2).then_some(())).await;
    let error = soon(entering).await.unwrap().unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(near.count().await.unwrap(), 2, "nobody could have been told yet");
    proxy.pass().await;
    eventually(SOON, "the leaving", async || (near.count().await.unwrap() == 1).then_some(())).await;
    assert!(near.workers().await.unwrap().is_empty());
    near.done().await.unwrap();
    soon(near.wait()).await.unwrap();
}

/// What became of calls over a bad wire.
#[derive(Default)]
struct Tally {
    added: AtomicU64,
    done: AtomicU64,
    unknown: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn lost_answers_count_nothing_twice_and_nothing_never() {
    const CLIENTS: usize = 3;
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "lossy");
    let near = WaitGroup::new(&place.session().await, "g");
    near.add(1).await.unwrap();
    let tally = Arc::new(Tally::default());
    let mut proxies = Vec::new();
    let mut sessions = Vec::new();
    for seed in 0..CLIENTS {
        let proxy = Proxy::to(member.endpoint()).await;
        let session = place.through(proxy.endpoint()).session_for(Duration::from_secs(60)).await;
        let seed = u64::try_from(seed).unwrap();
        proxy.set(Mode::Flaky(Flaky::new(0.03, seed).lose_request(0.01))).await;
        proxies.push(proxy);
        sessions.push(session);
    }
    let mut waiting = tokio::spawn({
        let waiter = WaitGroup::new(&sessions[0], "g");
        async move { waiter.wait().await }
    });
    let mut tasks = JoinSet::new();
    for session in &sessions {
        for task in 0..4 {
            let (group, tally) = (WaitGroup::new(session, "g"), tally.clone());
            tasks.spawn(async move {
                for round in 0..40 {
                    if (task + round) % 8 == 0 {
                        work(&group, &tally).await;
                    } else {
                        bump(&tally, &tally.added, group.add(2).await);
                        bump(&tally, &tally.done, group.done().await);
                    }
                }
            });
        }
    }
    let joined = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap()
        }
    };
    tokio::time::timeout(Duration::from_secs(120), joined).await.expect("no call may hang");
    let faults: u64 = proxies.iter().map(|p| p.stats().responses_dropped + p.stats().requests_dropped).sum();
    for proxy in &proxies {
        proxy.pass().await;
    }
    let (added, done) = (tally.added.load(Ordering::SeqCst), tally.done.load(Ordering::SeqCst));
    let unknown = tally.unknown.load(Ordering::SeqCst);
    println!("{added} adds of 2, {done} dones, {unknown} unknown, {faults} answers or requests lost");
    assert!(faults > 0, "the faults must have happened: {faults}");
    // Workers whose leaving was not known yet leave in the background.
    eventually(SOON, "the workers to leave", async || near.workers().await.unwrap().is_empty().then_some(()))
        .await;
    let count = near.count().await.unwrap();
    if unknown == 0 {
        assert_eq!(count, 1 + 2 * added - done);
    } else {
        assert!(count.abs_diff(1 + 2 * added - done) <= 2 * unknown, "{count}");
    }
    assert!(!waiting.is_finished(), "held by the first one");
    near.done_many(count).await.unwrap();
    soon(&mut waiting).await.unwrap().unwrap();
    assert_eq!(near.generation().await.unwrap(), 2, "released once, at the end");
}

fn bump(tally: &Tally, kind: &AtomicU64, result: Result<(), Error>) {
    match result {
        Ok(()) => kind.fetch_add(1, Ordering::SeqCst),
        Err(error) if error.is_retryable() => 0,
        Err(error) if error.is_outcome_unknown() => tally.unknown.fetch_add(1, Ordering::SeqCst),
        Err(error) => panic!("{error:?}"),
    };
}

/// Enters and leaves, whatever it takes.
async fn work(group: &WaitGroup, tally: &Tally) {
    let worker: Worker = match group.enter("worker").await {
        Ok(worker) => worker,
        Err(error) => return bump(tally, &tally.unknown, Err(error)),
    };
    for _ in 0..20 {
        match worker.done().await {
            Ok(()) => return,
            Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
        }
    }
    panic!("a worker that could not leave in twenty attempts");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn futures_dropped_at_any_moment_leave_nobody_inside_and_nothing_half_done() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "dropped");
    let proxy = Proxy::to(member.endpoint()).await;
    let near = WaitGroup::new(&place.session().await, "g");
    let session = place.through(proxy.endpoint()).session_for(Duration::from_secs(60)).await;
    let group = WaitGroup::new(&session, "g");
    proxy.delay(Duration::from_millis(2)).await;
    near.add(1).await.unwrap();
    // How long it takes here and now, so that some are dropped before they are inside and some are not.
    let started = Instant::now();
    group.enter("measured").await.unwrap().done().await.unwrap();
    let both = started.elapsed();
    let mut kept = Vec::new();
    let mut entered: u32 = 0;
    for step in 0..80 {
        let patience = both * step / 40;
        let Ok(worker) = tokio::time::timeout(patience, group.enter("passer-by")).await else { continue };
        let worker = worker.unwrap();
        entered += 1;
        let patience = both * (entered - 1) / 20;
        if tokio::time::timeout(patience, worker.done()).await.is_err() {
            kept.push(worker);
        }
    }
    println!("{entered} of 80 entered, {} of them were not seen to leave", kept.len());
    // The first step is dropped before it has begun, and so is the first leaving.
    assert!(
        (1..80).contains(&entered) && !kept.is_empty(),
        "dropped midway: {entered} of 80, {}",
        kept.len()
    );
    for worker in &kept {
        soon(worker.done()).await.unwrap();
    }
    eventually(SOON, "all to leave", async || near.workers().await.unwrap().is_empty().then_some(())).await;
    assert_eq!((near.count().await.unwrap(), near.generation().await.unwrap()), (1, 1));

    // Each of these is applied or not, and whoever comes after finds a whole number.
    for step in 0..60 {
        let patience = Duration::from_micros(step * 150);
        let _ = tokio::time::timeout(patience, group.add(2)).await;
    }
    for step in 0..60 {
        let patience = Duration::from_micros(step * 150);
        match tokio::time::timeout(patience, group.done()).await {
            Ok(Err(Error::TooManyDone { .. })) | Err(_) => {}
            Ok(done) => done.unwrap(),
        }
    }
    // In line behind whatever is still under way.
    group.add(1).await.unwrap();
    let left = near.count().await.unwrap();
    assert!((1..=122).contains(&left), "{left}");
    near.done_many(left).await.unwrap();
    soon(group.wait()).await.unwrap();
    assert_eq!(near.count().await.unwrap(), 0);
}
