//! What can go wrong with a destination or a member of a group.

use crate::mode::Mode;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another live registration has the destination: when registering, after the time to wait for it; or it took the
    /// place of one that had been lost.
    #[error("destination {destination:?} is registered by another process")]
    Owned {
        /// The destination.
        destination: String,
    },
    /// The registration was deleted underneath, and was not to be made again.
    #[error("the registration of destination {destination:?} was deleted")]
    Deleted {
        /// The destination.
        destination: String,
    },
    /// This registration has ended, because it was asked to.
    #[error("destination {destination:?} is not registered any more")]
    Unregistered {
        /// The destination.
        destination: String,
    },
    /// Nobody has registered the destination, or who had has gone, and it was not to be waited for.
    #[error("nobody has registered destination {destination:?}")]
    NoDestination {
        /// The destination.
        destination: String,
    },
    /// The group gets its messages in another mode than this member wants.
    #[error("group {group:?} of destination {destination:?} is {mode}")]
    ModeMismatch {
        /// The destination.
        destination: String,
        /// The group.
        group: String,
        /// The mode of the group.
        mode: Mode,
    },
    /// The member's key was deleted underneath, and was not to be made again.
    #[error("the membership in group {group:?} was deleted")]
    Removed {
        /// The group.
        group: String,
    },
    /// This member has left, because it was asked to.
    #[error("left group {group:?}")]
    Left {
        /// The group.
        group: String,
    },
    /// The connection by which a message came is gone: it was not acknowledged, and comes again, here or elsewhere.
    #[error("the message could not be acknowledged: its connection is gone")]
    NotAcknowledged,
    /// The message is larger than it may be, and was sent to nobody.
    #[error("the message has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A socket could not be made: the address cannot be read, is in use, or is none of this machine's.
    #[error("no socket for the messages")]
    Socket(#[source] sereno_sp::Error),
    /// Names, options, etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl From<sereno_core::KeyError> for Error {
    fn from(error: sereno_core::KeyError) -> Self {
        Self::Core(error.into())
    }
}

impl Error {
    pub(crate) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Core(sereno_core::Error::InvalidOption { option, reason: reason.into() })
    }

    /// Whether the same call may succeed later and is safe to make again: who has the name may go, who is missing may
    /// come, a group may end and begin in another mode.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Owned { .. } | Self::NoDestination { .. } | Self::ModeMismatch { .. } => true,
            Self::Socket(error) => error.is_retryable(),
            Self::Core(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the session, or the epoch of it, on which this stood is gone.
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
