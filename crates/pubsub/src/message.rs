//! Messages: as they go out, and as they come in.

use std::fmt;
use std::sync::Arc;
// tidy: payload timestamp
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sereno_core::pace;

use crate::envelope;
use crate::error::{Error, Result};
use crate::options::{MAX_HEADERS, MAX_PAYLOAD};
use crate::position::Position;

/// A message to be published: any bytes, and headers.
///
/// Bytes, vectors and texts convert into one by themselves:
/// ```
/// # use sereno_pubsub::Draft;
/// let plain = Draft::from("hello");
/// let dressed = Draft::new(vec![0xff, 0x00]).header("content-type", "application/octet-stream");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Draft {
    pub(crate) payload: Bytes,
    /// As they are in the envelope.
    pub(crate) headers: Vec<u8>,
}

impl Draft {
    /// A message without headers.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), headers: Vec::new() }
    }

    /// A message whose payload is `value` as JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when the value cannot be written so.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    /// Adds a header. Names may come more than once; their order is kept.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        envelope::put_text(&mut self.headers, name.as_ref());
        envelope::put_text(&mut self.headers, value.as_ref());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(Error::PayloadTooLarge { size: self.payload.len(), limit: MAX_PAYLOAD });
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(Error::HeadersTooLarge { size: self.headers.len(), limit: MAX_HEADERS });
        }
        Ok(())
    }
}

/// Sizes only: payloads may be secret.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} bytes, {} of headers)", self.payload.len(), self.headers.len())
    }
}

macro_rules! draft_from {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Draft {
            fn from(payload: $kind) -> Self {
                Self::new(payload)
            }
        }
    )*};
}
draft_from!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl<const N: usize> From<&'static [u8; N]> for Draft {
    fn from(payload: &'static [u8; N]) -> Self {
        Self::new(payload.as_slice())
    }
}

/// What a [`Subscription`](crate::Subscription) yields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The next message.
    Message(Message),
    /// Here publishes are missing: retention or [`Overflow::DropOldest`](sereno_core::Overflow::DropOldest) has taken
    /// them before they could be delivered. Never skipped silently.
    Lagged {
        /// How many publishes: exactly as many messages when they were published one at a time, else at least as many,
        /// because a packed batch is one publish. `None` when it cannot be known: the position resumed from had no
        /// ordinal, or the topic was deleted and begun again.
        missed: Option<u64>,
    },
    /// Here is something that no publish of this version has written. It was skipped.
    Malformed {
        /// Where it is.
        revision: i64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A message as it was published.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The bytes. A slice of its whole batch, not a copy: whoever keeps a few messages for long should copy them.
    pub payload: Bytes,
    /// The headers.
    pub headers: Headers,
    /// Its place in the topic.
    pub position: Position,
    pub(crate) origin: Arc<Origin>,
}

/// What all messages of a batch share.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) publisher: String,
    pub(crate) published: Duration,
}

impl Message {
    /// Who published it: a name that each queue of each session epoch has for itself.
    #[must_use]
    pub fn publisher(&self) -> &str {
        &self.origin.publisher
    }

    /// When its batch was begun, by the publisher's clock: for people to read, not for order.
    #[must_use]
    pub fn published_at(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(self.origin.published).unwrap_or(UNIX_EPOCH)
    }

    /// The payload read as JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when it is not, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.payload)?)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("headers", &format_args!("{}", self.headers.iter().count()))
            .field("position", &format_args!("{}", self.position))
            .field("publisher", &self.origin.publisher)
            .finish()
    }
}

/// The headers of a message, in the order in which they were added.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    pub(crate) encoded: Bytes,
}

impl Headers {
    /// The first value under that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest: &[u8] = &self.encoded;
        std::iter::from_fn(move || {
            let name = envelope::take_text(&mut rest)?;
            Some((name, envelope::take_text(&mut rest)?))
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

/// Names only: values may be secret.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Microseconds since 1970, for the envelope.
pub(crate) fn now() -> u64 {
    u64::try_from(pace::wall().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact() {
        assert!(Draft::new(vec![0; MAX_PAYLOAD]).check().is_ok());
        let large = Draft::new(vec![0; MAX_PAYLOAD + 1]).check();
        assert!(matches!(large, Err(Error::PayloadTooLarge { size, limit }) if size == limit + 1));
        let headers = Draft::new("").header("n", "v".repeat(MAX_HEADERS)).check();
        assert!(matches!(headers, Err(Error::HeadersTooLarge { .. })));
    }

    #[test]
    fn debug_shows_no_content() {
        let draft = Draft::new("canary").header("name", "canary");
        assert!(!format!("{draft:?}").contains("canary"));
        let headers = Headers { encoded: draft.headers.into() };
        assert_eq!(format!("{headers:?}"), "[\"name\"]");
    }
}
