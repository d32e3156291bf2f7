//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use sereno_keepalive::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};
use sereno_keepalive::{Event, Members};
use sereno_testkit::{Oracle, fresh_namespace, shared};

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A client in a namespace of its own.
pub(crate) async fn client_of(endpoint: &str, namespace: &str) -> Client {
    let options = ConnectOptions::default().namespace(Namespace::new(namespace).unwrap());
    Client::connect_with([endpoint], options).await.unwrap()
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

/// The stored key of a node with a plain name.
pub(crate) fn key(client: &Client, group: &str, node: &str) -> Vec<u8> {
    let mut key = client.namespace().root().as_bytes().to_vec();
    key.extend_from_slice(format!("keepalive/{group}/{node}").as_bytes());
    key
}

/// The lease a key is on.
pub(crate) async fn lease_of(oracle: &Oracle, key: Vec<u8>) -> i64 {
    oracle.client().get(key, None).await.unwrap().kvs().first().expect("the key is there").lease()
}

/// The next event; it must come soon and be no error.
pub(crate) async fn next(members: &mut Members) -> Event {
    let event = tokio::time::timeout(LONG, members.next()).await;
    event.expect("an event in time").expect("an open stream").expect("no error")
}

/// As [`next`], passing over errors that a watch survives.
pub(crate) async fn next_through_faults(members: &mut Members) -> Event {
    tokio::time::timeout(LONG, async {
        loop {
            if let Ok(event) = members.next().await.expect("an open stream") {
                return event;
            }
        }
    })
    .await
    .expect("an event in time")
}

/// The names of nodes, in the order given.
pub(crate) fn names(nodes: &[sereno_keepalive::Node]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

/// A short text for an event.
pub(crate) fn told(event: &Event) -> String {
    match event {
        Event::Snapshot(nodes) => format!("snapshot {}", names(nodes).join(",")),
        Event::Joined(node) => format!("joined {}", node.name),
        Event::Changed { old, new } => {
            format!("changed {} {:?} -> {:?}", new.name, text(&old.value), text(&new.value))
        }
        Event::Left(node) => format!("left {}", node.name),
        Event::Resync => "resync".into(),
        other => format!("{other:?}"),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
