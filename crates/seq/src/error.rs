//! What can go wrong with a member of a group.

use std::time::Duration;

use crate::options::Assignment;
use crate::position::Invalid;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The member has no valid position.
    #[error("the position is not valid: {0}")]
    Invalid(Invalid),
    /// No position was there within the client's deadline: the member that was joining has left again.
    #[error("no position in group {group:?} within {deadline:?}")]
    NoPosition {
        /// The group.
        group: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The group's earlier members use the other assignment. The member that was joining has left again.
    #[error("group {group:?} has {found:?} assignment")]
    OtherAssignment {
        /// The group.
        group: String,
        /// What its members use.
        found: Assignment,
    },
    /// etcd did not confirm in time that the member has left. Leaving continues in the background, until the session's epoch
    /// ends.
    #[error(
        "etcd did not confirm within {deadline:?} that the member left group {group:?}; it continues in the background"
    )]
    NotGone {
        /// The group.
        group: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// Names, etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid(invalid) => !invalid.is_final(),
            Self::NoPosition { .. } | Self::NotGone { .. } => true,
            Self::OtherAssignment { .. } => false,
            Self::Core(error) => error.is_retryable(),
        }
    }

    /// Whether the session is closed, or the epoch of it that mattered has ended.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        match self {
            Self::Invalid(invalid) => matches!(invalid, Invalid::Closed | Invalid::EpochLost(_)),
            Self::Core(error) => error.is_session_lost(),
            _ => false,
        }
    }

    /// Whether a write may or may not have been applied. Nothing of it stays: what a join or a claim may have written
    /// is taken back in the background.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}
