//! What can go wrong with a node's presence.

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is held by another live session: under [`Conflict::Refuse`](crate::Conflict::Refuse) when announcing,
    /// and for an announcement that another session took over.
    #[error("node {node:?} of group {group:?} is held by another session")]
    NameTaken {
        /// The group.
        group: String,
        /// The node.
        node: String,
    },
    /// Names, etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again. A taken name counts: its holder may leave.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NameTaken { .. } => true,
            Self::Core(error) => error.is_retryable(),
        }
    }

    /// Whether the session is closed: nothing is announced any more. A lost epoch alone does not do that.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_session_lost())
    }

    /// Whether a write may or may not have been applied.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}
