//! Errors of connecting: each names the endpoint and the likely remedy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::Duration;

use sereno_core::{Client, Compare, ConnectOptions, Error, Namespace, Op, Outcome, Tls, Txn};
use sereno_testkit::{BlackHole, Member, TlsMaterial, fresh_namespace};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

fn options() -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("connect")).unwrap())
}

/// A port where nothing listens. The socket has it, so that nobody else gets it, and does not listen.
fn closed() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    (socket, endpoint)
}

/// A web server of HTTP/2 without TLS that gives every request one answer: `status` in HPACK, and the body.
async fn web(status: &'static [u8], body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.ok()?;
                stream.write_all(&frame(4, 0, 0, &[])).await.ok()?;
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head).await.ok()?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    stream.read_exact(&mut vec![0; length as usize]).await.ok()?;
                    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    let answer = match (head[3], head[4]) {
                        (1, _) if body.is_empty() => frame(1, 5, id, status),
                        (1, _) => [frame(1, 4, id, status), frame(0, 1, id, body)].concat(),
                        (4, 0) => frame(4, 1, 0, &[]),
                        _ => continue,
                    };
                    stream.write_all(&answer).await.ok()?;
                }
                #[allow(unreachable_code, reason = "it gives the block its type")]
                Some(())
            });
        }
    });
    endpoint
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PAGE: &[u8] = b"<html>not here</html>";
/// `:status` 404, 200 with a content type, and 503, in HPACK.
const NOT_FOUND: &[u8] = &[0x8d];
const OK: &[u8] = &[0x88, 0x0f, 0x10, 0x09, b't', b'e', b'x', b't', b'/', b'h', b't', b'm', b'l'];
const UNAVAILABLE: &[u8] = &[0x08, 0x03, b'5', b'0', b'3'];

/// Answers whatever comes with a page of HTTP/1.1, as most web servers do.
async fn old_web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                // Until the other side ends: closing with something unread would take the answer away.
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    endpoint
}

async fn connect(what: &str, endpoint: &str, options: ConnectOptions) -> Error {
    let started = Instant::now();
    let error = Client::connect_with([endpoint], options).await.map(|_| ()).unwrap_err();
    let took = started.elapsed();
    println!("{what}: {took:?}: {error}");
    error
}

