//! What the tests share.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;
use sereno_sp::{Address, Queue, SocketOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes on a machine that does other things too.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, happening).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LONG:?} in vain for {what}"),
    }
}

/// Options under which a lost connection comes back at once.
pub(crate) fn quick() -> SocketOptions {
    SocketOptions::default()
        .reconnect_first(Duration::from_millis(10))
        .reconnect_max(Duration::from_millis(100))
}

/// One place of each transport to listen on.
pub(crate) fn places(folder: &tempfile::TempDir, name: &str) -> [String; 4] {
    [
        "tcp://127.0.0.1:0".to_owned(),
        "tcp://localhost:0".to_owned(),
        format!("ipc://{}", folder.path().join(name).display()),
        format!("inproc://{name}"),
    ]
}

/// A peer that speaks for itself, byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: &Address) -> Self {
        let place = address.to_string();
        Self { stream: TcpStream::connect(place.strip_prefix("tcp://").unwrap()).await.unwrap() }
    }

    /// Connects and says the hello of a protocol. Waits for the other's.
    pub(crate) async fn hello(address: &Address, protocol: u8) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(&[0, b'S', b'P', 0, 0, protocol, 0, 0]).await;
        let mut theirs = [0; 8];
        soon("a hello", raw.stream.read_exact(&mut theirs)).await.unwrap();
        assert_eq!(theirs[..5], [0, b'S', b'P', 0, 0]);
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a message.
    pub(crate) async fn frame(&mut self, body: &[u8]) {
        self.send(&[&(body.len() as u64).to_be_bytes(), body].concat()).await;
    }

    /// The next message; `None` at the end.
    pub(crate) async fn read_frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 8];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut body = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    /// Waits until the other side has closed.
    pub(crate) async fn ends(&mut self) {
        let mut rest = Vec::new();
        // Closed with or without what it did not read.
        let _ = soon("the end of the connection", self.stream.read_to_end(&mut rest)).await;
    }
}

/// Small queues and buffers, as a pipeline of jobs would have.
pub(crate) fn small() -> SocketOptions {
    quick()
        .send_queue(Queue::of(16))
        .recv_queue(Queue::of(16))
        .send_buffer(Some(16 * 1024))
        .recv_buffer(Some(16 * 1024))
}

pub(crate) fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

pub(crate) fn job(number: u32) -> Bytes {
    Bytes::from([&number.to_be_bytes()[..], &[0; 1020]].concat())
}
