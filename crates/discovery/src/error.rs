//! What can go wrong with services and hosts.

use std::time::Duration;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate. None of its texts shows a password.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No host of that service is there, and nothing is said of it: nobody has ever registered it.
    #[error("no service {service:?} was found")]
    NoServiceFound {
        /// The service.
        service: String,
    },
    /// The service is known, but none of its hosts is there.
    #[error("no host of service {service:?} was found")]
    NoHostFound {
        /// The service.
        service: String,
    },
    /// The service has entries, but none of them can be read: somebody else has written them, or a newer version.
    #[error(
        "no host of service {service:?} can be read; {malformed} are malformed, the first at {key}: {reason}"
    )]
    NoReadableHost {
        /// The service.
        service: String,
        /// The number of malformed entries.
        malformed: usize,
        /// The first of their keys, escaped for display.
        key: String,
        /// The fault of that entry; nothing of the value itself.
        reason: String,
    },
    /// The service has hosts, but none in that shard.
    #[error("no host of service {service:?} was found on shard {shard:?}")]
    NoHostFoundOnShard {
        /// The service.
        service: String,
        /// The shard.
        shard: String,
    },
    /// There is no port under that scheme; under none of `http` and `https` when the scheme is empty.
    #[error("there is no port for scheme {scheme:?}")]
    UnknownScheme {
        /// The scheme asked for.
        scheme: String,
    },
    /// A host cannot be registered as it is. Nothing was sent.
    #[error("invalid host: {field}: {reason}")]
    InvalidHost {
        /// The field, as it is named in JSON.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An option makes no sense. Nothing was sent.
    #[error("invalid option {option}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The registration has not been made yet.
    #[error("not registered yet")]
    NotReady,
    /// The registration could not be made within its start-up deadline, and was given up.
    #[error("not registered within {within:?}")]
    StartUp {
        /// The deadline.
        within: Duration,
        /// What stood in the way last.
        #[source]
        cause: Option<sereno_core::Error>,
    },
    /// etcd did not confirm a change of a registration in time. The change is remembered, and written as soon as etcd answers.
    #[error(
        "etcd did not confirm a change of the registration within {within:?}; it continues in the background"
    )]
    NotYet {
        /// How long was waited.
        within: Duration,
    },
    /// The registration has been stopped.
    #[error("the registration was stopped")]
    Deregistered,
    /// What was known of the service is older than may be served, and etcd does not answer.
    #[error("what is known of service {service:?} is {age:?} old")]
    Stale {
        /// The service.
        service: String,
        /// How old it is.
        age: Duration,
    },
    /// Something stored is not what it should be. It was left alone.
    #[error("malformed value at {key}: {reason}")]
    Malformed {
        /// The key, escaped for display.
        key: String,
        /// What is wrong with it; nothing of the value itself.
        reason: String,
    },
    /// Names, etcd, the session.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again. Hosts that are not there may come.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoServiceFound { .. }
            | Self::NoHostFound { .. }
            | Self::NoReadableHost { .. }
            | Self::NoHostFoundOnShard { .. }
            | Self::NotReady
            | Self::NotYet { .. }
            | Self::Stale { .. } => true,
            Self::Core(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the session is closed: nothing is registered any more. A lost epoch alone does not do that.
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
