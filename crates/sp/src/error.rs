//! What can go wrong with a socket.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be read.
    #[error("bad address {address:?}: {reason}")]
    BadAddress {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Somebody listens there already.
    #[error("the address {address} is in use")]
    AddressInUse {
        /// The address.
        address: String,
    },
    /// Listening failed for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// The socket listens on or dials this address already.
    #[error("the socket uses {address} already")]
    AlreadyUsed {
        /// The address.
        address: String,
    },
    /// The crate was built without the feature this address needs.
    #[error("{address} needs the feature `tls`")]
    NeedsTls {
        /// The address.
        address: String,
    },
    /// The options of TLS do not suffice or cannot be read.
    #[error("bad TLS options: {reason}")]
    BadTls {
        /// What is wrong. Never holds key material.
        reason: String,
    },
    /// There is no tokio runtime to work on.
    #[error("called outside of a tokio runtime")]
    NoRuntime,
    /// The message is larger than [`SocketOptions::max_message`](crate::SocketOptions::max_message) and was not sent.
    #[error("the message has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The queue is full and the message was not sent (`try_send`).
    #[error("the queue is full")]
    Full,
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// The socket was closed before the answer to a request came: the request may or may not have been processed.
    #[error("the socket was closed before the answer came")]
    Unanswered,
    /// The answer went nowhere: whoever had asked is not connected any more.
    #[error("who had asked is gone")]
    PeerGone,
    /// A new survey was made before this one was over.
    #[error("a new survey took the place of this one")]
    Superseded,
    /// Events of peers came faster than they were taken, and this many were not kept.
    #[error("{count} events were missed")]
    Missed {
        /// How many.
        count: u64,
    },
}

impl Error {
    /// Whether the same call may succeed later and is safe to make again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::AddressInUse { .. })
    }

    /// Whether the peer may or may not have processed what was sent.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unanswered)
    }

    /// Whether the socket is closed, so that no call of this kind can succeed again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed | Self::Unanswered)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
