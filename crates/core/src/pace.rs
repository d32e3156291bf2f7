//! Time for recipes: waiting for a moment, such as a slot of time that must begin first, and what the clocks say.
//!
//! Nothing here repeats a call that failed: that is [`Client::optimistic`](crate::Client::optimistic) and, below it, the
//! client's own business.

use std::time::{Duration, Instant, SystemTime};

/// Waits until `moment`, without holding a thread; at once when it has passed. Wakes up to 1 ms late, never early.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

/// This moment on the clock that [`until`] waits by. Where a test has paused tokio's time it stands still, which
/// [`Instant::now`] does not.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time since the start of 1970, UTC, by the system's clock, which may be set back; a time before is taken for 1970.
/// For what people read: nothing is decided by it here.
#[must_use]
pub fn wall() -> Duration {
    #[cfg(feature = "seeded")]
    if let Some(repeated) = crate::chance::seeded::wall() {
        return repeated;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_is_never_early_and_one_that_passed_is_now() {
        let moment = Instant::now() + Duration::from_millis(5);
        until(moment).await;
        assert!(Instant::now() >= moment);
        until(moment).await;
        assert!(moment.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_goes_on_by_waiting_alone() {
        let moment = now() + Duration::from_secs(3600);
        until(moment).await;
        assert!(now() >= moment);
        assert!(now() < moment + Duration::from_millis(2));
    }
}
