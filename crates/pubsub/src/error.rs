//! What can go wrong with a topic.

use std::sync::Arc;
use std::time::Duration;

use crate::position::Position;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of this crate. Cheap to clone: one failed batch may have carried many callers' messages.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the core.
    #[error("the topic's store could not do its part")]
    Core(#[from] sereno_core::Error),
    /// The payload is longer than [`MAX_PAYLOAD`](crate::MAX_PAYLOAD). Nothing was sent.
    #[error("a payload of {size} bytes is too large, at most {limit}")]
    PayloadTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The headers are together longer than [`MAX_HEADERS`](crate::MAX_HEADERS). Nothing was sent.
    #[error("headers of {size} bytes are too large, at most {limit}")]
    HeadersTooLarge {
        /// Their size in bytes, lengths included.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The publishing queue had no room within the client's deadline. Nothing was sent.
    #[error("the queue had no room within {deadline:?}")]
    QueueFull {
        /// How long was waited.
        deadline: Duration,
    },
    /// The session of the topic's handle is closing or closed: nothing more is published through it. Nothing was sent.
    #[error("the session is closed")]
    Closed,
    /// A publish may or may not have been applied: its answer was lost, then the session, and what would tell may have
    /// been taken by retention.
    #[error("the outcome of a publish is unknown")]
    OutcomeUnknown {
        /// What was lost.
        #[source]
        cause: sereno_core::Error,
    },
    /// The subscriber was too slow and had asked for the end in that case
    /// ([`Overflow::End`](sereno_core::Overflow::End)). This is the subscription's last item.
    #[error("the subscriber was too slow")]
    TooSlow,
    /// Messages were missed ([`Subscription::next_message`](crate::Subscription::next_message) only). The subscription
    /// goes on behind the gap.
    #[error("messages were missed: {missed:?} publishes")]
    Lagged {
        /// How many publishes, as in [`Delivery::Lagged`](crate::Delivery::Lagged).
        missed: Option<u64>,
    },
    /// Something in the topic was not written by this library, or by a newer one
    /// ([`Subscription::next_message`](crate::Subscription::next_message) only). The subscription goes on behind it.
    #[error("malformed batch at revision {revision}: {reason}")]
    Malformed {
        /// Where it is.
        revision: i64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The position lies beyond the end of the store: it is from another one, or the store was restored.
    #[error("position {position} lies beyond the store's revision {revision}")]
    PositionAhead {
        /// The position asked for.
        position: Position,
        /// The store's revision.
        revision: i64,
    },
    /// A later subscription has taken the cursor over: this one may not move it any more.
    #[error("the cursor has been taken over by a later subscription")]
    CursorTaken,
    /// [`Topic::remove`](crate::Topic::remove) was refused: others use the topic. Nothing was removed.
    #[error(
        "{publishers} other sessions publish to the topic, and these cursors have subscriptions: {cursors:?}; \
         close them, or use Topic::remove_forced"
    )]
    InUse {
        /// The number of other sessions that have published and live.
        publishers: usize,
        /// The cursors whose subscriptions were made by other sessions that live.
        cursors: Vec<String>,
    },
    /// The cursor was removed underneath the subscription.
    #[error("the cursor is gone")]
    CursorGone,
    /// The cursor is further already: acknowledging never moves it back.
    #[error("the cursor is at {at} already")]
    AckBehind {
        /// Where the cursor is.
        at: Position,
    },
    /// This subscription has not delivered that position yet.
    #[error("that position has not been delivered yet")]
    AckAhead,
    /// The subscription was not made from a cursor: there is nothing to acknowledge to.
    #[error("the subscription has no cursor")]
    NoCursor,
    /// A value could not be made into JSON, or a payload not into the value.
    #[error("json")]
    Json(#[source] Arc<serde_json::Error>),
}

impl Error {
    /// Whether the same call may succeed later *and* is safe to make again: nothing of it was applied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Core(error) => error.is_retryable(),
            Self::QueueFull { .. } | Self::Lagged { .. } | Self::Malformed { .. } => true,
            _ => false,
        }
    }

    /// Whether the session on which the operation stood is gone.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        match self {
            Self::Core(error) => error.is_session_lost(),
            Self::Closed => true,
            _ => false,
        }
    }

    /// Whether a publish or an acknowledgement may or may not have been applied.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Core(error) => error.is_outcome_unknown(),
            Self::OutcomeUnknown { .. } => true,
            _ => false,
        }
    }
}

impl From<sereno_core::KeyError> for Error {
    fn from(error: sereno_core::KeyError) -> Self {
        Self::Core(error.into())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(Arc::new(error))
    }
}
