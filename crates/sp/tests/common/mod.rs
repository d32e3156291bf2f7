//! What the tests share.

#![allow(dead_code)]

use std::time::Duration;

use sereno_sp::SocketOptions;

/// Longer than anything here takes on a machine that does other things too.
pub(crate) const LONG: Duration = Duration::from_secs(30);

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
