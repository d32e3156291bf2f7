//! One stream, and how far each of its watches has been told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::store::span::Span;

/// Names a stream of watches within the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(pub(super) u64);

/// How many revisions a stream may have waiting before its watchers count as lagging.
pub(super) const MAX_WAITING: usize = 8192;

/// What a client asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) span: Span,
    pub(crate) start: i64,
    /// 0 lets the server choose.
    pub(crate) id: i64,
    pub(crate) puts: bool,
    pub(crate) deletions: bool,
    pub(crate) prev_kv: bool,
    pub(crate) fragment: bool,
    pub(crate) progress: bool,
}

/// A watch.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) wanted: Wanted,
    /// The first revision it has not been told of.
    pub(super) next: i64,
    /// Whether there may be revisions for it that its stream has no note of.
    pub(super) lagging: bool,
    /// Whether it has been told something since the last progress notice.
    pub(super) busy: bool,
}

/// The watches of one stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) watchers: BTreeMap<i64, Watcher>,
    /// Revisions to tell, in order, each with the watcher it concerns.
    pub(super) waiting: VecDeque<(i64, i64)>,
    pub(super) lagging: BTreeSet<i64>,
    /// Watches that a compaction ended: etcd keeps their ids taken until they are cancelled.
    pub(super) compacted: BTreeSet<i64>,
    next_id: i64,
    pub(super) signal: Arc<Notify>,
}

impl Stream {
    /// Drops the notes; the watchers they were for look for themselves. What the compaction of its own revision made the
    /// history forget, `deleted`, they would not find: etcd has it on its way to them by then. They are told that it is gone.
    pub(super) fn fall_behind(&mut self, deleted: Option<i64>) {
        for (revision, id) in std::mem::take(&mut self.waiting) {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && !watcher.lagging
                && revision >= watcher.next
            {
                watcher.lagging = true;
                watcher.next = if deleted == Some(revision) { revision - 1 } else { revision };
                self.lagging.insert(id);
            }
        }
    }

    pub(super) fn choose_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.is_taken(wanted)).then_some(wanted);
        }
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }
}
