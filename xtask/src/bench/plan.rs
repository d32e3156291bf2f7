//! How long is measured.

use std::time::Duration;

/// Numbers of windows, rounds and messages.
///
/// Windows are short and take turns, so that what else the machine does meets all that are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Windows of each kind; their median counts.
    pub(super) windows: usize,
    /// Length of a window.
    pub(super) window: Duration,
    /// A window before the first, whose figures do not count.
    pub(super) warm_up: Duration,
    /// Messages that one round of the packed publisher sends.
    pub(super) packed: u64,
    /// Rounds of waking a waiter.
    pub(super) wakes: usize,
}

impl Plan {
    pub(super) fn quick() -> Self {
        Self {
            windows: 3,
            window: Duration::from_millis(500),
            warm_up: Duration::from_millis(200),
            packed: 300_000,
            wakes: 200,
        }
    }

    pub(super) fn thorough() -> Self {
        Self {
            windows: 9,
            window: Duration::from_secs(1),
            warm_up: Duration::from_millis(500),
            packed: 300_000,
            wakes: 500,
        }
    }
}
