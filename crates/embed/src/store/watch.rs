//! Watches: who wants to know of which keys, from which revision on, and how far each has been told.
//!
//! Nothing is queued for a watcher but the numbers of revisions: what happened in them is read from the history when its
//! stream has room to send it. A watcher that falls far behind is one that has not caught up yet, as after a start in
//! the past; its revisions are searched for in the history, a bounded number at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use etcd_client::proto::{PbEvent, PbResponseHeader, PbWatchResponse};
use tokio::sync::Notify;

use super::history::is_tombstone;
use super::index::Version;
use super::span::Span;
use super::state::State;

/// Names a stream of watches within the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// How many revisions a stream may have waiting before its watchers count as lagging.
const MAX_WAITING: usize = 8192;
/// How many revisions one answer to a lagging watcher holds at most, as in etcd.
const MAX_REVISIONS: usize = 1000;
/// How many bytes of keys and values an answer to a lagging watcher holds at most, whole revisions aside.
const MAX_BYTES: usize = 1 << 20;
/// The id of answers that are about no watch.
pub(crate) const NO_WATCH: i64 = -1;

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

#[derive(Debug)]
struct Watcher {
    wanted: Wanted,
    /// The first revision it has not been told of.
    next: i64,
    /// Whether there may be revisions for it that its stream has no note of.
    lagging: bool,
    /// Whether it has been told something since the last progress notice.
    busy: bool,
}

#[derive(Debug, Default)]
struct Stream {
    watchers: BTreeMap<i64, Watcher>,
    /// Revisions to tell, in order, each with the watcher it concerns.
    waiting: VecDeque<(i64, i64)>,
    lagging: BTreeSet<i64>,
    next_id: i64,
    signal: Arc<Notify>,
}

/// All watches of all streams, found by the keys they are about.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    keys: HashMap<Vec<u8>, BTreeSet<(StreamId, i64)>>,
    prefixes: HashMap<Vec<u8>, BTreeSet<(StreamId, i64)>>,
    /// How many prefixes of each length are watched: only these are looked up.
    lengths: BTreeMap<usize, usize>,
    /// Ranges that are no prefixes are looked at one by one.
    ranges: BTreeMap<(StreamId, i64), Span>,
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
            self.find(&change.key, &mut concerned);
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
                stream.fall_behind();
            }
            stream.signal.notify_one();
        }
    }

    fn find(&self, key: &[u8], concerned: &mut BTreeSet<(StreamId, i64)>) {
        if let Some(watchers) = self.keys.get(key) {
            concerned.extend(watchers);
        }
        for length in self.lengths.keys() {
            let Some(prefix) = key.get(..*length) else { break };
            if let Some(watchers) = self.prefixes.get(prefix) {
                concerned.extend(watchers);
            }
        }
        concerned
            .extend(self.ranges.iter().filter(|(_, span)| span.contains(key)).map(|(watcher, _)| watcher));
    }

    fn enlist(&mut self, watcher: (StreamId, i64), span: &Span) {
        match (span, span.prefix()) {
            (Span::Key(key), _) => {
                self.keys.entry(key.clone()).or_default().insert(watcher);
            }
            (_, Some(prefix)) => {
                let watchers = self.prefixes.entry(prefix.to_vec()).or_default();
                if watchers.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                watchers.insert(watcher);
            }
            _ => {
                self.ranges.insert(watcher, span.clone());
            }
        }
    }

    fn strike(&mut self, watcher: (StreamId, i64), span: &Span) {
        match (span, span.prefix()) {
            (Span::Key(key), _) => {
                drop_from(&mut self.keys, key, watcher);
            }
            (_, Some(prefix)) => {
                if drop_from(&mut self.prefixes, prefix, watcher)
                    && let Some(count) = self.lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&prefix.len());
                    }
                }
            }
            _ => {
                self.ranges.remove(&watcher);
            }
        }
    }

    /// The history has become shorter: whoever waits for what is gone must be told.
    pub(super) fn compacted(&mut self) {
        for stream in self.streams.values_mut() {
            stream.fall_behind();
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
        let Some(watcher) = book.watchers.remove(&id) else { return false };
        book.lagging.remove(&id);
        self.strike((stream, id), &watcher.wanted.span);
        true
    }
}

