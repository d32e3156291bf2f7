//! What can go wrong between peers.

use crate::name::NameFault;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name cannot be a peer's.
    #[error("bad name {name:?}: {fault}")]
    BadName {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// An empty list of addresses was given.
    #[error("no address was given")]
    NoAddress,
    /// An option has a value it must not have.
    #[error("option {option}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client was made without a subscription: it is seen, and sees nobody.
    #[error("the client was made without a subscription")]
    NoSubscription,
    /// Somebody published what is no list of names, or too long a one. It was ignored; what was known stays.
    #[error("{url} published no acceptable list of names: {fault}")]
    BadPublication {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        fault: PublicationFault,
    },
    /// The sockets of survey mode.
    #[error(transparent)]
    Socket(#[from] sereno_sp::Error),
    /// Names, etcd, the session: of the mode that stands on etcd.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

/// What is wrong with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicationFault {
    /// It is not valid UTF-8.
    NotUtf8,
    /// It has more names than [`ClientOptions::max_peers`](crate::ClientOptions::max_peers).
    TooManyNames,
    /// It is larger than [`ClientOptions::max_message`](crate::ClientOptions::max_message). Its sender was disconnected.
    TooLarge,
}

impl std::fmt::Display for PublicationFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "it is not UTF-8",
            Self::TooManyNames => "it has too many names",
            Self::TooLarge => "it is too large",
        })
    }
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BadPublication { .. } => true,
            Self::Socket(error) => error.is_retryable(),
            Self::Core(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the session is closed: this client is not seen any more. Of the mode that stands on etcd alone.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_session_lost())
    }

    /// Whether a write may or may not have been applied. Of the mode that stands on etcd alone.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}
