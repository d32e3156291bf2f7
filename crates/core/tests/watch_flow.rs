//! Watches on etcd under load: large backlogs, split revisions, consumers that do not keep up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{Changes, Client, ConnectOptions, Error, Namespace, Overflow, Prefix, Tail, TailItem};
use sereno_testkit::{Member, Oracle, Proxy, eventually, fresh_namespace};

const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

async fn client(endpoint: String) -> (Client, Prefix) {
    let namespace = Namespace::new(&fresh_namespace("flow")).unwrap();
    let options = ConnectOptions::default().namespace(namespace);
    let client = Client::connect_with([endpoint], options).await.unwrap();
    let prefix = client.namespace().prefix("w").unwrap();
    (client, prefix)
}

async fn next(tail: &mut Tail) -> Changes {
    let item = tokio::time::timeout(Duration::from_secs(60), tail.next()).await;
    match item.expect("an event to come").expect("the tail to go on").unwrap() {
        TailItem::Changes(changes) => changes,
        other => panic!("{other:?}"),
    }
}

async fn watches(member: &Member, streams: f64, watchers: f64) {
    eventually(Duration::from_secs(60), "the server's watches to be as many", async || {
        let metrics = member.metrics().await;
        let now = (metrics.get(STREAMS).unwrap(), metrics.get(WATCHERS).unwrap());
        (now == (streams, watchers)).then_some(())
    })
    .await;
}

