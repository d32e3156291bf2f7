//! A server that takes connections and never answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::engine;

/// Accepts every connection, reads nothing and says nothing. Dropping it closes them all.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl BlackHole {
    /// Opens one on a loopback port.
    pub async fn listen() -> Self {
        engine::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port must be free");
            let address = listener.local_addr().expect("a bound socket has an address");
            let accepted = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&accepted);
            let task = tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    held.push(stream);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
            Self { address, accepted, task }
        })
        .await
    }

    /// Its URL: `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far, so that a test can tell that somebody came.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.task.abort();
    }
}
