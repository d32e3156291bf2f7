//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sereno_id::Clock;
use sereno_id::core::{Client, ConnectOptions, Namespace, Op, Prefix, Session, SessionOptions, Txn};
use sereno_testkit::{ChildProcess, Oracle, fresh_namespace, shared};

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A client in a namespace of its own.
pub(crate) async fn client_of(endpoint: &str, namespace: &str) -> Client {
    let options = ConnectOptions::default().namespace(Namespace::new(namespace).unwrap());
    Client::connect_with([endpoint], options).await.unwrap()
}

/// As [`place`], with a client whose calls may take long: for tests that read all 65,536 worker ids on a slow machine.
pub(crate) async fn patient_place(test: &str) -> (Client, Oracle) {
    let endpoints = shared().await;
    let options = ConnectOptions::default()
        .namespace(Namespace::new(&fresh_namespace(test)).unwrap())
        .deadline(Duration::from_secs(60));
    let client = Client::connect_with([&endpoints[0]], options).await.unwrap();
    (client, Oracle::connect(&endpoints).await)
}

/// A client and an oracle on the shared etcd.
pub(crate) async fn place(test: &str) -> (Client, Oracle) {
    let endpoints = shared().await;
    let client = client_of(&endpoints[0], &fresh_namespace(test)).await;
    (client, Oracle::connect(&endpoints).await)
}

/// A session with a time to live of so many seconds.
pub(crate) async fn session(client: &Client, ttl: u64) -> Session {
    let options = SessionOptions::default().ttl(Duration::from_secs(ttl));
    Session::open_with(client, options).await.unwrap()
}

fn workers(client: &Client) -> Prefix {
    client.namespace().prefix("id").unwrap().join("workers").unwrap()
}

/// The stored key of a worker id.
pub(crate) fn worker_key(client: &Client, worker: u16) -> Vec<u8> {
    workers(client).key(format!("{worker:05}")).unwrap().as_bytes().to_vec()
}

/// The stored key of a worker id's clock.
pub(crate) fn clock_key(client: &Client, worker: u16) -> Vec<u8> {
    let clock = client.namespace().prefix("id").unwrap().join("clock").unwrap();
    clock.key(format!("{worker:05}")).unwrap().as_bytes().to_vec()
}

/// Until when ids of a worker id are reserved.
pub(crate) async fn reserved(client: &Client, oracle: &Oracle, worker: u16) -> Duration {
    let value = oracle.get(clock_key(client, worker)).await.expect("the clock is there");
    Duration::from_millis(String::from_utf8(value).unwrap().parse().unwrap())
}

/// The lease a key is on.
pub(crate) async fn lease_of(oracle: &Oracle, key: Vec<u8>) -> i64 {
    oracle.client().get(key, None).await.unwrap().kvs().first().expect("the key is there").lease()
}

/// Takes all worker ids but these, as if by other processes.
pub(crate) async fn take_all_but(client: &Client, free: &[u16]) {
    let prefix = workers(client);
    let all: Vec<u16> = (0..=u16::MAX).filter(|worker| !free.contains(worker)).collect();
    for some in all.chunks(128) {
        let mut txn = Txn::new();
        for worker in some {
            txn = txn.then(Op::put(&prefix.key(format!("{worker:05}")).unwrap(), "somebody"));
        }
        assert!(client.settle(&txn).await.unwrap().reply.succeeded);
    }
}

/// A clock that runs with the system's and can be set.
#[derive(Clone)]
pub(crate) struct Set {
    /// Milliseconds, beside a base that keeps it positive.
    offset: Arc<AtomicU64>,
}

const BASE: u64 = 1 << 40;

impl Set {
    pub(crate) fn new() -> Self {
        Self { offset: Arc::new(AtomicU64::new(BASE)) }
    }

    pub(crate) fn clock(&self) -> Clock {
        let (system, offset) = (Clock::system(), self.offset.clone());
        Clock::new(move || {
            system.now() + Duration::from_millis(offset.load(Ordering::SeqCst)) - Duration::from_millis(BASE)
        })
    }

    pub(crate) fn forward(&self, by: Duration) {
        self.offset.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn back(&self, by: Duration) {
        self.offset.fetch_sub(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

/// All different?
pub(crate) fn distinct(ids: &[u64]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

pub(crate) fn ascending(ids: &[u64]) -> bool {
    ids.is_sorted_by(|a, b| a < b)
}

/// Ids as a line of text, and back.
pub(crate) fn to_line(ids: &[u64]) -> String {
    let words: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
    words.join(" ")
}

pub(crate) fn from_line(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap()).collect()
}

/// Reads `ids …` lines until there is another one, which is returned with all ids.
pub(crate) async fn read_ids(child: &mut ChildProcess) -> (Vec<u64>, String) {
    let mut ids = Vec::new();
    loop {
        let line = child.line().await;
        match line.strip_prefix("ids ") {
            Some(some) => ids.extend(from_line(some)),
            None => return (ids, line),
        }
    }
}
