//! Options of a counter.

use std::time::Duration;

use sereno_core::CellsOptions;

/// Options of [`Counter::with_options`](crate::Counter::with_options).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CounterOptions {
    /// How long the counter outlives its last user: the last handle anywhere that was made with this option or has
    /// written. Default: for ever.
    ///
    /// A counter has one such time: the first user who wants one sets it, and all others follow. In whole seconds (rounded
    /// up); etcd grants no less than one and a half of its election timeouts (2 s with its defaults).
    pub ttl: Option<Duration>,
}

impl CounterOptions {
    /// Sets [`CounterOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub(crate) fn cells(self) -> CellsOptions {
        match self.ttl {
            Some(ttl) => CellsOptions::default().ttl(ttl),
            None => CellsOptions::default(),
        }
    }
}
