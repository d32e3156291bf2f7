//! The clock that goes on while the machine sleeps.
//!
//! `Instant` stands still during a suspension, a lease does not: after waking up, an epoch whose time ran out meanwhile
//! would look valid for as long as the machine slept.

use std::time::Duration;

/// Time since boot, suspensions included.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn since_boot() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))
}

/// Not told apart from `Instant` here; on macOS and Windows `Instant` itself goes on or not as the system decides.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn since_boot() -> Option<Duration> {
    None
}
