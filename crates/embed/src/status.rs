//! What a server holds.

use crate::store::State;

/// A server's own account of itself, for assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Names the cluster, as every answer does.
    pub cluster_id: u64,
    /// The revision of the last change. A new store is at 1.
    pub revision: i64,
    /// The oldest revision that can be read, 0 before the first compaction.
    pub compacted: i64,
    /// How many keys there are.
    pub keys: usize,
    /// How many changes are kept for watchers and for reads of the past.
    pub changes: usize,
    /// How many leases there are.
    pub leases: usize,
    /// How many watches there are, on all streams.
    pub watches: usize,
    /// How many watch streams there are.
    pub watch_streams: usize,
    /// How many watch streams there have been since the store was new.
    pub watch_streams_opened: u64,
    /// How many requests have been written to what would be the log.
    pub proposals: u64,
    /// A checksum of all keys and values, with their revisions, versions and leases.
    pub hash: u32,
    /// A checksum of every change there has been since the store was new, in order, compacted or not: two runs with the
    /// same one have written the same.
    pub journal: u64,
}

impl Status {
    pub(crate) fn of(state: &State) -> Self {
        Self {
            cluster_id: state.identity.cluster,
            revision: state.revision(),
            compacted: state.compacted(),
            keys: state.keys(),
            changes: state.changes(),
            leases: state.leases(),
            watches: state.watchers(),
            watch_streams: state.watch_streams(),
            watch_streams_opened: state.watch_streams_opened(),
            proposals: state.proposals(),
            // The present is never out of reach.
            hash: state.hash(0).unwrap_or_default(),
            journal: state.journal(),
        }
    }
}
