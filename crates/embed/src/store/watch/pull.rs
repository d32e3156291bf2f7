//! What is sent next on a stream: read from the history when there is room to send it.

use etcd_client::proto::{PbEvent, PbKeyValue, PbResponseHeader, PbWatchResponse};
use prost::Message as _;

use super::stream::{Stream, StreamId, Wanted};
use crate::store::history::is_tombstone;
use crate::store::index::Version;
use crate::store::span::Span;
use crate::store::state::State;

/// How many revisions one answer to a lagging watcher holds at most, as in etcd.
const MAX_REVISIONS: usize = 1000;
/// How many bytes of keys and values an answer to a lagging watcher holds at most, whole revisions aside.
const MAX_BYTES: usize = 1 << 20;
/// The largest answer etcd sends in one piece to who asked for pieces.
const MAX_PIECE: usize = 2 << 20;

impl State {
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
                book.compacted.insert(id);
                self.watches.registry.strike((stream, id), &watcher.wanted.span);
                return;
            }
            let (changes, next) = self.changes_from(watcher.next, &watcher.wanted.span);
            let events = self.events(&watcher.wanted, changes.into_iter());
            watcher.busy |= !events.is_empty();
            // After a roll-back it is ahead of the store, and stays so.
            watcher.next = watcher.next.max(next);
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
    fn before(&self, change: &Version) -> Option<PbKeyValue> {
        let revision = change.mod_revision - 1;
        // What was created had nothing before it: not even when the same transaction deleted it first.
        let created = change.create_revision == change.mod_revision;
        if created || revision < self.compacted {
            return None;
        }
        self.version_at(&change.key, revision).map(|version| (*version).clone())
    }
}

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
        bytes += event.encoded_len() + 8;
        piece.events.push(event);
        let next = rest.peek().map(|event| event.encoded_len() + 8);
        if fragment && next.is_some_and(|next| bytes + next >= MAX_PIECE) {
            let header = piece.header;
            let following = PbWatchResponse { header, watch_id: id, ..PbWatchResponse::default() };
            answers.push(PbWatchResponse { fragment: true, ..std::mem::replace(&mut piece, following) });
            bytes = 0;
        }
    }
    answers.push(piece);
}
