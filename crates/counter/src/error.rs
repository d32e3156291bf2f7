//! What can go wrong with a counter.

use sereno_core::SumOverflow;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The result would not fit into an `i64`. Nothing was applied.
    #[error("adding {by} to {value} overflows")]
    Overflow {
        /// The value when it was refused.
        value: i64,
        /// What was to be added.
        by: i64,
    },
    /// [`Counter::compare_and_set`](crate::Counter::compare_and_set) found another value. Nothing was applied.
    #[error("the value is {actual}, not {expected}")]
    Mismatch {
        /// What was expected.
        expected: i64,
        /// What it was.
        actual: i64,
    },
    /// [`Counter::remove`](crate::Counter::remove) was refused: other sessions count. Nothing was applied.
    #[error(
        "{sessions} other sessions have added within the last seconds; close them, or use Counter::remove_forced"
    )]
    InUse {
        /// The number of other sessions.
        sessions: usize,
    },
    /// Names, etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl From<SumOverflow> for Error {
    fn from(SumOverflow { value, by, .. }: SumOverflow) -> Self {
        Self::Overflow { value, by }
    }
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again: nothing of it was applied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_retryable())
    }

    /// Whether the session is closed. A lost epoch alone does not end a counter: it goes on under the next one.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_session_lost())
    }

    /// Whether the write may or may not have been applied.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}
