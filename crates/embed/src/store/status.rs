//! What a maintainer asks of the store.

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

    /// A checksum of all keys at a revision; 0 means now. The same contents give the same one, but not etcd's.
    pub(crate) fn hash(&self, revision: i64) -> Result<u32, Refusal> {
        let revision = if revision <= 0 { self.revision } else { revision };
        self.check_readable(revision, self.revision)?;
        let all = Span::From(vec![0]);
        let (versions, _) = self.range_at(&all, revision, usize::MAX);
        // FNV-1a.
        let mut hash = 0x811c_9dc5_u32;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
            }
        };
        for version in versions {
            for bytes in [&version.key, &version.value] {
                eat(&bytes.len().to_be_bytes());
                eat(bytes);
            }
            for number in [version.create_revision, version.mod_revision, version.version, version.lease] {
                eat(&number.to_be_bytes());
            }
        }
        Ok(hash)
    }
}
