//! Counting while things break.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{NAME, Place, SOON, assert_gapless};
use sereno_counter::core::{Client, Error as CoreError};
use sereno_counter::{Counter, CounterOptions, Error};
use sereno_testkit::{Cluster, Member, Proxy, eventually};
use tokio::time::timeout;

/// What callers were told, and what it must come to.
#[derive(Debug, Default)]
struct Account {
    values: Vec<i64>,
    /// Applied, value not known.
    applied: u64,
    /// Nobody knows.
    unknown: u64,
    /// Not applied.
    refused: u64,
}

impl Account {
    fn take(&mut self, answer: Result<i64, Error>) {
        match answer {
            Ok(value) => self.values.push(value),
            Err(Error::Core(CoreError::ValueUnknown { .. })) => self.applied += 1,
            Err(error) if error.is_outcome_unknown() => self.unknown += 1,
            Err(error) if error.is_retryable() => self.refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
        self.applied += other.applied;
        self.unknown += other.unknown;
        self.refused += other.refused;
    }

    /// Nobody was told something false: all values are distinct and of the range that was counted; the count lies between
    /// what was certainly applied and what may have been.
    fn check(&self, end: i64) {
        let distinct: BTreeSet<_> = self.values.iter().collect();
        assert_eq!(distinct.len(), self.values.len(), "two were told the same");
        assert!(distinct.iter().all(|value| (1..=end).contains(*value)), "a value that never was");
        let applied = self.values.len() as i64 + self.applied as i64;
        assert!(
            (applied..=applied + self.unknown as i64).contains(&end),
            "{applied} applied, {} unknown, but the value is {end}",
            self.unknown
        );
    }
}

/// Adds from so many tasks until told to stop.
async fn load(counter: Counter, tasks: usize, stop: Arc<AtomicBool>) -> Account {
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (counter, stop) = (counter.clone(), stop.clone());
            tokio::spawn(async move {
                let mut account = Account::default();
                while !stop.load(Ordering::Relaxed) {
                    account.take(counter.add(1).await);
                }
                account
            })
        })
        .collect();
    let mut all = Account::default();
    for task in running {
        all.merge(task.await.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn sessions_lost_in_the_middle_of_load_lose_and_double_nothing() {
    let mut place = Place::shared("counter-session-lost").await;
    place.ttl = Duration::from_secs(5);
    let stop = Arc::new(AtomicBool::new(false));
    let mut sessions = Vec::new();
    let mut running = Vec::new();
    for _ in 0..3 {
        let session = place.session().await;
        running.push(tokio::spawn(load(Counter::new(&session, NAME), 8, stop.clone())));
        sessions.push(session);
    }
    let watching = place.counter().await;
    for round in 0..6 {
        let session = &sessions[round % 3];
        let epoch = session.epoch().number();
        let before = watching.get().await.unwrap();
        place.revoke(session).await;
        timeout(SOON, session.next_epoch(epoch)).await.unwrap().unwrap();
        eventually(SOON, "counting to go on", async || {
            (watching.get().await.unwrap() > before + 50).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Account::default();
    for session in running {
        all.merge(session.await.unwrap());
    }
    let end = watching.get().await.unwrap();
    all.check(end);
    assert_eq!((all.unknown, all.applied, all.refused), (0, 0, 0), "the wire was good: everything is known");
    assert_gapless(all.values, 1, usize::try_from(end).unwrap());
    assert!(sessions.iter().all(|session| session.epoch().number() == 3));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn etcd_killed_and_restarted_in_the_middle_of_load_loses_and_doubles_nothing() {
    let member = Member::single().await;
    let mut place = Place::at("counter-restart", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(20);
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(tokio::spawn(load(place.counter().await, 8, stop.clone())));
    }
    let watching = place.counter().await;
    let mut changes = watching.watch().await.unwrap();
    let mut last = 0;
    for _ in 0..4 {
        member.kill().await;
        member.start().await;
        let before = watching.get().await.unwrap();
        while last <= before + 50 {
            let value = timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap();
            assert!(value > last, "the watch went back from {last} to {value}");
            last = value;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Account::default();
    for session in running {
        all.merge(session.await.unwrap());
    }
    let end = watching.get().await.unwrap();
    all.check(end);
    assert_eq!((all.unknown, all.refused), (0, 0), "the deadline was long enough to learn everything");
    assert_gapless(all.values, 1, usize::try_from(end).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real etcd: three members"]
async fn the_leader_killed_in_the_middle_of_load_loses_and_doubles_nothing() {
    let cluster = Cluster::start(3).await;
    let mut place = Place::at("counter-leader", cluster.endpoints());
    place.deadline = Duration::from_secs(20);
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(tokio::spawn(load(place.counter().await, 8, stop.clone())));
    }
    let watching = place.counter().await;
    for _ in 0..2 {
        let before = watching.get().await.unwrap();
        let killed = cluster.kill_leader().await;
        eventually(SOON, "counting to go on", async || {
            watching.get().await.ok().filter(|value| *value > before + 100)
        })
        .await;
        cluster.member(killed).start().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Account::default();
    for session in running {
        all.merge(session.await.unwrap());
    }
    let end = watching.get().await.unwrap();
    all.check(end);
    assert_eq!((all.unknown, all.refused), (0, 0), "the deadline was long enough to learn everything");
    assert_gapless(all.values, 1, usize::try_from(end).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn against_silence_every_verb_ends_in_time_and_tells_what_it_knows() {
    let member = Member::single().await;
    let mut place = Place::at("counter-silence", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(3);
    let proxy = Proxy::to(member.endpoint()).await;
    let counter = Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME);
    counter.add(1).await.unwrap();
    proxy.blackhole().await;
    let mut running = Vec::new();
    for at in 0..8u64 {
        let counter = counter.clone();
        running.push(tokio::spawn(async move {
            // One after the other, so that most wait behind the first.
            tokio::time::sleep(Duration::from_millis(at * 20)).await;
            let started = Instant::now();
            let answer = match at % 4 {
                0 | 1 => counter.add(1).await.map(drop),
                2 => counter.compare_and_set(1, 2).await,
                _ => counter.get().await.map(drop),
            };
            (answer.unwrap_err(), started.elapsed())
        }));
    }
    let mut unknown = 0;
    for task in running {
        let (error, took) = task.await.unwrap();
        assert!(took < Duration::from_millis(4500), "{took:?}: {error:?}");
        assert!(error.is_outcome_unknown() || error.is_retryable(), "{error:?}");
        unknown += u64::from(error.is_outcome_unknown());
    }
    assert!((1..=3).contains(&unknown), "only what was sent is unknown: {unknown}");
    proxy.pass().await;
    let counted = eventually(SOON, "the counter to answer", async || counter.add(1).await.ok()).await;
    assert!((2..=5).contains(&counted), "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_was_taken_back_in_time_is_not_applied() {
    let member = Member::single().await;
    let mut place = Place::at("counter-withdrawn", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(10);
    let proxy = Proxy::to(member.endpoint()).await;
    let counter = Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME);
    counter.add(1).await.unwrap();
    proxy.blackhole().await;
    let first = tokio::spawn({
        let counter = counter.clone();
        async move { counter.add(10).await }
    });
    // These wait behind it and give up before they are sent; only the first of them may have been quicker than it.
    for _ in 0..20 {
        assert!(timeout(Duration::from_millis(5), counter.add(1000)).await.is_err());
    }
    proxy.pass().await;
    timeout(SOON, first).await.unwrap().unwrap().unwrap();
    let after = counter.add(1).await.unwrap();
    assert!(after == 12 || after == 1012, "{after}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_survives_compaction_and_ends_at_the_right_value() {
    let member = Member::single().await;
    let place = Place::at("counter-watch-compaction", vec![member.endpoint()]);
    let proxy = Proxy::to(member.endpoint()).await;
    let watching = Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME);
    let counter = place.counter().await;
    counter.add(1).await.unwrap();
    let mut changes = watching.watch().await.unwrap();
    assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 1);
    proxy.refuse().await;
    for _ in 0..20 {
        counter.add(1).await.unwrap();
    }
    member.oracle().await.compact_to_head().await;
    counter.add(1).await.unwrap();
    proxy.pass().await;
    let mut last = 1;
    while last < 22 {
        // While the wire is down the range cannot be read again; that is told, and tried again.
        match timeout(SOON, changes.next()).await.unwrap().unwrap() {
            Ok(value) => {
                assert!(value > last, "{value} after {last}");
                last = value;
            }
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    assert_eq!(last, 22);
    counter.add(-22).await.unwrap();
    assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn closing_ends_in_time_with_etcd_gone_and_loses_nothing() {
    let member = Member::single().await;
    let mut place = Place::at("counter-close-gone", vec![member.endpoint()]);
    place.deadline = Duration::from_secs(4);
    place.ttl = Duration::from_secs(3);
    let session = place.session().await;
    let counter = Counter::with_options(&session, NAME, CounterOptions::default());
    assert_eq!(counter.add(7).await.unwrap(), 7);
    member.kill().await;
    let started = Instant::now();
    drop(session.close().await);
    // One deadline for all of it, where draining and closing once took one each and more.
    assert!(started.elapsed() < 2 * place.deadline, "{:?}", started.elapsed());
    assert!(counter.add(1).await.unwrap_err().is_session_lost());
    member.start().await;
    place.deadline = Duration::from_secs(10);
    let other = place.counter().await;
    assert_eq!(other.get().await.unwrap(), 7);
    let folded = async || {
        other.add(0).await.unwrap();
        place.stored().await.iter().any(|(key, _)| key.starts_with("folded/")).then_some(())
    };
    eventually(SOON, "the cell of the closed session to be folded", folded).await;
    assert_eq!(other.get().await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_counter_made_while_etcd_is_away_counts_when_it_is_back() {
    let member = Member::single().await;
    let place = Place::at("counter-away", vec![member.endpoint()]);
    let client: Client = place.client().await;
    let session = sereno_counter::core::Session::open(&client).await.unwrap();
    member.kill().await;
    let counter = Counter::new(&session, NAME);
    let adding = tokio::spawn(async move { counter.add(3).await });
    member.start().await;
    assert_eq!(timeout(SOON, adding).await.unwrap().unwrap().unwrap(), 3);
}
