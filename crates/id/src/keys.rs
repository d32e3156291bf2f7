//! Where worker ids are leased and where their ids' time is reserved.
//!
//! ```text
//! sereno/id/
//!   workers/<n>     who has worker id n (five digits); leased by the session, created once, never written again
//!   clock/<n>       until when ids of worker id n may have been given out: ms since 1970, decimal; stays
//! ```

use sereno_core::{Client, Error, Key, KeyValue, Prefix};

use crate::layout;

/// The subtrees.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    workers: Prefix,
    clock: Prefix,
}

impl Keys {
    pub(crate) fn new(client: &Client) -> Result<Self, Error> {
        let root = client.namespace().prefix("id")?;
        Ok(Self { workers: root.join("workers")?, clock: root.join("clock")? })
    }

    pub(crate) fn workers(&self) -> &Prefix {
        &self.workers
    }

    pub(crate) fn worker(&self, worker: u16) -> Result<Key, Error> {
        Ok(self.workers.key(format!("{worker:05}"))?)
    }

    pub(crate) fn clock(&self, worker: u16) -> Result<Key, Error> {
        Ok(self.clock.key(format!("{worker:05}"))?)
    }

    /// `None` for a key that no generator wrote.
    pub(crate) fn parse_worker(&self, key: &Key) -> Option<u16> {
        let worker = self.workers.child(key)?.parse().ok()?;
        (self.worker(worker).ok().as_ref() == Some(key)).then_some(worker)
    }
}

/// The value that reserves all ticks before `mark`.
pub(crate) fn clock_value(mark: u64) -> String {
    layout::instant(mark).as_millis().to_string()
}

/// The first tick that is not reserved.
pub(crate) fn parse_clock(kv: &KeyValue) -> Result<u64, Error> {
    let text = std::str::from_utf8(&kv.value).ok();
    let millis: Option<u64> = text.and_then(|text| text.parse().ok());
    match millis.map(std::time::Duration::from_millis) {
        // Rounded up: the value might be another version's.
        Some(time) => Ok(layout::ticks(time.saturating_sub(layout::EPOCH))),
        None => {
            let reason = "not a number of milliseconds".into();
            Err(Error::Malformed { key: kv.key.to_string(), reason })
        }
    }
}
