//! How to announce.

use sereno_core::Conflict;

/// Options of [`KeepAlive::with_options`](crate::KeepAlive::with_options).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KeepAliveOptions {
    /// What to do when another session holds the name. Default: [`Conflict::TakeOver`], so that a process that was
    /// restarted need not wait until the lease of its former life has run out.
    pub conflict: Conflict,
}

impl KeepAliveOptions {
    /// Sets [`KeepAliveOptions::conflict`].
    #[must_use]
    pub fn conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }
}