/// Puts all of these in one transaction.
async fn put_all(oracle: &Oracle, puts: Vec<(Vec<u8>, Vec<u8>)>) -> i64 {
    let puts = puts.into_iter().map(|(key, value)| etcd_client::TxnOp::put(key, value, None));
    let txn = etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>());
    oracle.client().txn(txn).await.unwrap().header().unwrap().revision()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_backlog_of_twenty_values_of_one_mebibyte_arrives_completely() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(proxy.endpoint()).await;
    let mut tail = client.tail(&prefix, oracle.revision().await + 1, Overflow::Pause).await.unwrap();
    let key = |n: usize| prefix.key(format!("{n:03}")).unwrap().as_bytes().to_vec();
    oracle.put(key(0), "").await;
    next(&mut tail).await;
    proxy.refuse().await;
    let mut revisions = Vec::new();
    for n in 1..=20 {
        revisions.push(oracle.put(key(n), vec![n as u8; 1 << 20]).await);
    }
    let started = Instant::now();
    proxy.pass().await;
    for (n, revision) in (1..=20).zip(revisions) {
        let changes = next(&mut tail).await;
        assert_eq!((changes.revision, changes.events.len()), (revision, 1));
        assert_eq!(changes.events[0].kv.value.as_ref(), vec![n as u8; 1 << 20]);
    }
    println!("20 MiB of backlog in {:?}", started.elapsed());
    // And the stream is not poisoned.
    let revision = oracle.put(key(0), "later").await;
    assert_eq!(next(&mut tail).await.revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: etcd's flags"]
async fn revisions_that_etcd_splits_into_fragments_are_delivered_whole() {
    // Fragments are cut where the size of a request may end: 4 MiB and 512 KiB here.
    let member = Member::builder().flag("--max-request-bytes=4194304").start_one().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(proxy.endpoint()).await;
    let from = oracle.revision().await + 1;
    let mut live = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let key = |n: usize| prefix.key(format!("{n:03}")).unwrap().as_bytes().to_vec();
    let many = || (0..128).map(|n| (key(n), vec![7; 10 << 10])).collect::<Vec<_>>();
    let large = || (0..3).map(|n| (key(n), vec![9; 1 << 20])).collect::<Vec<_>>();
    let mut expected = Vec::new();
    for round in 0..2 {
        if round == 1 {
            // Now as a backlog, which etcd sends in one piece and cuts anywhere.
            proxy.refuse().await;
        }
        for _ in 0..3 {
            expected.push((put_all(&oracle, many()).await, 128, 128 * (10 << 10)));
            expected.push((put_all(&oracle, large()).await, 3, 3 << 20));
        }
        if round == 1 {
            proxy.pass().await;
        }
        let mut late = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
        let seen = async |tail: &mut Tail, expected: &[(i64, usize, usize)]| {
            for (revision, events, bytes) in expected {
                let changes = next(tail).await;
                let size: usize = changes.events.iter().map(|event| event.kv.value.len()).sum();
                assert_eq!((changes.revision, changes.events.len(), size), (*revision, *events, *bytes));
            }
        };
        seen(&mut live, &expected[round * 6..]).await;
        seen(&mut late, &expected).await;
    }
    // And when the connection breaks in the middle of one.
    let mut cut = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let reader = async {
        for (revision, events, _) in &expected {
            let changes = next(&mut cut).await;
            assert_eq!((changes.revision, changes.events.len()), (*revision, *events));
        }
    };
    let breaker = async {
        // Each time some way into the second fragment.
        for extra in [1, 2, 3, 1, 2] {
            let before = proxy.stats().bytes_to_client;
            while proxy.stats().bytes_to_client < before + ((9 + extra) << 19) {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            proxy.reset();
        }
    };
    tokio::select! {
        () = reader => {}
        () = async { breaker.await; std::future::pending().await } => {}
    }
    println!("{} revisions of 1.25 and 3 MiB, live and as a backlog, each whole", expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn one_stalled_consumer_of_ten_holds_nobody_back_and_sees_everything_when_it_wakes() {
    const PUTS: usize = 3000;
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let (client, prefix) = client(member.endpoint()).await;
    let from = oracle.revision().await + 1;
    let mut stalled = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let mut dropping = client.tail(&prefix, from, Overflow::DropOldest).await.unwrap();
    let mut ending = client.tail(&prefix, from, Overflow::End).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..7 {
        let mut tail = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut latest = Duration::ZERO;
            let mut revisions = Vec::with_capacity(PUTS);
            while revisions.len() < PUTS {
                let changes = next(&mut tail).await;
                let sent: u64 = std::str::from_utf8(&changes.events[0].kv.value).unwrap().parse().unwrap();
                latest = latest.max(since_start().saturating_sub(Duration::from_nanos(sent)));
                revisions.push(changes.revision);
            }
            (revisions, latest)
        }));
    }
    let key = prefix.key("k").unwrap();
    let mut revisions = Vec::with_capacity(PUTS);
    for _ in 0..PUTS {
        revisions.push(oracle.put(key.as_bytes(), since_start().as_nanos().to_string()).await);
    }
    for reader in readers {
        let (seen, latest) = reader.await.unwrap();
        assert_eq!(seen, revisions);
        println!("a reader beside a stalled one saw all {PUTS}, the latest after {latest:?}");
        assert!(
            latest < Duration::from_secs(60),
            "{latest:?}: not held back for as long as the other one stalls"
        );
    }
    for revision in &revisions {
        assert_eq!(next(&mut stalled).await.revision, *revision, "what waited in etcd comes in order");
    }
    let TailItem::Missed(missed) = dropping.next().await.unwrap().unwrap() else {
        panic!("nothing was missed")
    };
    let missed = usize::try_from(missed).unwrap();
    println!("the queue that drops the oldest missed {missed} and kept {}", PUTS - missed);
    assert!(PUTS - missed <= 1024);
    for revision in &revisions[missed..] {
        assert_eq!(next(&mut dropping).await.revision, *revision);
    }
    let mut seen = 0;
    let error = loop {
        match ending.next().await.expect("the error comes before the end") {
            Ok(TailItem::Changes(changes)) => assert_eq!(changes.revision, revisions[seen]),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        seen += 1;
    };
    assert!(matches!(error, Error::TooLarge { what: "backlog", .. }), "{error:?}");
    assert!(ending.next().await.is_none());
    // Everybody who still watches is on the stream again.
    watches(&member, 1.0, 2.0).await;
}

/// Time since the first call.
fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
