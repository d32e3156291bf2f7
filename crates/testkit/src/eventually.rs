//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// Asks `probe` every 10 ms until it answers `Some`, and returns that.
///
/// A probe that hangs is cut at the limit.
///
/// # Panics
/// When `limit` passes first, naming `what` was waited for.
pub async fn eventually<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while let Some(left) = limit.checked_sub(start.elapsed()) {
        match tokio::time::timeout(left, probe()).await {
            Ok(Some(value)) => return value,
            Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(_) => break,
        }
    }
    panic!("waited {limit:?} in vain for {what}");
}