impl Stream {
    /// Drops the notes; the watchers they were for look for themselves.
    fn fall_behind(&mut self) {
        for (revision, id) in std::mem::take(&mut self.waiting) {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && !watcher.lagging
                && revision >= watcher.next
            {
                watcher.lagging = true;
                watcher.next = revision;
                self.lagging.insert(id);
            }
        }
    }

    fn choose_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watchers.contains_key(&wanted)).then_some(wanted);
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }
}

fn drop_from<K: std::hash::Hash + Eq + std::borrow::Borrow<[u8]>>(
    map: &mut HashMap<K, BTreeSet<(StreamId, i64)>>,
    key: &[u8],
    watcher: (StreamId, i64),
) -> bool {
    let Some(watchers) = map.get_mut(key) else { return false };
    watchers.remove(&watcher);
    let empty = watchers.is_empty();
    if empty {
        map.remove(key);
    }
    empty
}

/// Watch answers, as etcd words them.
impl State {
    pub(crate) fn watch_streams(&self) -> usize {
        self.watches.streams.len()
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
        if wanted.span.is_empty() {
            return refuse("mvcc: watcher range is empty");
        }
        let (revision, compacted) = (self.revision, self.compacted);
        let Some(book) = self.watches.streams.get_mut(&stream) else { return refuse("the stream has ended") };
        let Some(id) = book.choose_id(wanted.id) else {
            return refuse("mvcc: duplicate watch ID provided on the WatchStream");
        };
        // -1 is a revision like any other to etcd, as long as nothing was compacted, and nothing is found from it on.
        let from_now = wanted.start == 0 || (wanted.start == -1 && compacted == -1);
        let next = if from_now { revision + 1 } else { wanted.start };
        let lagging = next <= revision;
        if lagging {
            book.lagging.insert(id);
            book.signal.notify_one();
        }
        let span = wanted.span.clone();
        book.watchers.insert(id, Watcher { wanted, next, lagging, busy: false });
        self.watches.enlist((stream, id), &span);
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
        let Some(book) = self.watches.streams.get_mut(&stream) else { return Vec::new() };
        let mut notices = Vec::new();
        for (id, watcher) in &mut book.watchers {
            let busy = std::mem::take(&mut watcher.busy);
            if watcher.wanted.progress && !busy && !watcher.lagging && watcher.next <= header.revision + 1 {
                let header = Some(header.clone());
                notices.push(PbWatchResponse { header, watch_id: *id, ..PbWatchResponse::default() });
            }
        }
        notices
    }

    /// What to send next on a stream: the watchers of one revision, or one answer for each that lags. Empty when it has
    /// been told everything.
    pub(crate) fn pull(&mut self, stream: StreamId) -> Vec<PbWatchResponse> {
        let Some(mut book) = self.watches.streams.remove(&stream) else { return Vec::new() };
        let mut answers = Vec::new();
        self.pull_waiting(&mut book, &mut answers);
        if answers.is_empty() {
            self.pull_lagging(stream, &mut book, &mut answers);
        }
        self.watches.streams.insert(stream, book);
        answers
    }

    fn pull_waiting(&mut self, book: &mut Stream, answers: &mut Vec<PbWatchResponse>) {
        while answers.is_empty()
            && let Some((revision, _)) = book.waiting.front().copied()
        {
            while let Some((next, id)) = book.waiting.front().copied()
                && next == revision
            {
                book.waiting.pop_front();
                let Some(watcher) = book.watchers.get_mut(&id) else { continue };
                if watcher.lagging || revision < watcher.next {
                    continue;
                }
                watcher.next = revision + 1;
                let changes =
                    self.history.since(revision).take_while(|change| change.mod_revision == revision);
                let events = self.events(&watcher.wanted, changes);
                watcher.busy |= !events.is_empty();
                self.watches.events += events.len() as u64;
                let header = PbResponseHeader { revision, ..self.header() };
                answer(id, header, events, watcher.wanted.fragment, answers);
            }
        }
    }

