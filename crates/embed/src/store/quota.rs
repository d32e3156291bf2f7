//! How much is stored, and how much may be.

use super::index::Version;
use super::refusal::Refusal;

/// An estimate of what etcd's file would hold, the limit it may reach, and the alarm that goes off there.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    limit: Option<u64>,
    used: u64,
    /// Raised at the limit, by hand or by a fault: nothing can be written until it is disarmed.
    pub(crate) alarm: bool,
}

/// What a version costs beside its key and value, as etcd reckons.
const OVERHEAD: u64 = 256;

impl Quota {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn add(&mut self, version: &Version) {
        self.used += cost(version);
    }

    pub(super) fn remove(&mut self, version: &Version) {
        self.freed(cost(version));
    }

    pub(super) fn freed(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Refuses a write of `bytes` when it would not fit, and raises the alarm.
    pub(super) fn admit(&mut self, bytes: usize) -> Result<(), Refusal> {
        let needed = self.used + bytes as u64 + OVERHEAD;
        if self.limit.is_some_and(|limit| needed > limit) {
            self.alarm = true;
        }
        if self.alarm { Err(Refusal::NO_SPACE) } else { Ok(()) }
    }
}

/// What a version counts for.
pub(super) fn cost(version: &Version) -> u64 {
    (version.key.len() + version.value.len()) as u64 + OVERHEAD
}
