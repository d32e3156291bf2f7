//! Transactions whose answers are lost are applied exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sereno_core::{
    Client, Compare, ConnectOptions, Error, Key, Namespace, Once, Op, Outcome, Session, SessionOptions, Step,
    Txn,
};
use sereno_testkit::{Flaky, Member, Mode, Oracle, Proxy, fresh_namespace, shared};

fn options(name: &str) -> ConnectOptions {
    ConnectOptions::default()
        .namespace(Namespace::new(&fresh_namespace(name)).unwrap())
        .attempt(Duration::from_millis(400))
        .deadline(Duration::from_secs(20))
}

/// A textbook counter: read, add, write if unchanged. Not idempotent: each copy that lands counts.
async fn increment(session: &Session, key: &Key) -> Result<i64, Error> {
    session.client().optimistic(|| round(session, key)).await
}

async fn round(session: &Session, key: &Key) -> Result<Step<i64>, Error> {
    let read = session.client().get(key).await?;
    let (value, at) =
        read.map_or((0, 0), |kv| (String::from_utf8_lossy(&kv.value).parse().unwrap(), kv.mod_revision));
    let next: i64 = value + 1;
    let txn = Txn::new().when(Compare::modified_at(key, at)).then(Op::put(key, next.to_string()));
    Ok(match session.commit_once(txn).await? {
        Once::Applied { .. } => Step::Done(next),
        _ => Step::Conflict,
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn ten_thousand_increments_with_answers_lost_at_random_count_exactly() {
    const WORKERS: usize = 8;
    const EACH: usize = 1250;
    let member = Member::single().await;
    let options = options("once");
    let direct = Client::connect_with([member.endpoint()], options.clone()).await.unwrap();
    let mut handles = Vec::new();
    let mut proxies = Vec::new();
    let unknown = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    for worker in 0..WORKERS {
        let proxy = Proxy::to(member.endpoint()).await;
        let client = Client::connect_with([proxy.endpoint()], options.clone()).await.unwrap();
        let session = Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(60)))
            .await
            .unwrap();
        // Each worker has a counter of its own half of the time, and fights for a common one otherwise.
        proxy.set(Mode::Flaky(Flaky::new(0.01, worker as u64))).await;
        let unknown = unknown.clone();
        let prefix = client.namespace().prefix("once").unwrap();
        handles.push(tokio::spawn(async move {
            let (own, common) = (prefix.key(format!("own-{worker}")).unwrap(), prefix.key("common").unwrap());
            let mut told = (Vec::new(), Vec::new());
            for nth in 0..EACH {
                let key = if nth % 10 == 0 { &common } else { &own };
                match increment(&session, key).await {
                    Ok(value) if nth % 10 == 0 => told.1.push(value),
                    Ok(value) => told.0.push(value),
                    Err(error) => {
                        println!("{error} ({error:?})");
                        unknown.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            told
        }));
        proxies.push(proxy);
    }
    let mut common = BTreeSet::new();
    let mut acknowledged = 0;
    for (worker, handle) in handles.into_iter().enumerate() {
        let (own, shared) = handle.await.unwrap();
        acknowledged += own.len() + shared.len();
        let last = read(&direct, &format!("own-{worker}")).await;
        assert_eq!(own, (1..=last).collect::<Vec<i64>>(), "every caller was told its own true value");
        for value in shared {
            assert!(common.insert(value), "two callers were told {value}");
        }
    }
    let faults: u64 = proxies.iter().map(|proxy| proxy.stats().faults()).sum();
    let last = read(&direct, "common").await;
    println!(
        "{acknowledged} increments acknowledged, {faults} faults, {} unknown, {:?}",
        unknown.load(Ordering::Relaxed),
        started.elapsed()
    );
    assert_eq!(common, (1..=last).collect::<BTreeSet<i64>>());
    assert_eq!(acknowledged, WORKERS * EACH);
    assert!(faults > 5, "only {faults} faults: this test proved nothing");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn writes_without_any_condition_land_once_with_answers_lost_at_random() {
    const EACH: i64 = 500;
    let member = Member::single().await;
    let options = options("blind");
    let direct = Client::connect_with([member.endpoint()], options.clone()).await.unwrap();
    let mut workers = Vec::new();
    for worker in 0..4 {
        let proxy = Proxy::to(member.endpoint()).await;
        let client = Client::connect_with([proxy.endpoint()], options.clone()).await.unwrap();
        let session = Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(60)))
            .await
            .unwrap();
        proxy.set(Mode::Flaky(Flaky::new(0.02, worker))).await;
        workers.push(tokio::spawn(async move {
            // Nothing but the marker tells a second copy of this from the next write: etcd counts them in the key's version.
            let key = client.namespace().prefix("once").unwrap().key(format!("blind-{worker}")).unwrap();
            for _ in 0..EACH {
                let once = session.commit_once(Txn::new().then(Op::put(&key, "x"))).await.unwrap();
                assert!(matches!(once, Once::Applied { .. }), "{once:?}");
            }
            (key, proxy.stats().faults())
        }));
    }
    let mut faults = 0;
    for worker in workers {
        let (key, injected) = worker.await.unwrap();
        faults += injected;
        assert_eq!(direct.get(&key).await.unwrap().unwrap().version, EACH, "each write landed once");
    }
    println!("{} writes, {faults} faults", 4 * EACH);
    assert!(faults > 5, "only {faults} faults: this test proved nothing");
}

async fn read(client: &Client, name: &str) -> i64 {
    let key = client.namespace().prefix("once").unwrap().key(name).unwrap();
    client.get(&key).await.unwrap().map_or(0, |kv| String::from_utf8_lossy(&kv.value).parse().unwrap())
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lost_answer_is_told_as_unknown_when_sent_once_and_resolved_when_settled() {
    let endpoints = shared().await;
    let proxy = Proxy::to(&endpoints[0]).await;
    let client = Client::connect_with([proxy.endpoint()], options("unknown")).await.unwrap();
    let oracle = Oracle::connect(&endpoints).await;
    let prefix = client.namespace().prefix("x").unwrap();
    let (a, b) = (prefix.key("a").unwrap(), prefix.key("b").unwrap());
    proxy.drop_responses().await;
    let once = client.commit(&Txn::new().when(Compare::absent(&a)).then(Op::put(&a, "1"))).await.unwrap();
    assert!(matches!(once, Outcome::Unknown(_)), "{once:?}");
    assert_eq!(oracle.get(a.as_bytes()).await.as_deref(), Some(&b"1"[..]), "it was applied all the same");
    let settle = tokio::spawn({
        let (client, b) = (client.clone(), b.clone());
        async move {
            client
                .settle(&Txn::new().when(Compare::absent(&b)).then(Op::put(&b, "1")).otherwise(Op::get(&b)))
                .await
        }
    });
    // The answer follows the write, and must be lost as well: nothing more of it comes for five looks.
    let (mut dropped, mut quiet) = (0, 0);
    sereno_testkit::eventually(Duration::from_secs(60), "the first copy to land", async || {
        let landed = oracle.get(b.as_bytes()).await.is_some();
        let now = proxy.stats().responses_dropped;
        quiet = if landed && now == dropped { quiet + 1 } else { 0 };
        dropped = now;
        (quiet == 5).then_some(())
    })
    .await;
    proxy.pass().await;
    let settled = settle.await.unwrap().unwrap();
    assert!(settled.resent && !settled.reply.succeeded);
    assert_eq!(settled.reply.entry(0).unwrap().version, 1, "applied once");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_dropped_future_leaves_the_operation_done_once_or_not_at_all() {
    let endpoints = shared().await;
    let client = Client::connect_with(&endpoints, options("dropped")).await.unwrap();
    let session = Session::open(&client).await.unwrap();
    let key = client.namespace().prefix("x").unwrap().key("a").unwrap();
    for micros in (0..3000).step_by(100) {
        let txn = Txn::new().then(Op::put(&key, "1"));
        let _ = tokio::time::timeout(Duration::from_micros(micros), session.commit_once(txn)).await;
    }
    // Every operation polled once goes on: closing waits for them.
    session.close().await.unwrap();
    let kv = client.get(&key).await.unwrap().unwrap();
    assert_eq!(kv.version, 30, "one write each, although most callers had gone");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_operation_of_a_lost_epoch_is_refused_and_never_lands() {
    let endpoints = shared().await;
    let client = Client::connect_with(&endpoints, options("fence")).await.unwrap();
    let session = Session::open(&client).await.unwrap();
    let oracle = Oracle::connect(&endpoints).await;
    let key = client.namespace().prefix("x").unwrap().key("a").unwrap();
    let fence = session.epoch().fence();
    let lease = oracle.client().get(session.epoch().key().as_bytes(), None).await.unwrap().kvs()[0].lease();
    assert!(oracle.revoke(lease).await);
    let txn = Txn::new().when(fence).then(Op::put(&key, "1"));
    // Under whichever epoch it is sent, the condition names the lost one.
    let result = session.commit_once(txn).await;
    assert!(matches!(result, Err(Error::SessionLost { .. }) | Ok(Once::NotApplied(_))), "{result:?}");
    assert_eq!(client.get(&key).await.unwrap(), None);
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_reading_that_is_given_up_midway_does_not_bring_etcd_down() {
    // etcd 3.5 before 3.5.7 can panic when a client goes away while it serves a transaction that only reads.
    let member = Member::single().await;
    let client = Client::connect_with([member.endpoint()], options("given-up")).await.unwrap();
    let prefix = client.namespace().prefix("many").unwrap();
    for some in 0..30 {
        let put = |n: i32| Op::put(&prefix.key(format!("{some}-{n}")).unwrap(), vec![b'x'; 1000]);
        client.settle(&(0..100).map(put).fold(Txn::new(), Txn::then)).await.unwrap();
    }
    let before = client.count(&prefix).await.unwrap();
    let read = Txn::new().then(Op::range(&prefix)).then(Op::range_keys(&prefix));
    let mut given_up = 0;
    for round in 0..400 {
        let wait = Duration::from_micros(200 + 25 * (round % 200));
        given_up += u32::from(tokio::time::timeout(wait, client.commit(&read)).await.is_err());
    }
    println!("{given_up} of 400 readings given up");
    assert!(given_up > 50, "too few to prove anything");
    assert!(member.is_running().await);
    assert_eq!(client.count(&prefix).await.unwrap(), before, "reading makes no revision");
    let reply = client.settle(&read).await.unwrap().reply;
    assert_eq!((reply.entries(0).len(), reply.entries(1).len()), (3000, 3000));
}
