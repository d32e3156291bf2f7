//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use sereno_seq::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};
use sereno_seq::{Assignment, Invalid, Member, Positions, Sequence, SequenceOptions, Standing};
use sereno_testkit::{Oracle, eventually, fresh_namespace, shared};

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

/// A group with stable assignment.
pub(crate) fn stable(session: &Session, group: &str) -> Sequence {
    Sequence::with_options(session, group, SequenceOptions::default().assignment(Assignment::Stable))
}

/// The stored keys of a group below a folder, or all.
pub(crate) async fn keys(oracle: &Oracle, client: &Client, under: &str) -> Vec<String> {
    let mut prefix = client.namespace().root().as_bytes().to_vec();
    prefix.extend_from_slice(format!("seq/{under}").as_bytes());
    let strip = prefix.len();
    let found = oracle.range(prefix).await;
    found.into_iter().map(|(key, _)| String::from_utf8(key[strip..].to_vec()).unwrap()).collect()
}

/// A stored key.
pub(crate) fn key(client: &Client, path: &str) -> Vec<u8> {
    let mut key = client.namespace().root().as_bytes().to_vec();
    key.extend_from_slice(format!("seq/{path}").as_bytes());
    key
}

/// The lease a key is on.
pub(crate) async fn lease_of(oracle: &Oracle, key: Vec<u8>) -> i64 {
    oracle.client().get(key, None).await.unwrap().kvs().first().expect("the key is there").lease()
}

/// The key of the only seat there is.
pub(crate) async fn seat(oracle: &Oracle, client: &Client, group: &str) -> Vec<u8> {
    let seats = keys(oracle, client, &format!("{group}/seats/")).await;
    assert_eq!(seats.len(), 1, "{seats:?}");
    key(client, &format!("{group}/seats/{}", seats[0]))
}

/// What a member is, in short.
pub(crate) fn told(standing: &Standing) -> String {
    match standing {
        Ok(position) => position.to_string(),
        Err(_) => "invalid".into(),
    }
}

/// The next item; it must come soon.
pub(crate) async fn next(positions: &mut Positions) -> Standing {
    let item = tokio::time::timeout(LONG, positions.next()).await;
    item.expect("an item in time").expect("an open stream")
}

/// Waits until a stream has told a position that reads so.
pub(crate) async fn until(positions: &mut Positions, wanted: &str) {
    loop {
        let standing = next(positions).await;
        if told(&standing) == wanted {
            return;
        }
    }
}

/// Waits until a member reads so.
pub(crate) async fn reads(member: &Member, wanted: &str) {
    let what = format!("{wanted} of {member:?}");
    eventually(LONG, &what, async || (told(&member.position()) == wanted).then_some(())).await;
}

/// Waits until all members have the indices 0 to n in this order.
pub(crate) async fn in_order<'a>(members: impl IntoIterator<Item = &'a Member>) {
    let members: Vec<&Member> = members.into_iter().collect();
    for (index, member) in members.iter().enumerate() {
        reads(member, &format!("{index}/{}", members.len())).await;
    }
}

/// Why a member has no position.
pub(crate) fn invalid(member: &Member) -> Option<Invalid> {
    member.position().err()
}
