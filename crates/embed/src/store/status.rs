//! What a maintainer asks of the store.

use super::checksum::Checksum;
use super::refusal::Refusal;
use super::span::Span;
use super::state::State;

impl State {
    /// About how many bytes it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.quota.used()
    }

    pub(crate) fn alarm(&self) -> bool {
        self.quota.alarm
    }

    pub(crate) fn set_alarm(&mut self, raised: bool) {
        self.quota.alarm = raised;
    }

    /// The compacted revision as it is told: -1 when there is none.
    pub(crate) fn compact_revision(&self) -> i64 {
        self.compacted
    }

    /// A checksum of all changes there have been.
    pub(crate) fn journal(&self) -> u64 {
        self.history.journal()
    }

    /// A checksum of all keys at a revision; 0 means now. The same contents give the same one, but not etcd's.
    pub(crate) fn hash(&self, revision: i64) -> Result<u32, Refusal> {
        // Unlike a read, it cannot be had at the compacted revision itself.
        if revision > 0 && revision <= self.compacted {
            return Err(Refusal::COMPACTED);
        }
        let revision = if revision <= 0 { self.revision } else { revision };
        self.check_readable(revision, self.revision)?;
        let all = Span::From(vec![0]);
        let (versions, _) = self.range_at(&all, revision, usize::MAX);
        let mut checksum = Checksum::default();
        for version in versions {
            checksum.add(&version);
        }
        let value = checksum.value();
        // Both halves, because etcd's has 32 bits.
        Ok((value ^ (value >> 32)) as u32)
    }
}
