//! An idle client keeps its one watch stream, whatever the state of the watches on it: opening a stream again costs etcd one
//! watch for each, and a stream that is taken for dead every few seconds costs that for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::Duration;

use sereno_core::{Client, ConnectOptions, Namespace, Overflow, Prefix, Tail, TailItem};
use sereno_testkit::embed::{Server, Version};
use sereno_testkit::{Member, eventually, fresh_namespace};

/// How many watches the clients have that are to be idle.
const WATCHES: [usize; 3] = [1, 100, 5000];
/// More changes than a queue holds.
const BACKLOG: usize = 1100;

/// A client with so many watches open, beside those that are paused.
struct Idle {
    client: Client,
    prefix: Prefix,
    watches: usize,
    tails: Vec<Tail>,
}

impl Idle {
    fn new(client: Client, watches: usize) -> Self {
        let prefix = client.namespace().prefix("idle").unwrap();
        Self { client, prefix, watches, tails: Vec::new() }
    }

    async fn watch(&mut self, name: &str, from: i64) -> &mut Tail {
        let key = self.prefix.key(name).unwrap();
        self.tails.push(self.client.tail(&key, from, Overflow::Pause).await.unwrap());
        self.tails.last_mut().unwrap()
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("idle")).unwrap())
}

/// Brings the clients' watches into every state in which a version of etcd answers no progress request: one starts in the
/// future, one has lost its history to a compaction. One in ten more, ten at most, are paused with a backlog.
async fn occupy(clients: &mut [Idle], watches: impl AsyncFn() -> usize) {
    let mut raw = clients[0].client.etcd_client().await.unwrap();
    let head = async |raw: &mut etcd_client::Client| {
        raw.get("head", None).await.unwrap().header().unwrap().revision()
    };
    let settled = async |wanted: usize| {
        eventually(Duration::from_secs(30), "the server to have the watches", async || {
            (watches().await == wanted).then_some(())
        })
        .await;
    };
    let all: usize = clients.iter().map(|idle| idle.watches).sum();
    let from = head(&mut raw).await + 1;
    let busy = clients[0].prefix.key("busy").unwrap();
    let mut paused = 0;
    for idle in &mut *clients {
        for _ in 0..(idle.watches / 10).clamp(1, 10) {
            paused += 1;
            idle.tails.push(idle.client.tail(&busy, from, Overflow::Pause).await.unwrap());
        }
        for n in 0..idle.watches {
            idle.watch(&format!("name-{n}"), from).await;
        }
    }
    settled(all + paused).await;
    for _ in 0..BACKLOG {
        raw.put(busy.as_bytes(), "x", None).await.unwrap();
    }
    // What is paused is off the stream.
    settled(all).await;
    let revision = head(&mut raw).await;
    raw.compact(revision, None).await.unwrap();
    for idle in &mut *clients {
        let lost = idle.watch("lost", 1).await.next().await.unwrap().unwrap();
        assert!(matches!(lost, TailItem::Compacted { revision: at } if at == revision), "{lost:?}");
        idle.watch("future", revision + 1).await;
    }
    settled(all + clients.len()).await;
}

/// The watch from the future sees what is written, by whatever stream there is now.
async fn write_and_see(idle: &mut Idle) {
    let mut raw = idle.client.etcd_client().await.unwrap();
    raw.put(idle.prefix.key("future").unwrap().as_bytes(), "x", None).await.unwrap();
    let item = idle.tails.last_mut().unwrap().next();
    let item = tokio::time::timeout(Duration::from_secs(10), item).await.expect("an event");
    assert!(matches!(item, Some(Ok(TailItem::Changes(_)))), "{item:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn idle_clients_open_one_stream_each() {
    // A stream that is taken for dead is so within 2.65 s, time and again: this is several times that. SERENO_IDLE_SECONDS
    // makes it longer.
    let time = std::env::var("SERENO_IDLE_SECONDS").map_or(10, |seconds| seconds.parse().unwrap());
    let member = Member::single().await;
    let streams = async || {
        member.metrics().await.get_where("grpc_server_started_total", "grpc_method", "Watch").unwrap()
    };
    let mut clients = Vec::new();
    for watches in WATCHES {
        let client = Client::connect_with([member.endpoint()], options()).await.unwrap();
        clients.push(Idle::new(client, watches));
    }
    let watches = async || member.metrics().await.get("etcd_debugging_mvcc_watcher_total").unwrap() as usize;
    occupy(&mut clients, watches).await;
    // Idling is the subject.
    tokio::time::sleep(Duration::from_secs(time)).await;
    assert_eq!(streams().await, clients.len() as f64, "streams opened by {} clients", clients.len());
    for idle in &mut clients {
        write_and_see(idle).await;
    }
    assert_eq!(streams().await, clients.len() as f64, "streams opened by {} clients", clients.len());
    println!("etcd {}: {:?} watches, one stream each in {time} s", member.version().await, WATCHES);
}

/// The same for ten minutes of paused time.
async fn idle_for_ten_minutes(version: Version) {
    let server = Server::builder().in_process().version(version).start().await.unwrap();
    let mut clients = Vec::new();
    for watches in WATCHES {
        let client = Client::connect_via(server.dialer(), options()).await.unwrap();
        clients.push(Idle::new(client, watches));
    }
    occupy(&mut clients, async || server.status().watches).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    for idle in &mut clients {
        write_and_see(idle).await;
    }
    let opened = server.status().watch_streams_opened;
    assert_eq!(opened, clients.len() as u64, "streams opened by {} clients", clients.len());
}

#[tokio::test(start_paused = true)]
async fn idle_clients_open_one_stream_each_in_ten_minutes_on_etcd_3_5_1() {
    idle_for_ten_minutes(Version::V3_5_1).await;
}

#[tokio::test(start_paused = true)]
async fn idle_clients_open_one_stream_each_in_ten_minutes_on_etcd_3_5_16() {
    idle_for_ten_minutes(Version::V3_5_16).await;
}

#[tokio::test(start_paused = true)]
async fn idle_clients_open_one_stream_each_in_ten_minutes_on_etcd_3_5_30() {
    idle_for_ten_minutes(Version::V3_5_30).await;
}
