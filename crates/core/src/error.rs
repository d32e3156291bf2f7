//! What can go wrong, as facts a caller can branch on.

use std::sync::Arc;
use std::time::Duration;

use crate::key::KeyError;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the wire or the server said, as text.
///
/// Only codes and messages are kept: neither metadata nor request bodies, so that no token, password or value can reach
/// a log through an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(Arc<str>);

impl Cause {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

/// Why an epoch of a [`Session`](crate::Session) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// The local deadline ([`Epoch::valid_until`](crate::Epoch::valid_until)) passed without an acknowledged keepalive:
    /// etcd may or may not have ended the lease yet.
    Deadline,
    /// etcd said so: the lease expired or was revoked, or the session's key is gone.
    Expired,
    /// The session was closed by its owner, or its last handle was dropped.
    Closed,
}

impl std::fmt::Display for LostReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deadline => "no keepalive was acknowledged in time",
            Self::Expired => "its lease expired or was revoked",
            Self::Closed => "it was closed",
        })
    }
}

/// The error of the core, nested as `Core` in every recipe's own.
///
/// It is cheap to clone: one failed round trip may have carried many callers' operations.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name cannot be made into a key. Nothing was sent.
    #[error("invalid name or key")]
    InvalidKey(#[from] KeyError),
    /// An option makes no sense. Nothing was sent.
    #[error("invalid option {option}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An endpoint is not `scheme://host:port`. Nothing was sent.
    #[error("invalid etcd endpoint {endpoint:?}: {reason}")]
    InvalidEndpoint {
        /// The endpoint, without what may be a password.
        endpoint: String,
        /// What is wrong with it, and what is right.
        reason: String,
    },
    /// No member could be reached, or none had a leader: nothing was applied. Trying later can help.
    #[error("no etcd endpoint could serve the call within {deadline:?}: {cause}")]
    Unavailable {
        /// How long was tried.
        deadline: Duration,
        /// The last thing that each endpoint, or the connection to it, said, with the likely remedy.
        #[source]
        cause: Cause,
    },
    /// A read, or the wait for a state, did not end within its deadline. Nothing was changed by it.
    #[error("no answer from etcd within {deadline:?}: {cause}")]
    Timeout {
        /// How long was tried.
        deadline: Duration,
        /// The last thing that each endpoint, or the connection to it, said, with the likely remedy.
        #[source]
        cause: Cause,
    },
    /// A write was sent and its answer never came: it may have been applied, may be applied later, or never.
    #[error("the outcome of a write is unknown: {cause}")]
    OutcomeUnknown {
        /// Why the answer did not come.
        #[source]
        cause: Cause,
    },
    /// The write was applied exactly once, but the answer was lost and the history that held its value has been compacted.
    #[error("the write was applied, but its resulting value is no longer known")]
    ValueUnknown {
        /// The revision at which it was applied.
        revision: i64,
    },
    /// Others changed the same keys each time until the deadline: nothing was applied.
    #[error("too much contention: not settled within {deadline:?}")]
    Contended {
        /// How long was tried.
        deadline: Duration,
    },
    /// etcd refused the request as such; sending it again cannot help.
    #[error("etcd refused the request: {cause}")]
    Refused {
        /// The server's code and message.
        #[source]
        cause: Cause,
    },
    /// User, password or token were refused.
    #[error("authentication failed: {cause}")]
    Unauthenticated {
        /// The server's code and message.
        #[source]
        cause: Cause,
    },
    /// The user has no permission for these keys.
    #[error("permission denied: {cause}")]
    PermissionDenied {
        /// The server's code and message.
        #[source]
        cause: Cause,
    },
    /// TLS failed: unknown authority, expired or missing certificate, wrong name, or one side speaks TLS and the other
    /// does not.
    #[error("TLS failed: {cause}")]
    Tls {
        /// The endpoint, what the TLS library said, and the likely remedy.
        #[source]
        cause: Cause,
    },
    /// etcd's database is over its quota: only deletions and reads work until an operator makes room.
    #[error("etcd is out of space")]
    OutOfSpace,
    /// A request or value is larger than may be sent. Nothing was sent.
    #[error("{what} is too large: {size}, at most {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in bytes or operations.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The lease that a key was to live on has expired or was revoked. Nothing was applied.
    #[error("the lease has expired or was revoked")]
    LeaseGone,
    /// History at the wanted revision has been compacted away.
    #[error("history before revision {revision} has been compacted")]
    Compacted {
        /// The oldest revision that can still be read, if etcd told it, else 0.
        revision: i64,
    },
    /// The session's epoch on which the operation stood has ended; what was owned under it is no longer owned.
    #[error("session epoch {epoch} was lost: {reason}")]
    SessionLost {
        /// The epoch's number, from 1.
        epoch: u64,
        /// Why it ended.
        reason: LostReason,
    },
    /// The key is held by another live session.
    #[error("the name is held by another session")]
    NameTaken,
    /// The store behind the endpoints is not the one seen before, or has gone back in time (restored or wiped). All
    /// handles of this client are void: positions, fencing tokens and watches would silently mean something else.
    #[error("the store was rolled back or replaced: {detail}")]
    StoreRolledBack {
        /// What gave it away.
        detail: Arc<str>,
    },
    /// A stored value is not what this library writes. It was left alone.
    #[error("malformed value at {key}: {reason}")]
    Malformed {
        /// The key, escaped for display.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The background task that served this handle has ended (its runtime was shut down).
    #[error("the background task has ended")]
    Stopped,
}

impl Error {
    /// Whether the same call may succeed later *and* is safe to make again: nothing of it was applied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Contended { .. } | Self::OutOfSpace
        )
    }

    /// Whether the session (or the epoch of it) on which the operation stood is gone.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::SessionLost { .. })
    }

    /// Whether a write may or may not have been applied.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}
