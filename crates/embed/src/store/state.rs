//! Everything there is, and the rule by which it changes: one revision at a time.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbResponseHeader;

use super::history::History;
use super::index::{Index, Version};
use super::lease::Leases;
use super::quota::Quota;
use super::watch::Watches;

/// How the store presents itself in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) term: u64,
}

/// The store.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) version: crate::Version,
    /// Of the last change. A new store is at 1.
    pub(super) revision: i64,
    /// The oldest revision that may be read; -1 before the first compaction.
    pub(super) compacted: i64,
    pub(super) index: Index,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) watches: Watches,
    pub(super) quota: Quota,
    /// How many requests have changed something, as a log would number them.
    proposals: u64,
}

impl State {
    /// A new, empty store. Leases live for `min_ttl` at least.
    pub(crate) fn new(
        identity: Identity,
        version: crate::Version,
        min_ttl: Duration,
        quota: Option<u64>,
    ) -> Self {
        Self {
            identity,
            version,
            revision: 1,
            compacted: -1,
            index: Index::default(),
            history: History::default(),
            leases: Leases::new(min_ttl),
            watches: Watches::default(),
            quota: Quota::new(quota),
            proposals: 3,
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted.max(0)
    }

    pub(crate) fn keys(&self) -> usize {
        self.index.len()
    }

    /// How many changes are kept for watchers and reads of the past.
    pub(crate) fn changes(&self) -> usize {
        self.history.len()
    }

    pub(crate) fn proposals(&self) -> u64 {
        self.proposals
    }

    pub(crate) fn propose(&mut self) {
        self.proposals += 1;
    }

    pub(crate) fn header(&self) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: self.revision,
            raft_term: self.identity.term,
        }
    }

    pub(super) fn bare_header(revision: i64) -> PbResponseHeader {
        PbResponseHeader { revision, ..PbResponseHeader::default() }
    }

    /// Makes one change of the revision that is being written.
    pub(super) fn record(&mut self, change: Version, replaced: Option<Version>) {
        self.quota.add(&change);
        self.history.record(change, replaced);
    }

    /// Ends a revision, if `changes` is not zero: watchers are told of its last `changes` changes.
    pub(super) fn commit(&mut self, changes: usize) {
        if changes == 0 {
            return;
        }
        self.revision += 1;
        let revision = self.revision;
        self.watches.tell(revision, self.history.last(changes));
    }

    /// The version of a key at a revision, which must be readable.
    pub(super) fn version_at(&self, key: &[u8], revision: i64) -> Option<Version> {
        if let Some(live) = self.index.get(key)
            && live.mod_revision <= revision
        {
            return Some(Arc::clone(live));
        }
        self.history.at(key, revision).filter(|version| !super::history::is_tombstone(version)).cloned()
    }
}
