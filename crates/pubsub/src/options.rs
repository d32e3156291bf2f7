//! How to publish, how to keep, how to subscribe.

use std::time::Duration;

use sereno_core::Overflow;

use crate::position::Position;

/// The longest payload, in bytes: 1 MiB.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// The longest headers of one message, names, values and lengths together, in bytes: 64 KiB.
pub const MAX_HEADERS: usize = 64 << 10;

/// The least that the queue must hold: the longest message, twice.
const MIN_QUEUE: usize = 2 * (MAX_PAYLOAD + MAX_HEADERS + 32);

/// Options of [`Topic::with_options`](crate::Topic::with_options).
///
/// They govern what is published through the handle. All handles of one session and one topic publish through one
/// queue: the one that publishes first gives the options.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicOptions {
    /// What is kept of what has been published. Default: [`Retention::default`].
    pub retention: Retention,
    /// When a batch is full, in bytes; a longer message goes by itself. Default: 512 KiB, at most 1 MiB. At 1 every
    /// message is a publish of its own.
    pub batch_bytes: usize,
    /// How much may be queued and under way, in bytes; then publishing waits. Default: 8 MiB, at least 2.2 MiB.
    pub queue_bytes: usize,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self { retention: Retention::default(), batch_bytes: 512 << 10, queue_bytes: 8 << 20 }
    }
}

impl TopicOptions {
    /// Sets [`TopicOptions::retention`].
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets [`TopicOptions::batch_bytes`].
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets [`TopicOptions::queue_bytes`].
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    pub(crate) fn check(&self) -> sereno_core::Result<()> {
        let refuse = |option, reason: &str| {
            Err(sereno_core::Error::InvalidOption { option, reason: reason.to_owned() })
        };
        if self.batch_bytes == 0 || self.batch_bytes > 1 << 20 {
            return refuse("batch_bytes", "between 1 byte and 1 MiB, which etcd takes in one request");
        }
        if self.queue_bytes < MIN_QUEUE || self.queue_bytes > 1 << 30 {
            return refuse("queue_bytes", "room for the longest message twice, and at most 1 GiB");
        }
        if self.retention.age.is_some_and(|age| age < Duration::from_secs(1)) {
            return refuse("retention.age", "leases have whole seconds, at least 1 s");
        }
        if self.retention.messages == Some(0) || self.retention.bytes == Some(0) {
            return refuse("retention", "a limit of nothing keeps nothing; use None for no limit");
        }
        Ok(())
    }
}

/// What is kept of a topic: whichever limit is reached first. Limits are those of who publishes; with several
/// publishers of different limits the smallest count and size hold for all, and each batch has its own publisher's age.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// How long a batch is kept at least; it goes within an eighth more (at least 1 s, at most 1 h, and what etcd takes to
    /// end a lease). Default: 24 h. `None`: no limit.
    pub age: Option<Duration>,
    /// How many of the newest messages are kept at least; about an eighth or 16 batches more may be there for a while.
    /// Default: `None`, no limit.
    pub messages: Option<u64>,
    /// How many bytes may be kept, keys and 512 bytes per batch for etcd's own bookkeeping included; exceeded by about an
    /// eighth for a while. The newest batch is always kept. Default: 256 MiB. `None`: no limit.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Some(Duration::from_secs(24 * 3600)), messages: None, bytes: Some(256 << 20) }
    }
}

impl Retention {
    /// Keeps everything: the topic grows until etcd is full.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { age: None, messages: None, bytes: None }
    }

    /// Sets [`Retention::age`].
    #[must_use]
    pub fn age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.age = age.into();
        self
    }

    /// Sets [`Retention::messages`].
    #[must_use]
    pub fn messages(mut self, messages: impl Into<Option<u64>>) -> Self {
        self.messages = messages.into();
        self
    }

    /// Sets [`Retention::bytes`].
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.bytes = bytes.into();
        self
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum From {
    /// With the first message committed after [`subscribe`](crate::Topic::subscribe) returns, or slightly before.
    Now,
    /// With the first message after this position.
    Position(Position),
    /// With the oldest message that is kept.
    Oldest,
    /// Behind what was acknowledged under this name; see [`SubscribeOptions::new_cursor`] for the first time.
    Cursor(String),
}

impl From {
    /// [`From::Cursor`].
    pub fn cursor(name: impl Into<String>) -> Self {
        Self::Cursor(name.into())
    }
}

impl std::convert::From<Position> for From {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

/// Where a cursor is created that does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NewCursor {
    /// At the present end of the topic.
    #[default]
    Now,
    /// Before the oldest message that is kept.
    Oldest,
}

/// Options of [`Topic::subscribe_with`](crate::Topic::subscribe_with).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// What happens when the subscriber does not keep up. Its queue holds 1,024 publishes or 8 MiB. Default:
    /// [`Overflow::Pause`], the backlog stays in etcd. With [`Overflow::DropOldest`] what was dropped is reported as
    /// [`Delivery::Lagged`](crate::Delivery::Lagged); with [`Overflow::End`] the subscription ends with
    /// [`Error::TooSlow`](crate::Error::TooSlow).
    pub overflow: Overflow,
    /// Where the cursor of [`From::Cursor`] is created at first use. Default: [`NewCursor::Now`].
    pub new_cursor: NewCursor,
}

impl SubscribeOptions {
    /// Sets [`SubscribeOptions::overflow`].
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets [`SubscribeOptions::new_cursor`].
    #[must_use]
    pub fn new_cursor(mut self, new_cursor: NewCursor) -> Self {
        self.new_cursor = new_cursor;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let bad = [
            TopicOptions::default().batch_bytes(0),
            TopicOptions::default().batch_bytes(2 << 20),
            TopicOptions::default().queue_bytes(1 << 20),
            TopicOptions::default().retention(Retention::default().age(Duration::from_millis(10))),
            TopicOptions::default().retention(Retention::default().messages(0)),
            TopicOptions::default().retention(Retention::default().bytes(0)),
        ];
        for options in bad {
            assert!(options.check().is_err(), "{options:?}");
        }
        assert!(TopicOptions::default().check().is_ok());
        assert!(TopicOptions::default().retention(Retention::unlimited()).check().is_ok());
    }
}
