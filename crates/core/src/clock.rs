//! How long the machine has slept.
//!
//! `Instant` stands still during a suspension, a lease does not: after waking up, an epoch whose time ran out meanwhile
//! would look valid for as long as the machine slept. Only the difference of two clocks is looked at, so that neither of
//! them is compared with tokio's, which a test may have paused.

use std::time::Duration;

/// What a comparison of two clocks may be wrong by when nothing slept. Far below any epoch's margin.
const NOISE: Duration = Duration::from_millis(10);

/// For how long the machine has slept since it was started, as far as is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slept(Option<Duration>);

impl Slept {
    /// Since the start of the machine.
    pub(crate) fn now() -> Self {
        Self(slept())
    }

    /// What came to it since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        match (self.0, earlier.0) {
            (Some(now), Some(then)) => Some(now.saturating_sub(then)).filter(|slept| *slept > NOISE),
            _ => None,
        }
        .unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn less(self, time: Duration) -> Self {
        Self(self.0.map(|slept| slept.saturating_sub(time)))
    }
}

/// The time since boot with sleep less that without.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn slept() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let now = clock_gettime(clock);
        Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))
    };
    let mut least: Option<Duration> = None;
    // A thread that has to wait between the two readings sees a difference that is none: it reads again.
    for _ in 0..4 {
        let without = read(ClockId::Monotonic)?;
        let with = read(ClockId::Boottime)?;
        let slept = with.saturating_sub(without);
        least = Some(least.map_or(slept, |least| least.min(slept)));
        if read(ClockId::Monotonic)?.saturating_sub(without) < NOISE {
            break;
        }
    }
    least
}

/// Not told apart from `Instant` here; on macOS and Windows `Instant` itself goes on or not as the system decides.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn slept() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_does_not_sleep_has_not_slept() {
        let earlier = Slept::now();
        for _ in 0..1000 {
            assert_eq!(Slept::now().since(earlier), Duration::ZERO);
        }
    }

    #[test]
    fn sleep_is_counted_from_the_earlier_reading() {
        let earlier = Slept(Some(Duration::from_secs(5)));
        assert_eq!(Slept(Some(Duration::from_secs(65))).since(earlier), Duration::from_secs(60));
        assert_eq!(Slept(None).since(earlier), Duration::ZERO);
    }
}
