//! Watches: who wants to know of which keys, from which revision on, and how far each has been told.
//!
//! Nothing is queued for a watcher but the numbers of revisions: what happened in them is read from the history when its
//! stream has room to send it. A watcher that falls far behind is one that has not caught up yet, as after a start in
//! the past; its revisions are searched for in the history, a bounded number at a time.

mod pull;
mod registry;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etcd_client::proto::PbWatchResponse;
use tokio::sync::Notify;

use registry::Registry;
use stream::{MAX_WAITING, Stream, Watcher};
pub(crate) use stream::{StreamId, Wanted};

use super::index::Version;
use super::refusal::Refusal;
use super::state::State;

/// The id of answers that are about no watch.
const NO_WATCH: i64 = -1;

/// All watches of all streams, found by the keys they are about.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    registry: Registry,
    events: u64,
}

impl Watches {
    /// Notes a revision for everyone who watches one of its keys.
    pub(super) fn tell<'a>(&mut self, revision: i64, changes: impl Iterator<Item = &'a Version>) {
        if self.streams.is_empty() {
            return;
        }
        let mut concerned = BTreeSet::new();
        for change in changes {
            self.registry.find(&change.key, &mut concerned);
        }
        for (stream, id) in concerned {
            let Some(stream) = self.streams.get_mut(&stream) else { continue };
            let Some(watcher) = stream.watchers.get(&id) else { continue };
            if revision < watcher.next {
                continue;
            }
            if !watcher.lagging {
                stream.waiting.push_back((revision, id));
            }
            if stream.waiting.len() > MAX_WAITING {
                stream.fall_behind(None);
            }
            stream.signal.notify_one();
        }
    }

    /// The history has become shorter: whoever waits for what is gone must be told. `deleted` is the revision that was
    /// compacted, if it deleted something.
    pub(super) fn compacted(&mut self, deleted: Option<i64>) {
        for stream in self.streams.values_mut() {
            stream.fall_behind(deleted);
            stream.signal.notify_one();
        }
    }

    /// What comes next has a lower revision than what was told.
    pub(super) fn rolled_back(&mut self, revision: i64) {
        for stream in self.streams.values_mut() {
            stream.waiting.retain(|(waiting, _)| *waiting <= revision);
        }
    }

    fn remove(&mut self, stream: StreamId, id: i64) -> bool {
        let Some(book) = self.streams.get_mut(&stream) else { return false };
        let Some(watcher) = book.watchers.remove(&id) else { return book.compacted.remove(&id) };
        book.lagging.remove(&id);
        self.registry.strike((stream, id), &watcher.wanted.span);
        true
    }
}

/// Watch answers, as etcd words them.
impl State {
    pub(crate) fn watch_streams(&self) -> usize {
        self.watches.streams.len()
    }

    /// How many streams there have been.
    pub(crate) fn watch_streams_opened(&self) -> u64 {
        self.watches.next_stream
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watches.streams.values().map(|stream| stream.watchers.len()).sum()
    }

    /// How many events have been handed out.
    pub(crate) fn watch_events(&self) -> u64 {
        self.watches.events
    }

    /// A new stream, and the signal that there is something for it.
    pub(crate) fn open_stream(&mut self) -> (StreamId, Arc<Notify>) {
        self.watches.next_stream += 1;
        let id = StreamId(self.watches.next_stream);
        let stream = self.watches.streams.entry(id).or_default();
        (id, Arc::clone(&stream.signal))
    }

    pub(crate) fn close_stream(&mut self, stream: StreamId) {
        let ids: Vec<i64> = self
            .watches
            .streams
            .get(&stream)
            .map(|book| book.watchers.keys().copied().collect())
            .unwrap_or_default();
        for id in ids {
            self.watches.remove(stream, id);
        }
        self.watches.streams.remove(&stream);
    }

    /// Adds a watch. The answer says which id it has, or that there is none, and why.
    pub(crate) fn watch(&mut self, stream: StreamId, wanted: Wanted) -> PbWatchResponse {
        let answer =
            PbWatchResponse { header: Some(self.header()), created: true, ..PbWatchResponse::default() };
        let refuse = |reason: &str| PbWatchResponse {
            watch_id: NO_WATCH,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..answer.clone()
        };
        if wanted.start < 0 && self.version.refuses_negative_start() {
            return refuse(Refusal::COMPACTED.text());
        }
        if wanted.span.is_empty() {
            return refuse("mvcc: watcher range is empty");
        }
        let (revision, compacted) = (self.revision, self.compacted);
        let Some(book) = self.watches.streams.get_mut(&stream) else { return refuse("the stream has ended") };
        let Some(id) = book.choose_id(wanted.id) else {
            return refuse("mvcc: duplicate watch ID provided on the WatchStream");
        };
        // Where -1 is not refused it is a revision like any other, as long as nothing was compacted, and nothing is found
        // from it on.
        let from_now = wanted.start == 0 || (wanted.start == -1 && compacted == -1);
        let next = if from_now { revision + 1 } else { wanted.start };
        let lagging = next <= revision;
        if lagging {
            book.lagging.insert(id);
            book.signal.notify_one();
        }
        let span = wanted.span.clone();
        book.watchers.insert(id, Watcher { wanted, next, lagging, busy: false });
        self.watches.registry.enlist((stream, id), &span);
        PbWatchResponse { watch_id: id, ..answer }
    }

    /// Ends a watch. `None` when there is no such watch: etcd says nothing then.
    pub(crate) fn cancel_watch(&mut self, stream: StreamId, id: i64) -> Option<PbWatchResponse> {
        self.watches.remove(stream, id).then(|| PbWatchResponse {
            header: Some(self.header()),
            watch_id: id,
            canceled: true,
            ..PbWatchResponse::default()
        })
    }

    /// Whether a progress request on the stream gets no answer, now or later.
    pub(crate) fn drops_progress(&self, stream: StreamId) -> bool {
        let Some(book) = self.watches.streams.get(&stream) else { return true };
        if !self.version.drops_progress_when_unsynchronized() {
            return false;
        }
        // A watch that a compaction ended counts until the client cancels it.
        let unsynchronized = !book.lagging.is_empty() || !book.compacted.is_empty();
        let withholds = self.version.withholds_progress_before_start();
        let early = |watcher: &Watcher| withholds && watcher.wanted.start > self.revision;
        unsynchronized || book.watchers.is_empty() || book.watchers.values().any(early)
    }

    /// Says how far the stream has been told. `None` while there is something to tell it.
    pub(crate) fn progress(&self, stream: StreamId) -> Option<PbWatchResponse> {
        let book = self.watches.streams.get(&stream)?;
        if !book.waiting.is_empty() || !book.lagging.is_empty() {
            return None;
        }
        let header = Some(self.header());
        Some(PbWatchResponse { header, watch_id: NO_WATCH, ..PbWatchResponse::default() })
    }

    /// Notices for the watches that asked for them and have heard nothing since the last time.
    pub(crate) fn progress_notices(&mut self, stream: StreamId) -> Vec<PbWatchResponse> {
        let header = self.header();
        let withholds = self.version.withholds_progress_before_start();
        let Some(book) = self.watches.streams.get_mut(&stream) else { return Vec::new() };
        let mut notices = Vec::new();
        for (id, watcher) in &mut book.watchers {
            let busy = std::mem::take(&mut watcher.busy);
            let early = withholds && watcher.wanted.start > header.revision;
            if watcher.wanted.progress && !busy && !early && !watcher.lagging {
                let header = Some(header);
                notices.push(PbWatchResponse { header, watch_id: *id, ..PbWatchResponse::default() });
            }
        }
        notices
    }
}
