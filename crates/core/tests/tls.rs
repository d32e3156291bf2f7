//! TLS on real etcd: what must work works, and what must not is a typed error, soon and without a loop.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{
    Client, Conflict, ConnectOptions, Error, Namespace, Op, Overflow, Session, TailItem, Tls, Txn,
};
use sereno_testkit::{Member, Proxy, TlsMaterial, fresh_namespace};

const SOON: Duration = Duration::from_secs(30);

fn options(tls: Tls) -> ConnectOptions {
    let namespace = Namespace::new(&fresh_namespace("tls")).unwrap();
    ConnectOptions::default().namespace(namespace).tls(tls)
}

/// Everything that goes over the wire: call, write, watch, session, kept key, lease.
async fn all_works(client: &Client) {
    let prefix = client.namespace().prefix("t").unwrap();
    let key = prefix.key("k").unwrap();
    let (_, revision) = client.count(&prefix).await.unwrap();
    let mut tail = client.tail(&prefix, revision + 1, Overflow::Pause).await.unwrap();
    client.settle(&Txn::new().then(Op::put(&key, "x"))).await.unwrap();
    assert_eq!(client.get(&key).await.unwrap().unwrap().value.as_ref(), b"x");
    let seen = tokio::time::timeout(SOON, tail.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(seen, TailItem::Changes(_)));
    let timer = client.timer(Duration::from_secs(5)).await.unwrap();
    timer.renew(client).await.unwrap();
    timer.revoke(client).await.unwrap();
    let session = Session::open(client).await.unwrap();
    let kept = session.keep(&prefix.key("kept").unwrap(), "here", Conflict::Refuse).await.unwrap();
    session.verify().await.unwrap();
    kept.leave().await.unwrap();
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn tls_and_mutual_tls_work() {
    let material = TlsMaterial::generate();
    let ca = || Tls::default().ca_pem(&material.ca.cert_pem);
    let member = Member::builder().tls(&material).start_one().await;
    all_works(&Client::connect_with([member.endpoint()], options(ca())).await.unwrap()).await;
    // Without a scheme, TLS options mean https.
    let bare = member.endpoint().replace("https://", "");
    all_works(&Client::connect_with([bare], options(ca())).await.unwrap()).await;
    let member = Member::builder().mtls(&material).start_one().await;
    let identity = ca().identity_pem(&material.client.cert_pem, &material.client.key_pem);
    all_works(&Client::connect_with([member.endpoint()], options(identity)).await.unwrap()).await;
}

/// Connecting must fail as a matter of TLS, soon; and so must every later call and watch, without a storm.
async fn refused(what: &str, member: &Member, tls: Tls) {
    let proxy = Proxy::to(member.endpoint()).await;
    let started = Instant::now();
    let connected = Client::connect_with([proxy.endpoint()], options(tls.clone())).await;
    let took = started.elapsed();
    let error = connected.unwrap_err();
    let attempts = proxy.stats().connections;
    println!("{what}: after {took:?} and {attempts} connections: {error}: {}", cause(&error));
    assert!(matches!(error, Error::Tls { .. }), "{what}: {error:?}");
    assert!(!error.is_retryable());
    assert!(took < SOON, "{what}: {took:?}");
    // A server that misses our certificate says so after the handshake; the connection may break before that is read.
    assert!(attempts <= 12, "{what}: {attempts} connections for one call");

    let lazy = Client::lazy([proxy.endpoint()], options(tls)).unwrap();
    let prefix = lazy.namespace().prefix("t").unwrap();
    let started = Instant::now();
    let opened = Session::open(&lazy).await.map(|_| ());
    assert!(matches!(opened, Err(Error::Tls { .. })), "{what}: {opened:?}");
    assert!(started.elapsed() < SOON);
    // A subscription has nobody to tell at first, but must not hammer the server.
    let before = proxy.stats().connections;
    let mut tail = lazy.tail(&prefix, 1, Overflow::Pause).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(1), tail.next()).await;
    let attempts = proxy.stats().connections - before;
    println!("{what}: a watch made {attempts} connections in 1 s and said {waited:?}");
    assert!(attempts <= 12, "{what}: {attempts} connections in a second");
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn an_authority_that_is_not_trusted_is_refused() {
    let material = TlsMaterial::generate();
    let member = Member::builder().tls(&material).start_one().await;
    refused("wrong CA", &member, Tls::default().ca_pem(&material.other_ca.cert_pem)).await;
    refused("the system's CAs", &member, Tls::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn a_server_certificate_that_has_ended_or_names_somebody_else_is_refused() {
    let material = TlsMaterial::generate();
    let ca = || Tls::default().ca_pem(&material.ca.cert_pem);
    let member = Member::builder().bad_tls(&material, &material.expired_server).start_one().await;
    refused("expired certificate", &member, ca()).await;
    let member = Member::builder().bad_tls(&material, &material.wrong_san_server).start_one().await;
    refused("wrong name", &member, ca()).await;
    // Unless that is the name we were told to expect.
    let expected = options(ca().domain("wrong.example"));
    all_works(&Client::connect_with([member.endpoint()], expected).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn a_client_certificate_that_is_missing_or_wrong_is_refused() {
    let material = TlsMaterial::generate();
    let ca = || Tls::default().ca_pem(&material.ca.cert_pem);
    let with = |identity: &sereno_testkit::Identity| ca().identity_pem(&identity.cert_pem, &identity.key_pem);
    let member = Member::builder().mtls(&material).start_one().await;
    refused("no client certificate", &member, ca()).await;
    refused("expired client certificate", &member, with(&material.expired_client)).await;
    refused("client certificate of another CA", &member, with(&material.other_client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn plain_text_to_a_tls_port_and_tls_to_a_plain_one_end_typed_and_in_time() {
    let material = TlsMaterial::generate();
    let secure = Member::builder().tls(&material).start_one().await;
    let plain = Member::single().await;
    let short = |options: ConnectOptions| options.deadline(Duration::from_secs(1));
    let started = Instant::now();
    let endpoint = secure.endpoint().replace("https://", "http://");
    let error = Client::connect_with([endpoint], short(ConnectOptions::default())).await.unwrap_err();
    println!("plain text to a TLS port: {error}: {}", cause(&error));
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(started.elapsed() < SOON);
    let started = Instant::now();
    let endpoint = plain.endpoint().replace("http://", "https://");
    let tls = Tls::default().ca_pem(&material.ca.cert_pem);
    let error = Client::connect_with([endpoint], short(options(tls.clone()))).await.unwrap_err();
    println!("TLS to a plain port: {error}: {}", cause(&error));
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(started.elapsed() < SOON);
    // And TLS options on a plain endpoint are a contradiction, not a downgrade.
    let error = Client::lazy([plain.endpoint()], options(tls)).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn no_key_shows_in_debug() {
    let material = TlsMaterial::generate();
    let member = Member::builder().mtls(&material).start_one().await;
    let identity = Tls::default()
        .ca_pem(&material.ca.cert_pem)
        .identity_pem(&material.client.cert_pem, &material.client.key_pem);
    let options = options(identity);
    let client = Client::connect_with([member.endpoint()], options.clone()).await.unwrap();
    let session = Session::open(&client).await.unwrap();
    let wrong = options.clone().tls(Tls::default().identity_pem("canary", &material.client.key_pem));
    let errors = Client::connect_with([member.endpoint()], wrong).await.unwrap_err();
    println!("{errors}: {}", cause(&errors));
    let shown = format!("{client:?} {options:?} {session:?} {errors:?} {errors} {}", cause(&errors));
    for line in material.client.key_pem.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line));
    }
    assert!(!shown.contains("PRIVATE KEY") && !shown.contains("canary"), "{shown}");
}