/// It names the endpoint and the remedy, and its cause is the source.
fn tells(what: &str, error: &Error, endpoint: &str, remedy: &str) {
    let shown = error.to_string();
    assert!(shown.contains(endpoint) && shown.contains(remedy), "{what}: {shown}");
    let source = std::error::Error::source(error).expect("a cause").to_string();
    assert!(shown.contains(&source), "{what}: {source}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_etcd_is_told_with_its_endpoint_and_the_remedy() {
    let hole = BlackHole::listen().await;
    let (_socket, closed) = closed();
    let short = || options().deadline(Duration::from_secs(3));
    // Those that are final are found before the deadline: that they are `Refused` shows it.
    let cases = [
        ("closed port", closed, "nothing listens there", false),
        ("404", web(NOT_FOUND, PAGE).await, "not etcd", true),
        ("404 without a page", web(NOT_FOUND, b"").await, "not etcd", true),
        ("503 without a page", web(UNAVAILABLE, b"").await, "not etcd", false),
        ("200 html", web(OK, PAGE).await, "not etcd", true),
        ("503", web(UNAVAILABLE, PAGE).await, "not etcd", false),
        ("HTTP/1.1", old_web().await, "not etcd", true),
        ("no answer", hole.endpoint(), "says nothing", false),
        ("no such name", "http://no-such-host.invalid:2379".into(), "does not resolve", false),
    ];
    let told = cases.map(|(what, endpoint, remedy, is_final)| {
        let options = short();
        let connecting = tokio::spawn(async move { (connect(what, &endpoint, options).await, endpoint) });
        (what, connecting, remedy, is_final)
    });
    for (what, connecting, remedy, is_final) in told {
        let (error, endpoint) = connecting.await.unwrap();
        tells(what, &error, &endpoint, remedy);
        assert_eq!(matches!(error, Error::Refused { .. }), is_final, "{what}: {error:?}");
        assert_eq!(error.is_retryable(), !is_final, "{what}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_several_endpoints_each_is_told_with_its_cause() {
    let ((_socket, closed), web) = (closed(), web(UNAVAILABLE, PAGE).await);
    let options = options().deadline(Duration::from_secs(2));
    let error = Client::connect_with([&closed, &web], options).await.map(|_| ()).unwrap_err();
    println!("{error}");
    tells("several", &error, &closed, "nothing listens there");
    tells("several", &error, &web, "not etcd");
    tells("several", &error, "", "2 endpoints were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_what_is_no_etcd_stays_unknown() {
    for endpoint in [
        web(NOT_FOUND, b"").await,
        web(NOT_FOUND, PAGE).await,
        web(OK, PAGE).await,
        web(UNAVAILABLE, PAGE).await,
    ] {
        let client = Client::lazy([&endpoint], options()).unwrap();
        let key = client.namespace().prefix("w").unwrap().key("k").unwrap();
        let write = Txn::new().when(Compare::absent(&key)).then(Op::put(&key, "x"));
        let outcome = client.commit(&write).await.unwrap();
        let Outcome::Unknown(error) = outcome else { panic!("{outcome:?}") };
        tells("a write", &error, &endpoint, "not etcd");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_etcd_that_starts_while_a_client_connects_is_waited_for() {
    let member = Member::single().await;
    member.kill().await;
    let options = options().deadline(Duration::from_secs(60));
    let endpoint = member.endpoint();
    let connecting = tokio::spawn(async move { Client::connect_with([endpoint], options).await });
    member.start().await;
    connecting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn what_is_wrong_about_tls_is_told_with_the_endpoint_and_the_remedy() {
    let material = TlsMaterial::generate();
    let ca = || Tls::default().ca_pem(&material.ca.cert_pem);
    let secure = Member::builder().tls(&material).start_one().await;
    let misnamed = Member::builder().bad_tls(&material, &material.wrong_san_server).start_one().await;
    let mutual = Member::builder().mtls(&material).start_one().await;
    let plain = Member::single().await;
    let other = Tls::default().ca_pem(&material.other_ca.cert_pem);
    for (what, endpoint, tls, remedy) in [
        ("http to TLS", secure.endpoint().replace("https://", "http://"), None, "use https://"),
        ("http to mTLS", mutual.endpoint().replace("https://", "http://"), None, "use https://"),
        ("https to plain", plain.endpoint().replace("http://", "https://"), Some(ca()), "use http://"),
        ("wrong CA", secure.endpoint(), Some(other), "Tls::ca_pem"),
        ("wrong name", misnamed.endpoint(), Some(ca()), "Tls::domain"),
        ("no certificate", mutual.endpoint(), Some(ca()), "Tls::identity_pem"),
    ] {
        let options = options().deadline(Duration::from_secs(30));
        let options = match tls {
            Some(tls) => options.tls(tls),
            None => options,
        };
        let error = connect(what, &endpoint, options).await;
        tells(what, &error, &endpoint, remedy);
        // Not at the deadline, when it would be `Unavailable` or `Timeout`.
        assert!(matches!(error, Error::Tls { .. }), "{what}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: TLS"]
async fn a_write_in_plain_text_to_a_tls_port_is_never_called_not_applied_when_it_may_have_been_sent() {
    let material = TlsMaterial::generate();
    let secure = Member::builder().tls(&material).start_one().await;
    let endpoint = secure.endpoint().replace("https://", "http://");
    let client = Client::lazy([&endpoint], options()).unwrap();
    let key = client.namespace().prefix("w").unwrap().key("k").unwrap();
    let write = Txn::new().when(Compare::absent(&key)).then(Op::put(&key, "x"));
    let error = match client.commit(&write).await {
        Ok(Outcome::Unknown(error)) => error,
        Err(error @ Error::Tls { .. }) => error,
        other => panic!("{other:?}"),
    };
    println!("{error}");
    assert!(error.to_string().contains(&endpoint), "{error}");
}
