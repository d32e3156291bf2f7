//! What was before: every change since the last compaction, in order, and the versions that have been replaced.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use etcd_client::proto::PbKeyValue;

use super::checksum::Checksum;
use super::index::{Index, Version};
use super::quota::cost;
use super::span::Span;

/// Whether a version says that its key was deleted.
pub(crate) fn is_tombstone(version: &PbKeyValue) -> bool {
    version.version == 0
}

/// The changes since the last compaction.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// All changes, deletions included, by revision; those of one revision in the order in which they were made.
    changes: VecDeque<Version>,
    /// Versions that are not the present one, deletions included, by key and then by revision.
    replaced: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Of all changes there have ever been, in order.
    journal: Checksum,
}

impl History {
    pub(crate) fn record(&mut self, change: Version, replaced: Option<Version>) {
        self.journal.add(&change);
        if let Some(old) = replaced {
            self.replace(old);
        }
        if is_tombstone(&change) {
            self.replace(change.clone());
        }
        self.changes.push_back(change);
    }

    fn replace(&mut self, old: Version) {
        match self.replaced.get_mut(&old.key) {
            Some(versions) => versions.push(old),
            None => {
                self.replaced.insert(old.key.clone(), vec![old]);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// A checksum of every change that was ever recorded, whatever became of it.
    pub(crate) fn journal(&self) -> u64 {
        self.journal.value()
    }

    /// The changes from a revision on.
    pub(crate) fn since(&self, revision: i64) -> impl Iterator<Item = &Version> {
        let first = self.changes.partition_point(|change| change.mod_revision < revision);
        self.changes.range(first..)
    }

    /// The last changes, as many as asked for.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = &Version> {
        self.changes.range(self.changes.len().saturating_sub(count)..)
    }

    /// The version of a key at a revision, if it is not the present one. `Some(tombstone)` when it was deleted then.
    pub(crate) fn at(&self, key: &[u8], revision: i64) -> Option<&Version> {
        let versions = self.replaced.get(key)?;
        let after = versions.partition_point(|version| version.mod_revision <= revision);
        versions.get(after.checked_sub(1)?)
    }

    /// The keys of a span that have replaced versions, in order, with their version at a revision.
    pub(crate) fn range_at<'a>(
        &'a self,
        span: &'a Span,
        revision: i64,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a Version>)> {
        let from = (Bound::Included(span.start()), Bound::Unbounded);
        let keys = self.replaced.range::<[u8], _>(from).take_while(|(key, _)| span.reaches(key));
        keys.map(move |(key, versions)| {
            let after = versions.partition_point(|version| version.mod_revision <= revision);
            let version = after.checked_sub(1).and_then(|index| versions.get(index));
            (key.as_slice(), version)
        })
    }

    /// Whether something was deleted at a revision.
    pub(crate) fn deletes_at(&self, revision: i64) -> bool {
        let mut changes = self.since(revision).take_while(|change| change.mod_revision == revision);
        changes.any(|change| is_tombstone(change))
    }

    /// Forgets what nobody can ask for any more once `revision` is the oldest one that may be read. Changes made *at*
    /// that revision stay, deletions only when `keeps_deletion` is set. `index` has the present versions. Returns the
    /// size of what is forgotten, as the quota counts it.
    pub(crate) fn compact(&mut self, revision: i64, keeps_deletion: bool, index: &Index) -> u64 {
        let mut at_revision = Vec::new();
        let mut freed = 0;
        while self.changes.front().is_some_and(|first| first.mod_revision <= revision) {
            let Some(change) = self.changes.pop_front() else { break };
            let present = index.get(&change.key).map(|version| version.mod_revision);
            if present.is_some_and(|present| present <= revision) {
                freed += self.replaced.remove(&change.key).unwrap_or_default().iter().map(cost).sum::<u64>();
            } else {
                freed += self.forget(&change.key, revision);
            }
            if change.mod_revision == revision && (keeps_deletion || !is_tombstone(&change)) {
                at_revision.push(change);
            }
        }
        for change in at_revision.into_iter().rev() {
            self.changes.push_front(change);
        }
        freed
    }

    /// Drops the versions of a key that were replaced at or before a revision. The last one of them stays: it is what a
    /// read at that revision sees. A deletion needs no record.
    fn forget(&mut self, key: &[u8], revision: i64) -> u64 {
        let Some(versions) = self.replaced.get_mut(key) else { return 0 };
        let after = versions.partition_point(|version| version.mod_revision <= revision);
        let last = after.checked_sub(1).and_then(|index| versions.get(index));
        let kept = last.is_some_and(|last| !is_tombstone(last));
        let freed = versions.drain(..after - usize::from(kept)).map(|version| cost(&version)).sum();
        if versions.is_empty() {
            self.replaced.remove(key);
        }
        freed
    }

    /// Takes the last change back: the change, and the version that was there before, which is no longer in here.
    pub(crate) fn undo(&mut self) -> Option<(Version, Option<Version>)> {
        let change = self.changes.pop_back()?;
        let mut before = None;
        if let Some(versions) = self.replaced.get_mut(&change.key) {
            if is_tombstone(&change) {
                versions.pop();
            }
            // A version before a tombstone is kept in its place: the key was absent.
            if versions.last().is_some_and(|last| !is_tombstone(last)) {
                before = versions.pop();
            }
            if versions.is_empty() {
                self.replaced.remove(&change.key);
            }
        }
        Some((change, before))
    }

    /// The revision of the last change that is kept.
    pub(crate) fn last_revision(&self) -> Option<i64> {
        self.changes.back().map(|change| change.mod_revision)
    }
}

/// A record of a deletion, as watchers are told of it.
pub(crate) fn tombstone(key: Vec<u8>, revision: i64) -> Version {
    Arc::new(PbKeyValue { key, mod_revision: revision, ..PbKeyValue::default() })
}
