//! What watches cost in memory, here and in etcd. In a file of its own: other tests' memory would be counted too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{Changes, Client, ConnectOptions, Namespace, Overflow, Prefix, Tail, TailItem};
use sereno_testkit::{Member, eventually, fresh_namespace};
use tokio::sync::Mutex;

/// One at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

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

/// Resident memory of this process, in bytes.
fn resident() -> i64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

async fn gauge(member: &Member, name: &str) -> f64 {
    member.metrics().await.get(name).unwrap()
}

async fn watches(member: &Member, streams: f64, watchers: f64) {
    eventually(Duration::from_secs(60), "the server's watches to be as many", async || {
        let metrics = member.metrics().await;
        let now = (metrics.get(STREAMS).unwrap(), metrics.get(WATCHERS).unwrap());
        (now == (streams, watchers)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: memory of its own"]
async fn five_thousand_watched_names_share_one_stream_and_dropping_them_frees_the_server() {
    const NAMES: usize = 5000;
    let _alone = ALONE.lock().await;
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let (client, prefix) = client(member.endpoint()).await;
    let from = oracle.revision().await + 1;
    let key = |n: usize| prefix.key(format!("name-{n:05}")).unwrap();
    // Whatever the first watch alone costs is not counted.
    let first = client.tail(&key(NAMES), from, Overflow::Pause).await.unwrap();
    watches(&member, 1.0, 1.0).await;
    let (here, there) = (resident(), gauge(&member, "process_resident_memory_bytes").await);
    let started = Instant::now();
    let mut tails = Vec::with_capacity(NAMES);
    for n in 0..NAMES {
        tails.push(client.tail(&key(n), from, Overflow::Pause).await.unwrap());
    }
    watches(&member, 1.0, NAMES as f64 + 1.0).await;
    let here = (resident() - here) / NAMES as i64;
    let there = (gauge(&member, "process_resident_memory_bytes").await - there) as i64 / NAMES as i64;
    println!(
        "{NAMES} watches on one stream in {:?}: {here} bytes each here, {there} in etcd",
        started.elapsed()
    );
    assert!(here < 4 << 10, "{here} bytes per watch");
    for n in (0..NAMES).step_by(100) {
        let revision = oracle.put(key(n).as_bytes(), "x").await;
        let changes = next(&mut tails[n]).await;
        assert_eq!((changes.revision, changes.events.len()), (revision, 1));
    }
    let started = Instant::now();
    drop(tails);
    watches(&member, 1.0, 1.0).await;
    println!("{NAMES} dropped watches were cancelled in etcd within {:?}", started.elapsed());
    drop(first);
    watches(&member, 0.0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: memory of its own"]
async fn what_a_stalled_consumer_has_not_read_stays_in_etcd_and_not_in_memory() {
    const VALUES: u8 = 64;
    let _alone = ALONE.lock().await;
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let (client, prefix) = client(member.endpoint()).await;
    let key = prefix.key("k").unwrap();
    let from = oracle.revision().await + 1;
    let mut stalled = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let mut reader = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let before = resident();
    for n in 0..VALUES {
        oracle.put(key.as_bytes(), vec![n; 1 << 20]).await;
        assert_eq!(next(&mut reader).await.events[0].kv.value[0], n);
    }
    let grown = (resident() - before) >> 20;
    println!("{VALUES} MiB passed a stalled consumer; this process grew by {grown} MiB");
    assert!(grown < 40, "{grown} MiB");
    for n in 0..VALUES {
        assert_eq!(next(&mut stalled).await.events[0].kv.value[0], n);
    }
}
