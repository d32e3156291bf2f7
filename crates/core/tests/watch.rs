//! Watches on etcd whose wires break: no gap, no duplicate, whole revisions, and silence is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sereno_core::{
    Changes, Client, ConnectOptions, Error, EventKind, Namespace, Overflow, Prefix, Tail, TailItem,
};
use sereno_testkit::{Cluster, Member, Oracle, Proxy, eventually, fresh_namespace};

/// What each revision did: key, and value or deletion.
type History = BTreeMap<i64, Vec<(Vec<u8>, Option<Vec<u8>>)>>;

/// How long silence may go unnoticed on a machine that others use too, where this process stands still now and then. The
/// bound of 2.65 s is checked on paused time, beside the code that keeps it.
const SILENCE: Duration = Duration::from_secs(15);

fn options() -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("watch")).unwrap())
}

async fn client(endpoints: &[String]) -> (Client, Prefix) {
    let client = Client::connect_with(endpoints.iter().cloned(), options()).await.unwrap();
    let prefix = client.namespace().prefix("w").unwrap();
    (client, prefix)
}

/// A client whose member in use is the given one.
async fn client_at(cluster: &Cluster, index: usize) -> (Client, Prefix) {
    let mut own = cluster.member(index).oracle().await.client();
    let wanted = own.status().await.unwrap().header().unwrap().member_id();
    for _ in 0..60 {
        let (client, prefix) = client(&cluster.endpoints()).await;
        let status = client.etcd_client().await.unwrap().status().await.unwrap();
        if status.header().unwrap().member_id() == wanted {
            return (client, prefix);
        }
    }
    panic!("no client chose member {index} first");
}

/// One transaction of one to twenty puts and deletions of different keys.
async fn write(raw: &mut etcd_client::Client, prefix: &Prefix, random: &mut StdRng) {
    use etcd_client::{Txn, TxnOp};
    let count = if random.random_bool(0.3) { random.random_range(2..=20) } else { 1 };
    let start: u32 = random.random_range(0..40);
    let ops = (0..count).map(|n| {
        let key = prefix.key(format!("k{}", (start + n) % 40)).unwrap();
        match random.random_bool(0.1) {
            true => TxnOp::delete(key.as_bytes(), None),
            false => TxnOp::put(key.as_bytes(), format!("{}", random.random::<u64>()), None),
        }
    });
    let txn = Txn::new().and_then(ops.collect::<Vec<_>>());
    // While members are killed its outcome does not matter: the history that etcd kept is the truth.
    let _ = tokio::time::timeout(Duration::from_millis(500), raw.txn(txn)).await;
}

/// What etcd itself kept, read without any fault in between: everything from `from` to a last put made here.
async fn truth(oracle: &Oracle, prefix: &Prefix, from: i64) -> (i64, History) {
    let last = oracle.put(prefix.key("last").unwrap().as_bytes(), "").await;
    let options = etcd_client::WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = oracle.client().watch(prefix.as_bytes(), Some(options)).await.unwrap();
    let mut history = History::new();
    while history.last_key_value().is_none_or(|(revision, _)| *revision < last) {
        let answer = tokio::time::timeout(Duration::from_secs(60), stream.message()).await.unwrap();
        for event in answer.unwrap().unwrap().events() {
            let kv = event.kv().unwrap();
            let put = event.event_type() == etcd_client::EventType::Put;
            let change = (kv.key().to_vec(), put.then(|| kv.value().to_vec()));
            history.entry(kv.mod_revision()).or_default().push(change);
        }
    }
    (last, history)
}

/// Reads a tail up to `last`: each revision once, in order.
async fn follow(tail: &mut Tail, last: impl AsyncFn() -> Option<i64>) -> History {
    let mut history = History::new();
    loop {
        if last().await.is_some_and(|last| history.last_key_value().is_some_and(|(seen, _)| *seen >= last)) {
            return history;
        }
        let item = match tokio::time::timeout(Duration::from_millis(50), tail.next()).await {
            Ok(item) => item.expect("a tail does not end by itself").unwrap(),
            Err(_) => continue,
        };
        let TailItem::Changes(changes) = item else { panic!("{item:?}") };
        let before = history.last_key_value().map_or(0, |(revision, _)| *revision);
        assert!(changes.revision > before, "revision {} came after {before}", changes.revision);
        history.insert(changes.revision, told(changes));
    }
}

