//! What each verb does, on a healthy etcd.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Place, soon, still_waiting};
use sereno_testkit::{Member, eventually};
use sereno_waitgroup::core::{KeyError, Session};
use sereno_waitgroup::{CrashPolicy, EmptyWait, Error, WaitGroup, WaitGroupOptions};

fn counting_the_dead_as_done(session: &Session, name: &str) -> WaitGroup {
    WaitGroup::with_options(session, name, WaitGroupOptions::default().crash(CrashPolicy::CountAsDone))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_hundred_workers_are_waited_for() {
    let place = Place::shared("hundred").await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(place.session().await);
    }
    let waiter = WaitGroup::new(&place.session().await, "jobs");
    waiter.add(100).await.unwrap();
    let active = Arc::new(AtomicUsize::new(100));
    for number in 0..100 {
        let group = WaitGroup::new(&sessions[number % 10], "jobs");
        let active = active.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..4000))).await;
            active.fetch_sub(1, Ordering::SeqCst);
            group.done().await.unwrap();
        });
    }
    let started = Instant::now();
    tokio::time::timeout(Duration::from_secs(120), waiter.wait()).await.unwrap().unwrap();
    assert_eq!(active.load(Ordering::SeqCst), 0, "released with workers at work");
    assert!(started.elapsed() > Duration::from_secs(1), "a hundred workers cannot all have been that fast");
    assert_eq!(waiter.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wait_before_the_first_add_waits_for_it_and_then_for_its_release() {
    let place = Place::shared("early").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let waiting = tokio::spawn({
        let early = WaitGroup::new(&place.session().await, "g");
        async move { early.wait().await }
    });
    let mut waiting = waiting;
    assert!(still_waiting(&mut waiting).await, "nothing was ever added");
    group.add(1).await.unwrap();
    assert!(still_waiting(&mut waiting).await, "one is outstanding");
    group.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wait_before_the_first_add_returns_at_once_by_option() {
    let place = Place::shared("return").await;
    let options = WaitGroupOptions::default().empty(EmptyWait::Return);
    let group = WaitGroup::with_options(&place.session().await, "g", options);
    soon(group.wait()).await.unwrap();
    group.add(1).await.unwrap();
    assert!(still_waiting(group.wait()).await);
    group.done().await.unwrap();
    soon(group.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_done_too_many_is_an_error_for_its_caller_alone() {
    let place = Place::shared("toomany").await;
    let (group, other) =
        (WaitGroup::new(&place.session().await, "g"), WaitGroup::new(&place.session().await, "g"));
    let waiter = WaitGroup::new(&place.session().await, "g");
    let mut waiting = tokio::spawn(async move { waiter.wait().await });

    let error = other.done().await.unwrap_err();
    assert!(matches!(error, Error::TooManyDone { count: 0, done: 1 }), "{error}");
    assert!(still_waiting(&mut waiting).await, "a done before any add must not be seen by waiters");
    group.add(2).await.unwrap();
    let error = other.done_many(3).await.unwrap_err();
    assert!(matches!(error, Error::TooManyDone { count: 2, done: 3 }), "{error}");
    assert_eq!(group.count().await.unwrap(), 2, "refused whole");
    assert!(still_waiting(&mut waiting).await);
    group.done_many(2).await.unwrap();
    soon(waiting).await.unwrap().unwrap();
    assert!(matches!(other.done().await.unwrap_err(), Error::TooManyDone { count: 0, done: 1 }));
    soon(group.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_add_after_the_release_begins_the_next_generation() {
    let place = Place::shared("again").await;
    let group = WaitGroup::new(&place.session().await, "g");
    for round in 1..=5 {
        assert_eq!(group.generation().await.unwrap(), round);
        group.add(3).await.unwrap();
        let mut waiting = tokio::spawn({
            let group = group.clone();
            async move { group.wait().await }
        });
        group.done_many(2).await.unwrap();
        assert!(still_waiting(&mut waiting).await);
        group.done().await.unwrap();
        soon(waiting).await.unwrap().unwrap();
        soon(group.wait()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_add_while_others_wait_holds_them_up() {
    let place = Place::shared("more").await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    let mut waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    assert!(still_waiting(&mut waiting).await);
    group.add(1).await.unwrap();
    group.done().await.unwrap();
    assert!(still_waiting(&mut waiting).await);
    group.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_named_generation_is_waited_for_before_its_first_add() {
    let place = Place::shared("after").await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    group.done().await.unwrap();
    let round = group.generation().await.unwrap();
    soon(group.wait()).await.unwrap();
    let mut waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait_after(round).await }
    });
    assert!(still_waiting(&mut waiting).await, "the round has not begun");
    group.add(1).await.unwrap();
    group.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
    soon(group.wait_after(round)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn adding_nothing_releases_what_is_empty_and_leaves_the_rest() {
    let place = Place::shared("nothing").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    group.add(0).await.unwrap();
    soon(waiting).await.unwrap().unwrap();
    group.add(1).await.unwrap();
    group.add(0).await.unwrap();
    group.done_many(0).await.unwrap();
    assert!(still_waiting(group.wait()).await);
    assert_eq!(group.count().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn more_than_a_group_can_hold_is_refused() {
    let place = Place::shared("overflow").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let most = u64::try_from(i64::MAX).unwrap();
    assert!(matches!(group.add(u64::MAX).await.unwrap_err(), Error::Overflow { added: u64::MAX }));
    group.add(most).await.unwrap();
    assert!(matches!(group.add(1).await.unwrap_err(), Error::Overflow { added: 1 }));
    assert_eq!(group.count().await.unwrap(), most);
    group.done_many(most).await.unwrap();
    soon(group.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wait_that_is_dropped_ends_at_once_and_leaves_no_watch() {
    let member = Member::single().await;
    let place = Place::at(member.endpoint(), "drop");
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    let watchers = async || member.metrics().await.get("etcd_debugging_mvcc_watcher_total").unwrap();
    let before = watchers().await;
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    eventually(common::SOON, "the watch", async || (watchers().await > before).then_some(())).await;
    let dropped = Instant::now();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert!(dropped.elapsed() < Duration::from_secs(10), "{:?}", dropped.elapsed());
    eventually(common::SOON, "the watch's end", async || (watchers().await <= before).then_some(())).await;
    assert_eq!(group.count().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_worker_counts_until_it_is_done() {
    let place = Place::shared("worker").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let other = WaitGroup::new(&place.session().await, "g");
    let one = group.enter("one").await.unwrap();
    let two = other.enter("two").await.unwrap();
    group.add(1).await.unwrap();
    assert_eq!(group.count().await.unwrap(), 3);
    let members = group.workers().await.unwrap();
    let mut labels: Vec<_> = members.iter().map(|member| (member.label.as_str(), member.alive)).collect();
    labels.sort_unstable();
    assert_eq!(labels, [("one", true), ("two", true)]);
    assert!(matches!(other.done_many(2).await.unwrap_err(), Error::TooManyDone { count: 1, done: 2 }));

    let waiter = WaitGroup::new(&place.session().await, "g");
    let mut waiting = tokio::spawn(async move { waiter.wait().await });
    one.done().await.unwrap();
    one.done().await.unwrap();
    drop(one);
    assert_eq!(group.count().await.unwrap(), 2);
    group.done().await.unwrap();
    assert!(still_waiting(&mut waiting).await, "a worker is at work");
    two.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
    assert_eq!((group.count().await.unwrap(), group.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_worker_that_panics_has_died_and_every_waiter_is_told() {
    let place = Place::shared("panic").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let waiting = tokio::spawn({
        let waiter = WaitGroup::new(&place.session().await, "g");
        async move { waiter.wait().await }
    });
    let worker = group.enter("node-3").await.unwrap();
    let id = worker.id().to_owned();
    let working = tokio::spawn(async move {
        let _worker = worker;
        panic!("as the test wants it");
    });
    assert!(working.await.unwrap_err().is_panic());
    let told = |result: Result<(), Error>| match result.unwrap_err() {
        Error::WorkerDied { workers } => {
            assert_eq!(workers.len(), 1);
            assert_eq!((workers[0].label.as_str(), &workers[0].id), ("node-3", &id));
        }
        error => panic!("{error}"),
    };
    told(soon(waiting).await.unwrap());
    told(soon(group.wait()).await);
    told(soon(group.wait_after(1)).await);
    assert_eq!(group.count().await.unwrap(), 1, "nothing was changed by telling it");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_dead_count_as_done_for_those_who_want_it_so() {
    let place = Place::shared("policy").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "g");
    let lenient = counting_the_dead_as_done(&place.session().await, "g");
    group.add(1).await.unwrap();
    let dead: Vec<_> = (0..70).map(|number| group.enter(format!("node-{number}"))).collect();
    for worker in dead {
        drop(worker.await.unwrap());
    }
    let living = group.enter("living").await.unwrap();
    let mut waiting = tokio::spawn(async move { lenient.wait().await });
    eventually(common::SOON, "the dead to go", async || (group.count().await.unwrap() == 2).then_some(()))
        .await;
    group.done().await.unwrap();
    assert!(still_waiting(&mut waiting).await, "one is alive and at work");
    let strict = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    drop(living);
    soon(waiting).await.unwrap().unwrap();
    // Whoever is strict was told of the death or, when the lenient one was faster, of the release that it made.
    match soon(strict).await.unwrap() {
        Ok(()) => {}
        Err(Error::WorkerDied { workers }) => assert_eq!(workers[0].label, "living"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!((group.count().await.unwrap(), group.generation().await.unwrap()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn only_the_dead_can_be_dismissed() {
    let place = Place::shared("dismiss").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let other = WaitGroup::new(&place.session().await, "g");
    let worker = group.enter("one").await.unwrap();
    let id = worker.id().to_owned();
    assert!(matches!(other.dismiss(&id).await.unwrap_err(), Error::WorkerAlive { id: i } if i == id));
    drop(worker);
    let error = soon(other.wait()).await.unwrap_err();
    assert!(matches!(error, Error::WorkerDied { .. }), "{error}");
    assert!(other.dismiss(&id).await.unwrap());
    assert!(!other.dismiss(&id).await.unwrap());
    assert!(!other.dismiss("nobody").await.unwrap());
    soon(group.wait()).await.unwrap();
    assert_eq!(group.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_that_is_closed_takes_its_workers_with_it() {
    let place = Place::shared("close").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let session = place.session().await;
    let worker = WaitGroup::new(&session, "g").enter("leaver").await.unwrap();
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.wait().await }
    });
    let closed = Instant::now();
    session.close().await.unwrap();
    soon(worker.lost()).await;
    assert!(worker.done().await.unwrap_err().is_session_lost());
    assert!(matches!(soon(waiting).await.unwrap().unwrap_err(), Error::WorkerDied { .. }));
    assert!(closed.elapsed() < Duration::from_secs(12), "at once, not after its time to live");
    assert!(WaitGroup::new(&session, "g").enter("late").await.unwrap_err().is_session_lost());
    assert!(WaitGroup::new(&session, "g").done().await.unwrap_err().is_session_lost());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_is_stored_can_be_read_by_a_person() {
    let place = Place::shared("readable").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "batch-7");
    group.add(5).await.unwrap();
    let worker = group.enter("node-3").await.unwrap();
    let epoch = session.epoch().id().to_owned();
    let listed = place.listing("batch-7").await;
    let record = format!(r#"{{"label":"node-3","epoch":"{epoch}"}}"#);
    assert!(listed.contains(&format!("workers/{} {record}", worker.id())), "{listed:#?}");
    assert!(listed.contains(&format!("alive/{} {record}", worker.id())), "{listed:#?}");
    worker.done().await.unwrap();
    group.done_many(5).await.unwrap();
    session.close().await.unwrap();
    let listed = place.listing("batch-7").await;
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert!(listed[0].starts_with(r#"value {"value":0,"generation":2"#), "{listed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_name_is_a_group_of_its_own_and_a_bad_one_is_a_typed_error() {
    let place = Place::shared("names").await;
    let session = place.session().await;
    let names = ["a", "a/b", "a%2Fb", ".hidden", " ", "\0", "🦉", "value", "workers/x"];
    for (number, name) in names.iter().enumerate() {
        WaitGroup::new(&session, name).add(number as u64 + 1).await.unwrap();
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(WaitGroup::new(&session, name).count().await.unwrap(), number as u64 + 1, "{name:?}");
    }
    for (name, reason) in
        [(String::new(), KeyError::Empty), ("x".repeat(256), KeyError::TooLong { len: 256 })]
    {
        let group = WaitGroup::new(&session, &name);
        let invalid = |error: Error| {
            assert!(
                matches!(&error, Error::Core(sereno_waitgroup::core::Error::InvalidKey(r)) if *r == reason),
                "{error:?}"
            );
        };
        invalid(group.add(1).await.unwrap_err());
        invalid(group.done().await.unwrap_err());
        invalid(group.wait().await.unwrap_err());
        invalid(group.count().await.unwrap_err());
        invalid(group.enter("x").await.unwrap_err());
        invalid(group.dismiss("x").await.unwrap_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn foreign_keys_in_the_group_disturb_nobody() {
    let place = Place::shared("foreign").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let oracle = place.oracle().await;
    let root = format!("{}/waitgroup/g", place.namespace);
    group.add(1).await.unwrap();
    oracle.put(format!("{root}/workers/junk"), b"\xff\0 not json".to_vec()).await;
    oracle.put(format!("{root}/alive/nobody"), "{}").await;
    oracle.put(format!("{root}/else/where"), "x").await;
    oracle.put(format!("{root}2/value"), "x").await;
    assert_eq!(group.count().await.unwrap(), 1);
    group.done().await.unwrap();
    soon(group.wait()).await.unwrap();
}
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_futures_are_small_enough_to_be_held_by_the_thousand() {
    let place = Place::shared("small").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "g");
    let sizes = [
        size_of_val(&group.wait()),
        size_of_val(&group.wait_after(1)),
        size_of_val(&group.add(1)),
        size_of_val(&group.done()),
        size_of_val(&group.count()),
        size_of_val(&group.workers()),
        size_of_val(&group.enter("x")),
        size_of_val(&group.dismiss("x")),
    ];
    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
}
