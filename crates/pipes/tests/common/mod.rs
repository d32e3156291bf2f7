//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use sereno_pipes::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};
use sereno_pipes::{
    Delivery, Destination, DestinationOptions, Group, GroupOptions, Member, Mode, Registration, Result,
};
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

/// Must end soon.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LONG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {LONG:?}"),
    }
}

/// What every destination here is, but for what the test is about.
pub(crate) fn destination() -> DestinationOptions {
    DestinationOptions::default()
}

pub(crate) fn at_least_once() -> GroupOptions {
    GroupOptions::default().mode(Mode::AtLeastOnce)
}

pub(crate) fn with(mode: Mode) -> GroupOptions {
    GroupOptions::default().mode(mode)
}

pub(crate) const MODES: [Mode; 2] = [Mode::AtMostOnce, Mode::AtLeastOnce];

/// Registers with these options.
pub(crate) async fn register(session: &Session, name: &str, options: DestinationOptions) -> Registration {
    soon("registering", Destination::with_options(session, name, options).register()).await.unwrap()
}

/// Joins with these options.
pub(crate) async fn join(session: &Session, name: &str, group: &str, options: GroupOptions) -> Member {
    soon("joining", Group::with_options(session, name, group, options).join()).await.unwrap()
}

/// Receives a message and acknowledges it.
pub(crate) async fn take(member: &Member) -> String {
    let delivery = soon("a message", member.recv()).await.unwrap();
    text(&delivery.ack().unwrap())
}

/// Receives so many messages and acknowledges them.
pub(crate) async fn take_all(member: &Member, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(take(member).await);
    }
    taken
}

/// Receives from several members until so many messages came, and acknowledges them. By member.
pub(crate) async fn share(members: &[&Member], count: usize) -> Vec<Vec<String>> {
    let mut shares = vec![Vec::new(); members.len()];
    let gather = async {
        while shares.iter().map(Vec::len).sum::<usize>() < count {
            for (member, share) in members.iter().zip(&mut shares) {
                while let Some(delivery) = member.try_recv().unwrap() {
                    share.push(text(&delivery.ack().unwrap()));
                }
            }
            tokio::task::yield_now().await;
        }
    };
    soon("all messages", gather).await;
    shares
}

pub(crate) fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// Nothing comes for a moment.
pub(crate) async fn nothing(member: &Member) {
    let came = tokio::time::timeout(Duration::from_millis(100), member.recv()).await;
    assert!(came.is_err(), "{came:?}");
}

pub(crate) async fn received(delivery: Result<Delivery>) -> Delivery {
    delivery.unwrap()
}

/// The start of all keys of a destination with a plain name.
pub(crate) fn prefix(client: &Client, destination: &str) -> Vec<u8> {
    let mut key = client.namespace().root().as_bytes().to_vec();
    key.extend_from_slice(format!("pipes/{destination}/").as_bytes());
    key
}

/// One of them.
pub(crate) fn key(client: &Client, destination: &str, rest: &str) -> Vec<u8> {
    let mut key = prefix(client, destination);
    key.extend_from_slice(rest.as_bytes());
    key
}

/// All keys of a destination, without its prefix.
pub(crate) async fn keys(client: &Client, oracle: &Oracle, destination: &str) -> Vec<String> {
    let prefix = prefix(client, destination);
    let range = oracle.range(prefix.clone()).await;
    range.into_iter().map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect()
}

/// The members' keys of a group.
pub(crate) async fn member_keys(client: &Client, oracle: &Oracle, name: &str, group: &str) -> Vec<Vec<u8>> {
    let members = key(client, name, &format!("group/{group}/member/"));
    oracle.range(members).await.into_iter().map(|(key, _)| key).collect()
}

/// The lease a key is on.
pub(crate) async fn lease_of(oracle: &Oracle, key: Vec<u8>) -> i64 {
    oracle.client().get(key, None).await.unwrap().kvs().first().expect("the key is there").lease()
}
