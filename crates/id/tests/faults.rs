//! What breaks underneath, and that no id is ever repeated for it.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{
    LONG, Set, ascending, client_of, distinct, lease_of, place, read_ids, reserved, session, take_all_but,
    to_line, worker_key,
};
use sereno_id::core::Session;
use sereno_id::{Clock, Error, IdGenerator, IdOptions, decompose};
use sereno_testkit::{ChildHost, ChildProcess, Member, Proxy, child, eventually, fresh_namespace, shared};

const SECOND: Duration = Duration::from_secs(1);

/// Reserves no more than must be, so that a worker id can be had again soon.
fn short() -> IdOptions {
    IdOptions::default().ahead(SECOND)
}

/// Opens a generator as soon as one can be had.
async fn open_when_free(session: &Session, options: IdOptions) -> IdGenerator {
    eventually(LONG, "a free worker id", async || {
        match IdGenerator::open_with(session, options.clone()).await {
            Ok(generator) => Some(generator),
            Err(Error::Exhausted | Error::ClockBehind { .. }) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_all_65_536_worker_ids_are_taken_that_is_a_typed_error() {
    let (client, oracle) = place("exhausted").await;
    let session = session(&client, 15).await;
    take_all_but(&client, &[]).await;
    let started = Instant::now();
    let refused = IdGenerator::open(&session).await.unwrap_err();
    println!("65,536 taken worker ids were looked through in {:?}", started.elapsed());
    assert!(matches!(refused, Error::Exhausted), "{refused:?}");
    oracle.delete(worker_key(&client, 12_345)).await;
    assert_eq!(IdGenerator::open(&session).await.unwrap().workers(), [12_345]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_revoked_lease_stops_the_generator_before_another_one_gets_its_worker_id() {
    let (client, oracle) = place("revoked").await;
    let (mine, theirs) = (session(&client, 15).await, session(&client, 15).await);
    take_all_but(&client, &[5]).await;
    let generator = IdGenerator::open_with(&mine, short()).await.unwrap();
    let maker = tokio::spawn({
        let generator = generator.clone();
        async move {
            let mut ids = Vec::new();
            loop {
                match generator.next_id().await {
                    Ok(id) => ids.push(id),
                    Err(error) => return (ids, error, Instant::now()),
                }
            }
        }
    });
    eventually(LONG, "ids being made", async || {
        (reserved(&client, &oracle, 5).await > Clock::system().now() + SECOND * 3 / 4).then_some(())
    })
    .await;
    let revoked = Instant::now();
    assert!(oracle.revoke(lease_of(&oracle, worker_key(&client, 5)).await).await);
    let other = open_when_free(&theirs, short()).await;
    let opened = Instant::now();
    assert_eq!(other.workers(), [5], "the very same worker id");
    let (mut all, error, stopped) = tokio::time::timeout(LONG, maker).await.unwrap().unwrap();
    assert!(error.is_session_lost(), "{error:?}");
    println!(
        "stopped {:?} after the revocation, the worker id was reused after {:?}",
        stopped - revoked,
        opened - revoked
    );
    assert!(stopped < opened, "it stopped before");
    assert!(!all.is_empty());
    all.extend(other.next_ids(1000).await.unwrap());
    assert!(ascending(&all), "and what the next one makes is later than all of it");

    assert!(generator.next_id().await.unwrap_err().is_session_lost(), "it does not come back by itself");
    other.close().await.unwrap();
    eventually(LONG, "reopening", async || generator.reopen().await.ok()).await;
    assert_eq!(mine.epoch().number(), 2);
    all.extend(generator.next_ids(1000).await.unwrap());
    assert!(ascending(&all));
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_starved_runtime_makes_no_id_after_its_lease_although_no_task_has_noticed_yet() {
    let (client, _) = place("starved").await;
    let session = session(&client, 3).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    generator.next_id().await.unwrap();
    let ttl = session.epoch().ttl();
    // The fault itself: the only thread is taken away, so that no heartbeat is sent and no timer runs.
    std::thread::sleep(ttl);
    assert_eq!(session.epoch().ended(), None, "nobody has noticed");
    let refused = generator.next_id().await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
}

fn maker(endpoint: &str, namespace: &str) -> ChildProcess {
    ChildHost::new("child_entry", "maker").argument(endpoint).argument(namespace).spawn()
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("maker") {
        return; // Run by hand.
    }
    let client = client_of(&child::argument(0), &child::argument(1)).await;
    let session = session(&client, 5).await;
    let generator = IdGenerator::open_with(&session, short()).await.unwrap();
    loop {
        match generator.next_ids(50).await {
            Ok(ids) => child::say(&format!("ids {}", to_line(&ids))),
            Err(error) => return child::say(&format!("lost: {}", error.is_session_lost())),
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_process_stopped_longer_than_its_lease_makes_no_id_that_its_successor_makes() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("stopped");
    let client = client_of(&endpoints[0], &namespace).await;
    take_all_but(&client, &[9]).await;
    let session = session(&client, 15).await;
    let mut stopped = maker(&endpoints[0], &namespace);
    let mut all = common::from_line(&stopped.wait_for("ids ", LONG).await);
    stopped.pause();
    let successor = open_when_free(&session, short()).await;
    assert_eq!(successor.workers(), [9]);
    let made = successor.next_ids(1000).await.unwrap();
    stopped.resume();
    // While it still says what it had made before, and finds out.
    let more = successor.next_ids(10_000).await.unwrap();
    let (ids, end) = read_ids(&mut stopped).await;
    assert_eq!(end, "lost: true");
    all.extend(ids);
    println!(
        "{} ids before it was stopped, none after; {} by its successor",
        all.len(),
        made.len() + more.len()
    );
    assert!(all.iter().max() < made.iter().min(), "all of its ids are earlier");
    all.extend(made);
    all.extend(more);
    assert!(distinct(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_killed_process_leaves_a_mark_that_its_successor_respects_even_with_a_clock_set_back() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("killed");
    let client = client_of(&endpoints[0], &namespace).await;
    take_all_but(&client, &[9]).await;
    let session = session(&client, 15).await;
    let mut killed = maker(&endpoints[0], &namespace);
    let mut all = common::from_line(&killed.wait_for("ids ", LONG).await);
    killed.kill();
    while let Some(line) = killed.next_line(LONG).await {
        all.extend(line.strip_prefix("ids ").map(common::from_line).unwrap_or_default());
    }
    let set = Set::new();
    set.back(120 * SECOND);
    let options = short().clock(set.clock());
    let refused = eventually(LONG, "the lease to run out", async || {
        match IdGenerator::open_with(&session, options.clone()).await {
            Err(Error::Exhausted) => None,
            outcome => Some(outcome.unwrap_err()),
        }
    })
    .await;
    assert!(matches!(refused, Error::ClockBehind { behind } if behind > 50 * SECOND), "{refused:?}");
    set.forward(120 * SECOND);
    let successor = open_when_free(&session, options).await;
    assert_eq!(successor.workers(), [9]);
    let made = successor.next_ids(1000).await.unwrap();
    assert!(all.iter().max() < made.iter().min());
    all.extend(made);
    assert!(distinct(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn with_etcd_away_ids_go_on_until_the_session_is_lost_and_not_beyond() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = client_of(&proxy.endpoint(), "away").await;
    let session = session(&client, 3).await;
    let generator = IdGenerator::open(&session).await.unwrap();
    let mut all = generator.next_ids(100).await.unwrap();
    proxy.blackhole().await;
    let away = Instant::now();
    let epoch = session.epoch();
    let error = loop {
        match generator.next_ids(100).await {
            Ok(ids) => {
                all.extend(ids);
                assert!(away.elapsed() < LONG);
            }
            Err(error) => break error,
        }
    };
    let until = epoch.valid_until();
    println!("ids went on for {:?} with etcd away; then: {error}", away.elapsed());
    assert!(error.is_session_lost(), "{error:?}");
    assert!(away.elapsed() > SECOND, "the reserved time lasted for as long as the session");
    assert!(Instant::now().saturating_duration_since(until) < 5 * SECOND, "and ended with it");
    let lost = Instant::now();
    assert!(generator.reopen().await.is_err(), "there is nobody to lease a worker id from");
    assert!(lost.elapsed() < client.deadline() + 3 * SECOND, "{:?}", lost.elapsed());
    proxy.pass().await;
    eventually(LONG, "reopening", async || generator.reopen().await.ok()).await;
    all.extend(generator.next_ids(100).await.unwrap());
    assert!(ascending(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_the_reserved_time_is_used_up_with_etcd_away_that_is_an_error_and_ids_go_on_when_it_is_back() {
    let member = Member::single().await;
    let client = client_of(&member.endpoint(), "usedup").await;
    let session = session(&client, 60).await;
    let generator = IdGenerator::open_with(&session, short()).await.unwrap();
    let worker = generator.workers();
    let mut all = generator.next_ids(100).await.unwrap();
    member.kill().await;
    let oracle_mark = decompose(all[99]).time + 2 * SECOND;
    let error = loop {
        let asked = Instant::now();
        match generator.next_ids(100).await {
            Ok(ids) => all.extend(ids),
            Err(error) => {
                let bound = client.deadline() + 3 * SECOND;
                assert!(asked.elapsed() < bound, "bounded: {:?}", asked.elapsed());
                break error;
            }
        }
        assert!(decompose(all[all.len() - 1]).time < oracle_mark, "nothing beyond what was reserved");
    };
    println!("{} ids, then: {error:?}", all.len());
    assert!(error.is_retryable() && !error.is_session_lost(), "{error:?}");
    member.start().await;
    let more = eventually(LONG, "ids", async || generator.next_ids(100).await.ok()).await;
    all.extend(more);
    assert!(ascending(&all));
    assert_eq!(generator.workers(), worker, "the same worker id: the lease outlived the restart");
    assert_eq!(session.epoch().number(), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_worker_key_deleted_underneath_ends_the_generator_with_the_time_it_had_reserved() {
    let (client, oracle) = place("taken").await;
    let (mine, theirs) = (session(&client, 15).await, session(&client, 15).await);
    take_all_but(&client, &[3]).await;
    let generator = IdGenerator::open_with(&mine, short()).await.unwrap();
    let mut all = generator.next_ids(100).await.unwrap();
    oracle.delete(worker_key(&client, 3)).await;
    let thief = async {
        let thief = open_when_free(&theirs, short()).await;
        assert_eq!(thief.workers(), [3]);
        let ids = thief.next_ids(1000).await.unwrap();
        (thief, ids)
    };
    let robbed = async {
        loop {
            match generator.next_ids(10).await {
                Ok(ids) => all.extend(ids),
                Err(error) => return error,
            }
        }
    };
    let ((thief, stolen), error) = tokio::join!(thief, robbed);
    assert!(matches!(error, Error::WorkerLost { worker: 3 }), "{error:?}");
    assert!(matches!(generator.next_id().await, Err(Error::WorkerLost { worker: 3 })), "for good");
    assert!(all.iter().max() < stolen.iter().min());
    oracle.delete(worker_key(&client, 4)).await;
    generator.reopen().await.unwrap();
    assert_eq!((generator.workers(), thief.workers()), (vec![4], vec![3]));
    all.extend(stolen);
    all.extend(generator.next_ids(1000).await.unwrap());
    assert!(distinct(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn lost_answers_neither_leak_worker_ids_nor_repeat_ids() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = client_of(&proxy.endpoint(), "flaky").await;
    let direct = client_of(&member.endpoint(), "flaky").await;
    let oracle = member.oracle().await;
    let workers = client.namespace().prefix("id").unwrap().join("workers").unwrap();
    let session = session(&client, 60).await;
    let set = Set::new();
    let options = IdOptions::default().workers(2).clock(set.clock());
    let before = proxy.stats();
    proxy.flaky(0.1, 7).await;
    let mut all = Vec::new();
    let mut opened = 0;
    let started = Instant::now();
    while opened < 20 && started.elapsed() < LONG {
        let Ok(generator) = IdGenerator::open_with(&session, options.clone()).await else { continue };
        opened += 1;
        for _ in 0..5 {
            if let Ok(ids) = generator.next_ids(10).await {
                all.extend(ids);
            }
            // Each time the reserved time is used up.
            set.forward(60 * SECOND);
        }
        let _ = generator.close().await;
    }
    let faults = proxy.stats().faults() - before.faults();
    println!("{opened} generators, {} ids, {faults} faults", all.len());
    assert!(faults > 5, "the faults must have happened: {faults}");
    assert_eq!(opened, 20);
    assert!(!all.is_empty() && distinct(&all));
    proxy.pass().await;
    session.close().await.unwrap();
    let left = oracle.range(workers.as_bytes()).await;
    assert_eq!(left.len(), 0, "{left:?}");
    let other = common::session(&direct, 15).await;
    let late = IdGenerator::open_with(&other, options).await.unwrap();
    assert!(distinct(&[all, late.next_ids(1000).await.unwrap()].concat()));
}