    fn pull_lagging(&mut self, stream: StreamId, book: &mut Stream, answers: &mut Vec<PbWatchResponse>) {
        while answers.is_empty()
            && let Some(id) = book.lagging.first().copied()
        {
            let Some(watcher) = book.watchers.get_mut(&id) else {
                book.lagging.remove(&id);
                continue;
            };
            if watcher.next < self.compacted {
                let header = PbResponseHeader { revision: 0, ..self.header() };
                answers.push(PbWatchResponse {
                    header: Some(header),
                    watch_id: id,
                    canceled: true,
                    compact_revision: self.compacted,
                    ..PbWatchResponse::default()
                });
                let Some(watcher) = book.watchers.remove(&id) else { continue };
                book.lagging.remove(&id);
                self.watches.strike((stream, id), &watcher.wanted.span);
                return;
            }
            let (changes, next) = self.changes_from(watcher.next, &watcher.wanted.span);
            let events = self.events(&watcher.wanted, changes.into_iter());
            watcher.busy |= !events.is_empty();
            watcher.next = next;
            if next > self.revision {
                watcher.lagging = false;
                book.lagging.remove(&id);
            }
            self.watches.events += events.len() as u64;
            answer(id, self.header(), events, watcher.wanted.fragment, answers);
        }
    }

    /// Changes in a span from a revision on, whole revisions, as many as go into one answer; and where to go on.
    fn changes_from(&self, from: i64, span: &Span) -> (Vec<&Version>, i64) {
        let mut found: Vec<&Version> = Vec::new();
        let (mut revisions, mut bytes, mut last) = (0, 0, 0);
        for change in self.history.since(from).filter(|change| span.contains(&change.key)) {
            if change.mod_revision != last {
                if revisions == MAX_REVISIONS || bytes > MAX_BYTES {
                    return (found, change.mod_revision);
                }
                revisions += 1;
                last = change.mod_revision;
            }
            bytes += change.key.len() + change.value.len();
            found.push(change);
        }
        (found, self.revision + 1)
    }

    fn events<'a>(&self, wanted: &Wanted, changes: impl Iterator<Item = &'a Version>) -> Vec<PbEvent> {
        let kind = |change: &Version| i32::from(is_tombstone(change));
        changes
            .filter(|change| wanted.span.contains(&change.key))
            .filter(|change| if is_tombstone(change) { wanted.deletions } else { wanted.puts })
            .map(|change| PbEvent {
                r#type: kind(change),
                kv: Some((**change).clone()),
                prev_kv: if wanted.prev_kv { self.before(change) } else { None },
            })
            .collect()
    }

    /// The version of a key before a change, unless it can no longer be read.
    fn before(&self, change: &Version) -> Option<etcd_client::proto::PbKeyValue> {
        let revision = change.mod_revision - 1;
        if revision < self.compacted {
            return None;
        }
        self.version_at(&change.key, revision).map(|version| (*version).clone())
    }
}

/// The largest answer etcd sends in one piece to who asked for pieces.
const MAX_PIECE: usize = 2 << 20;

/// Words an answer, in pieces where they were asked for and are needed. Nothing for no events.
fn answer(
    id: i64,
    header: PbResponseHeader,
    events: Vec<PbEvent>,
    fragment: bool,
    answers: &mut Vec<PbWatchResponse>,
) {
    if events.is_empty() {
        return;
    }
    let mut piece = PbWatchResponse { header: Some(header), watch_id: id, ..PbWatchResponse::default() };
    let mut bytes = 0;
    let mut rest = events.into_iter().peekable();
    while let Some(event) = rest.next() {
        bytes += prost::Message::encoded_len(&event) + 8;
        piece.events.push(event);
        let next = rest.peek().map(|event| prost::Message::encoded_len(event) + 8);
        if fragment && next.is_some_and(|next| bytes + next >= MAX_PIECE) {
            let header = piece.header.clone();
            let following = PbWatchResponse { header, watch_id: id, ..PbWatchResponse::default() };
            answers.push(PbWatchResponse { fragment: true, ..std::mem::replace(&mut piece, following) });
            bytes = 0;
        }
    }
    answers.push(piece);
}
