//! Where a topic lives.
//!
//! ```text
//! sereno/topic/<topic>/
//!   log/                     watched by subscribers
//!     batches/
//!       <hint>.<publisher>.<seq>.<count>.<bytes>   one publish: its create revision is its position
//!     tail                   written by every publish: its version counts them, so a gap shows
//!   publishers/
//!     <publisher>            its version counts this publisher's publishes, so a copy cannot land twice; leased
//!   cursors/
//!     <name>                 position, and which subscription may move it
//!   trimmer                  who trims at the moment; leased
//!   trimmed                  what was there after the last trimming
//! ```
//! `hint`: a revision from before the publish, 16 hexadecimal digits, so that batches sort roughly by age. `publisher`: the
//! epoch's id, a dash, and the number of the queue within its process. `seq`: hexadecimal. `count` and `bytes`: messages
//! in the batch and length of its value, decimal, so that retention needs no values.

use sereno_core::{Epoch, Key, Namespace, Prefix, Result};

/// The keys of one topic.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) topic: Prefix,
    pub(crate) log: Prefix,
    pub(crate) batches: Prefix,
    pub(crate) tail: Key,
    pub(crate) publishers: Prefix,
    pub(crate) cursors: Prefix,
    pub(crate) trimmer: Key,
    pub(crate) trimmed: Key,
}

impl Keys {
    pub(crate) fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        let topic = namespace.prefix("topic")?.join(name)?;
        let log = topic.join("log")?;
        Ok(Self {
            batches: log.join("batches")?,
            tail: log.key("tail")?,
            publishers: topic.join("publishers")?,
            cursors: topic.join("cursors")?,
            trimmer: topic.key("trimmer")?,
            trimmed: topic.key("trimmed")?,
            topic,
            log,
        })
    }

    pub(crate) fn head(&self, publisher: &str) -> Result<Key> {
        Ok(self.publishers.key(publisher)?)
    }

    pub(crate) fn cursor(&self, name: &str) -> Result<Key> {
        Ok(self.cursors.key(name)?)
    }

    pub(crate) fn batch(&self, name: &BatchName) -> Result<Key> {
        let BatchName { hint, publisher, seq, count, bytes } = name;
        Ok(self.batches.key(format!("{hint:016x}.{publisher}.{seq:x}.{count}.{bytes}"))?)
    }

    /// `None` for what no publish writes.
    pub(crate) fn parse_batch(&self, key: &Key) -> Option<BatchName> {
        let name = self.batches.child(key)?;
        let mut parts = name.split('.');
        let hint = u64::from_str_radix(parts.next()?, 16).ok()?;
        let publisher = parts.next().filter(|publisher| !publisher.is_empty())?.to_owned();
        let seq = u64::from_str_radix(parts.next()?, 16).ok()?;
        let count = parts.next()?.parse().ok().filter(|count| *count > 0)?;
        let bytes = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(BatchName { hint, publisher, seq, count, bytes })
    }
}

/// What one queue of one epoch is called.
pub(crate) fn publisher(epoch: &Epoch, queue: u64) -> String {
    format!("{}-{queue:x}", epoch.id())
}

/// What a batch's key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchName {
    pub(crate) hint: u64,
    pub(crate) publisher: String,
    pub(crate) seq: u64,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::new(&Namespace::default(), "a/b").unwrap()
    }

    #[test]
    fn batches_sort_by_their_hint() {
        let name = |hint| BatchName { hint, publisher: "e-0".into(), seq: 1, count: 1, bytes: 9 };
        let key = |hint| keys().batch(&name(hint)).unwrap();
        assert!(key(9) < key(10) && key(255) < key(256) && key(1) < key(u64::MAX));
        assert_eq!(
            key(255).as_bytes(),
            b"sereno/topic/a%2Fb/log/batches/00000000000000ff.e-0.1.1.9".as_slice()
        );
    }

    #[test]
    fn what_no_publish_writes_is_not_parsed() {
        for name in ["x", "1.2.3", "0.e.0.0.5", "0..0.1.5", "0.e.0.1.5.6", "g.e.0.1.5", "0.e.0.-1.5"] {
            let key = keys().batches.key(name).unwrap();
            assert_eq!(keys().parse_batch(&key), None, "{name}");
        }
        assert_eq!(keys().parse_batch(&keys().tail), None);
    }

    proptest! {
        #[test]
        fn names_round_trip(hint: u64, seq: u64, count in 1..=u32::MAX, bytes: u64, queue: u64) {
            let name = BatchName { hint, publisher: format!("0123456789abcdef-{queue:x}"), seq, count, bytes };
            prop_assert_eq!(keys().parse_batch(&keys().batch(&name).unwrap()), Some(name));
        }
    }
}
