//! Waiting for a moment: for recipes whose work has a rhythm of its own, such as a slot of time that must begin first.
//!
//! Nothing here repeats a call that failed: that is [`Client::optimistic`](crate::Client::optimistic) and, below it, the
//! client's own business.

use std::time::Instant;

/// Waits until `moment`, without holding a thread; at once when it has passed. Wakes up to 1 ms late, never early.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_moment_is_never_early_and_one_that_passed_is_now() {
        let moment = Instant::now() + Duration::from_millis(5);
        until(moment).await;
        assert!(Instant::now() >= moment);
        until(moment).await;
        assert!(moment.elapsed() < Duration::from_secs(1));
    }
}
