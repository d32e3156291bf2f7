//! What the tests of this crate share.
#![allow(dead_code)] // Each test binary uses its part.

use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use sereno_embed::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

/// A server that listens on no port.
pub(crate) async fn in_process() -> Server {
    Server::builder().in_process().start().await.unwrap()
}

/// A raw client: over TCP where there is a port.
pub(crate) async fn client(server: &Server) -> Client {
    let options = Some(ConnectOptions::new().with_require_leader(true));
    match server.address() {
        Some(_) => Client::connect([server.endpoint()], options).await.unwrap(),
        None => Client::from_channel(Channel::Tonic(server.channel()), options).await.unwrap(),
    }
}

/// The code and the text of what was refused.
pub(crate) fn status(error: etcd_client::Error) -> (Code, String) {
    match error {
        etcd_client::Error::GRpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("not an answer: {other}"),
    }
}

/// The body of a plain page.
pub(crate) async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Asks again and again, for two minutes.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..12_000 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within two minutes: {what}");
}
