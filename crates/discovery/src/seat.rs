//! One host in a balancer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::entry::Entry;
use crate::health::Health;

/// A host as it is stored, and what callers reported of it, which outlives an update of the host.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) entry: Arc<Entry>,
    pub(crate) health: Arc<Health>,
}

impl Seat {
    pub(crate) fn weight(&self) -> f64 {
        self.entry.host.weight
    }

    /// How many requests are under way.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn load(&self) -> f64 {
        self.health.in_flight.load(Ordering::Relaxed) as f64
    }

    /// Whether it is the same registration: what was reported of a host before it was started anew does not count.
    pub(crate) fn is_of(&self, entry: &Entry) -> bool {
        self.entry.rank() == entry.rank()
    }
}
