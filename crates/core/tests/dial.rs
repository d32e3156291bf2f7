//! Clients over wires that the caller makes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sereno_core::{
    Client, Compare, Conflict, ConnectOptions, Error, Key, Namespace, Op, Outcome, Session, Tls, Txn,
};
use sereno_testkit::{Member, Proxy, fresh_namespace};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::Instant;

fn options() -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("dial")).unwrap())
}

fn key(client: &Client) -> Key {
    client.namespace().prefix("d").unwrap().key("k").unwrap()
}

fn write(client: &Client) -> Txn {
    Txn::new().when(Compare::absent(&key(client))).then(Op::put(&key(client), "x"))
}

/// Dials over TCP, and counts.
fn counting(endpoint: &str) -> (Arc<AtomicUsize>, impl Fn() -> Dialled + Send + Sync + 'static) {
    let address = endpoint.trim_start_matches("http://").to_owned();
    let count = Arc::new(AtomicUsize::new(0));
    let dials = count.clone();
    let dial = move || -> Dialled {
        dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(TcpStream::connect(address.clone()))
    };
    (count, dial)
}

type Dialled = std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn everything_works_over_one_wire_of_the_callers() {
    let member = Member::single().await;
    let (dials, dial) = counting(&member.endpoint());
    let client = Client::connect_via(dial, options()).await.unwrap();
    let mut watcher = client.watch(&key(&client)).await.unwrap();
    assert!(matches!(client.commit(&write(&client)).await.unwrap(), Outcome::Applied(_)));
    let update = watcher.next().await.unwrap().unwrap();
    assert_eq!(update.changes.len(), 1);
    let session = Session::open(&client).await.unwrap();
    let here = client.namespace().prefix("d").unwrap().key("here").unwrap();
    let presence = session.keep(&here, "1", Conflict::Refuse).await.unwrap();
    assert_eq!(client.get(&here).await.unwrap().unwrap().value, "1");
    presence.leave().await.unwrap();
    session.close().await.unwrap();
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wire_that_breaks_is_replaced_and_the_watch_goes_on() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let (dials, dial) = counting(&proxy.endpoint());
    let client = Client::connect_via(dial, options()).await.unwrap();
    let mut watcher = client.watch(&key(&client)).await.unwrap();
    for round in 1..=3 {
        proxy.reset();
        let put = Txn::new().then(Op::put(&key(&client), format!("{round}")));
        client.settle(&put).await.unwrap();
        let update = watcher.next().await.unwrap().unwrap();
        assert_eq!(update.changes.len(), 1, "no change is missing and none comes twice");
        assert!(dials.load(Ordering::Relaxed) > round, "each reset needs another wire");
    }
}

#[tokio::test]
#[ignore = "needs a real etcd: authentication"]
async fn a_password_goes_over_a_wire_that_was_said_to_be_private() {
    let member = Member::single().await;
    let options = options();
    let ours = String::from_utf8(options.namespace.root().as_bytes().to_vec()).unwrap();
    sereno_testkit::enable_auth(&[member.endpoint()], "root", "me", "secret", &ours).await;
    let (_, dial) = counting(&member.endpoint());
    let options = options.credentials("me", "secret").allow_plaintext_credentials(true);
    let client = Client::connect_via(dial, options).await.unwrap();
    assert!(matches!(client.commit(&write(&client)).await.unwrap(), Outcome::Applied(_)));
}

#[tokio::test(start_paused = true)]
async fn what_the_dial_fails_with_was_never_sent() {
    let dial = || async { Err::<DuplexStream, _>(io::Error::other("no such tunnel")) };
    let error = Client::connect_via(dial, options()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");

    let client = Client::lazy_via(dial, options()).unwrap();
    let started = Instant::now();
    let error = client.commit(&write(&client)).await.unwrap_err();
    let Error::Unavailable { cause, .. } = error else { panic!("{error:?}") };
    assert!(cause.to_string().contains("no such tunnel"), "{cause}");
    assert!(started.elapsed() <= client.deadline() + Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_has_sent_nothing() {
    let dial = std::future::pending::<io::Result<DuplexStream>>;
    let client = Client::lazy_via(dial, options()).unwrap();
    let started = Instant::now();
    let error = client.commit(&write(&client)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(started.elapsed() <= client.deadline() + Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn a_wire_cut_in_the_middle_of_a_call_leaves_a_write_unknown_and_the_next_call_dials_anew() {
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    let dial = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            // Takes in whatever comes, and goes away when nothing more does.
            let mut bytes = [0; 4096];
            let quiet = Duration::from_millis(50);
            while let Ok(Ok(1..)) = tokio::time::timeout(quiet, far.read(&mut bytes)).await {}
        });
        std::future::ready(Ok::<_, io::Error>(near))
    };
    let client = Client::lazy_via(dial, options()).unwrap();
    for calls in 1..=3 {
        let outcome = client.commit(&write(&client)).await.unwrap();
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        assert_eq!(dials.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test]
async fn what_only_the_caller_can_know_of_the_wire_must_be_said() {
    let dial = std::future::pending::<io::Result<DuplexStream>>;
    let refused = |options| match Client::lazy_via(dial, options) {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(options().credentials("me", "secret")), "credentials");
    assert_eq!(refused(options().tls(Tls::default())), "tls");
    assert_eq!(refused(options().ping_interval(Duration::from_secs(1))), "ping_interval");
    let said = options().credentials("me", "secret").allow_plaintext_credentials(true);
    assert!(Client::lazy_via(dial, said).is_ok());
}
