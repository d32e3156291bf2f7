//! The time that processes on one machine agree on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Nanoseconds since 1970: comparable between processes, and exact enough for what is measured here.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The moment `nanos` on this process's own clock; now, when it is past.
pub(super) fn instant(nanos: u64) -> Instant {
    Instant::now() + Duration::from_nanos(nanos.saturating_sub(now()))
}

/// Milliseconds from `start` to `end`; less than nothing when `end` came first.
pub(super) fn millis_between(start: u64, end: u64) -> f64 {
    if end >= start { millis(end - start) } else { -millis(start - end) }
}

#[expect(clippy::cast_precision_loss, reason = "hours still fit")]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_between_two_processes_may_be_negative() {
        assert!((millis_between(1_000_000, 3_500_000) - 2.5).abs() < 1e-9);
        assert!((millis_between(3_500_000, 1_000_000) + 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_moment_that_has_passed_is_now() {
        let before = Instant::now();
        assert!(instant(now().saturating_sub(1_000_000_000)) <= Instant::now());
        assert!(instant(now() + 1_000_000_000) >= before + Duration::from_millis(900));
    }
}
