//! What can go wrong with ids.

use std::time::Duration;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate. No id is ever repeated to avoid one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All 65,536 worker ids are taken by live processes (or fewer are free than were asked for).
    #[error("no free worker id is left")]
    Exhausted,
    /// The wall clock is behind: behind the ids this generator has given out by more than
    /// [`IdOptions::max_lead`](crate::IdOptions::max_lead), or behind what others may have given out under every worker
    /// id that was tried. It was set back here, or had been ahead there. Going on could repeat an id.
    ///
    /// Waiting until it has caught up helps, and so may [`IdGenerator::reopen`](crate::IdGenerator::reopen).
    #[error("the wall clock is {behind:?} behind ids that may have been given out")]
    ClockBehind {
        /// By how much.
        behind: Duration,
    },
    /// 39 bits of time have been used up. Not before September 2188, unless the clock is wrong.
    #[error("the time of ids has run out")]
    TimeOver,
    /// Somebody deleted the worker id's key underneath, so that another process may get it.
    #[error("worker id {worker} was taken away")]
    WorkerLost {
        /// The worker id.
        worker: u16,
    },
    /// [`IdGenerator::close`](crate::IdGenerator::close) was called.
    #[error("the generator is closed")]
    Closed,
    /// Etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Exhausted | Self::ClockBehind { .. } => true,
            // Nothing but ids is given out: after an unknown outcome, too, asking again is safe.
            Self::Core(error) => error.is_retryable() || error.is_outcome_unknown(),
            Self::TimeOver | Self::WorkerLost { .. } | Self::Closed => false,
        }
    }

    /// Whether the session (or the epoch of it) on which the generator stood is gone: see
    /// [`IdGenerator::reopen`](crate::IdGenerator::reopen).
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_session_lost())
    }

    /// Whether a write may or may not have been applied. No id depends on it.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}