fn told(changes: Changes) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let revision = changes.revision;
    let tell = |event: sereno_core::Event| {
        assert_eq!(event.kv.mod_revision, revision);
        (event.kv.key.as_bytes().to_vec(), (event.kind == EventKind::Put).then(|| event.kv.value.to_vec()))
    };
    changes.events.into_iter().map(tell).collect()
}

fn same(seen: &History, truth: &History) {
    let missing: Vec<_> = truth.keys().filter(|revision| !seen.contains_key(revision)).collect();
    let invented: Vec<_> = seen.keys().filter(|revision| !truth.contains_key(revision)).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing {missing:?}, invented {invented:?}");
    for (revision, changes) in truth {
        assert_eq!(&seen[revision], changes, "revision {revision} is not what etcd kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn thousands_of_transactions_arrive_whole_and_once_while_connections_break_at_random() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(&[proxy.endpoint()]).await;
    let from = oracle.revision().await + 1;
    let mut tail = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let mut view = client.watch(&prefix).await.unwrap();

    let writers = (0..4u64).map(|seed| {
        let (mut raw, prefix) = (oracle.client(), prefix.clone());
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..1000 {
                write(&mut raw, &prefix, &mut random).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let (end, ended) = tokio::sync::watch::channel(None);
    let chaos = async {
        let mut random = StdRng::seed_from_u64(99);
        while writers.iter().any(|writer| !writer.is_finished()) {
            tokio::time::sleep(Duration::from_millis(random.random_range(5..60))).await;
            proxy.reset();
        }
        let (last, history) = truth(&oracle, &prefix, from).await;
        end.send(Some(last)).unwrap();
        history
    };
    let (truth, seen) = tokio::join!(chaos, follow(&mut tail, async || *ended.borrow()));
    same(&seen, &truth);
    let last = (*ended.borrow()).unwrap();
    let caught_up = async {
        view.wait(|view| (view.revision() >= last).then_some(())).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), caught_up).await.unwrap();
    let shown: Vec<_> =
        view.view().iter().map(|kv| (kv.key.as_bytes().to_vec(), kv.value.to_vec())).collect();
    assert_eq!(shown, oracle.range(prefix.as_bytes()).await);
    let resets = proxy.stats().resets;
    let several = truth.values().filter(|changes| changes.len() > 1).count();
    println!(
        "{} revisions, {several} of several keys, {resets} connections reset: no gap, no duplicate",
        seen.len()
    );
    assert!(resets >= 3 && several >= 500, "the fault did not happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn nothing_is_lost_or_doubled_while_every_member_is_killed_and_restarted() {
    let cluster = Cluster::start(3).await;
    let oracle = cluster.oracle().await;
    let (client, prefix) = client(&cluster.endpoints()).await;
    let from = oracle.revision().await + 1;
    let mut tail = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let (end, ended) = tokio::sync::watch::channel(None);
    let chaos = async {
        let writers = cluster.members().iter().map(|member| {
            let (endpoint, prefix) = (member.endpoint(), prefix.clone());
            tokio::spawn(async move {
                let mut raw = sereno_testkit::raw(&[endpoint]).await;
                let mut random = StdRng::seed_from_u64(5);
                loop {
                    write(&mut raw, &prefix, &mut random).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        for member in cluster.members().iter().chain(cluster.members()) {
            member.kill().await;
            member.start().await;
            // Each time there is something to miss.
            let asked = member.oracle().await;
            let before = asked.revision().await;
            eventually(Duration::from_secs(60), "writes to go on", async || {
                (asked.revision().await >= before + 30).then_some(())
            })
            .await;
        }
        for writer in writers {
            writer.abort();
        }
        // A copy of the last write may still be under way in the cluster.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let (last, history) = truth(&cluster.member(0).oracle().await, &prefix, from).await;
        end.send(Some(last)).unwrap();
        history
    };
    let started = Instant::now();
    let (truth, seen) = tokio::join!(chaos, follow(&mut tail, async || *ended.borrow()));
    same(&seen, &truth);
    println!("{} revisions over six kill -9 in {:?}: no gap, no duplicate", seen.len(), started.elapsed());
    assert!(seen.len() > 100, "too few writes got through to tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn after_a_compaction_the_view_is_right_and_marked_and_a_tail_says_so() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(&[proxy.endpoint()]).await;
    let key = |name: &str| prefix.key(name).unwrap().as_bytes().to_vec();
    for name in ["gone", "same", "changed", "reborn"] {
        oracle.put(key(name), "before").await;
    }
    let mut view = client.watch(&prefix).await.unwrap();
    let mut tail = client.tail(&prefix, view.view().revision() + 1, Overflow::Pause).await.unwrap();
    proxy.refuse().await;
    oracle.delete(key("gone")).await;
    oracle.put(key("changed"), "between").await;
    oracle.put(key("changed"), "after").await;
    oracle.delete(key("reborn")).await;
    oracle.put(key("reborn"), "after").await;
    oracle.put(key("new"), "after").await;
    let head = oracle.compact_to_head().await;
    proxy.pass().await;

    let update = tokio::time::timeout(Duration::from_secs(60), view.next()).await.unwrap().unwrap().unwrap();
    assert!(update.resync);
    assert!(update.revision >= head);
    let told: Vec<_> = update
        .changes
        .iter()
        .map(|change| match change {
            sereno_core::Change::Put { old, new } => {
                (new.key.clone(), old.as_ref().map(|old| old.value.to_vec()), Some(new.value.to_vec()))
            }
            sereno_core::Change::Deleted { old } => (old.key.clone(), Some(old.value.to_vec()), None),
        })
        .map(|(key, old, new)| format!("{key} {} {}", text(old), text(new)))
        .collect();
    let expected =
        ["gone before -", "reborn before -", "changed before after", "reborn - after", "new - after"];
    assert_eq!(told, expected.map(|line| format!("{prefix}{line}")));
    let shown: Vec<_> =
        view.view().iter().map(|kv| (kv.key.as_bytes().to_vec(), kv.value.to_vec())).collect();
    assert_eq!(shown, oracle.range(prefix.as_bytes()).await);
    // And it goes on from there.
    oracle.put(key("same"), "later").await;
    let update = tokio::time::timeout(Duration::from_secs(60), view.next()).await.unwrap().unwrap().unwrap();
    assert!(!update.resync && update.changes.len() == 1);

    let item = tokio::time::timeout(Duration::from_secs(60), tail.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(item, TailItem::Compacted { revision } if revision == head), "{item:?}");
    assert!(tail.next().await.is_none());
}

fn text(value: Option<Vec<u8>>) -> String {
    value.map_or("-".into(), |value| String::from_utf8(value).unwrap())
}

/// Waits for the next changes of a tail and says how long that took since `since`.
async fn seen_after(tail: &mut Tail, revision: i64, since: Instant) -> Duration {
    let item = tokio::time::timeout(SILENCE, tail.next()).await;
    let item = item.expect("the watch to recover").unwrap().unwrap();
    assert!(matches!(item, TailItem::Changes(changes) if changes.revision == revision));
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stream_that_falls_silent_is_found_and_another_member_used() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxies = [Proxy::to(member.endpoint()).await, Proxy::to(member.endpoint()).await];
    let endpoints: Vec<_> = proxies.iter().map(Proxy::endpoint).collect();
    let (client, prefix) = client(&endpoints).await;
    let key = prefix.key("x").unwrap();
    let mut tail = client.tail(&prefix, oracle.revision().await + 1, Overflow::Pause).await.unwrap();
    let revision = oracle.put(key.as_bytes(), "1").await;
    seen_after(&mut tail, revision, Instant::now()).await;
    let used = proxies.iter().position(|proxy| proxy.stats().open > 0).unwrap();
    let silent = Instant::now();
    proxies[used].blackhole().await;
    let revision = oracle.put(key.as_bytes(), "2").await;
    let recovered = seen_after(&mut tail, revision, silent).await;
    println!("black hole: events flow again after {recovered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_silent_stream_to_the_only_member_is_replaced_when_the_wire_is_back() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(&[proxy.endpoint()]).await;
    let key = prefix.key("x").unwrap();
    let mut tail = client.tail(&prefix, oracle.revision().await + 1, Overflow::Pause).await.unwrap();
    let revision = oracle.put(key.as_bytes(), "1").await;
    seen_after(&mut tail, revision, Instant::now()).await;
    // Bytes are swallowed for good: what was under way never comes, as when a firewall forgets a connection.
    proxy.drop_responses().await;
    let revision = oracle.put(key.as_bytes(), "2").await;
    let connections = proxy.stats().connections;
    let silent = Instant::now();
    eventually(SILENCE, "a new connection", async || (proxy.stats().connections > connections).then_some(()))
        .await;
    println!("silence found after {:?}", silent.elapsed());
    let healed = Instant::now();
    proxy.pass().await;
    println!("events flow {:?} after the wire is back", seen_after(&mut tail, revision, healed).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn a_stopped_member_and_an_isolated_one_are_left_by_their_watches() {
    let cluster = Cluster::builder().size(3).splittable().start().await;
    for fault in ["stopped follower", "isolated follower", "stopped leader"] {
        let leader = cluster.leader().await;
        let others = cluster.followers().await;
        let index = if fault.ends_with("leader") { leader } else { others[0] };
        let oracle = cluster.member(others[1]).oracle().await;
        let (client, prefix) = client_at(&cluster, index).await;
        let key = prefix.key("x").unwrap();
        let mut tail = client.tail(&prefix, oracle.revision().await + 1, Overflow::Pause).await.unwrap();
        let revision = oracle.put(key.as_bytes(), "1").await;
        seen_after(&mut tail, revision, Instant::now()).await;
        let silent = Instant::now();
        if fault.starts_with("isolated") {
            cluster.isolate(index).await;
        } else {
            cluster.member(index).pause().await;
            cluster.leader_other_than(if index == leader { index } else { usize::MAX }).await;
        }
        let revision = oracle.put(key.as_bytes(), "2").await;
        let recovered = seen_after(&mut tail, revision, silent).await;
        println!("{fault}: events flow again after {recovered:?}");
        if fault.starts_with("isolated") {
            cluster.heal().await;
        } else {
            cluster.member(index).resume().await;
        }
        cluster.member(index).wait_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_watch_from_a_compacted_revision_says_so_and_others_on_the_stream_go_on() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let (client, prefix) = client(&[member.endpoint()]).await;
    let key = prefix.key("x").unwrap();
    let from = oracle.put(key.as_bytes(), "1").await;
    oracle.put(key.as_bytes(), "2").await;
    let head = oracle.compact_to_head().await;
    let mut good = client.tail(&prefix, head + 1, Overflow::Pause).await.unwrap();
    let mut late = client.tail(&prefix, from, Overflow::Pause).await.unwrap();
    let item = late.next().await.unwrap().unwrap();
    assert!(matches!(item, TailItem::Compacted { revision } if revision == head), "{item:?}");
    assert!(late.next().await.is_none());
    let revision = oracle.put(key.as_bytes(), "3").await;
    seen_after(&mut good, revision, Instant::now()).await;
    let read = client.range_at(&prefix, from).await;
    assert!(matches!(read, Err(Error::Compacted { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_deletion_that_is_compacted_while_the_watch_is_cut_off_is_not_missed() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (client, prefix) = client(&[proxy.endpoint()]).await;
    let key = prefix.key("gone").unwrap();
    oracle.put(key.as_bytes(), "1").await;
    let mut watcher = client.watch(&prefix).await.unwrap();
    proxy.refuse().await;
    // The very next revision, and the last one: etcd takes a watch from here on for whole, and has nothing to tell.
    oracle.delete(key.as_bytes()).await;
    oracle.compact_to_head().await;
    proxy.pass().await;
    let update =
        tokio::time::timeout(Duration::from_secs(60), watcher.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&update.changes[..], [sereno_core::Change::Deleted { .. }]), "{update:?}");
    assert_eq!(watcher.view().len(), 0);
}
