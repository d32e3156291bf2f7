//! The hub: one task per client that keeps one etcd watch stream for all logical watches.
//!
//! A watch is a range and the next revision wanted of it. Everything else (stream, member, etcd's own watch id) can be
//! thrown away at any time and made anew from that, which is all that resuming is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::event::{Changes, Event};
use super::pump::{End, Plan, Pump};
use super::queue::{Push, Queue};
use crate::backoff::Backoff;
use crate::classify::{Fault, classify};
use crate::client::{Inner, Range};
use crate::error::Error;

/// How long a member may take to open the stream.
const OPEN: Duration = Duration::from_secs(2);

/// The client's end of the hub.
pub(crate) struct Hub {
    adds: mpsc::Sender<Add>,
    signals: Arc<Signals>,
}

/// What consumers tell the hub from where they cannot wait.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) notify: Notify,
    removed: Mutex<Vec<u64>>,
    resumed: Mutex<Vec<u64>>,
}

pub(super) struct Add {
    pub(super) id: u64,
    pub(super) range: Range,
    pub(super) from: i64,
    pub(super) queue: Arc<Queue>,
}

/// One logical watch.
pub(super) struct Watch {
    pub(super) range: Range,
    pub(super) next: i64,
    queue: Arc<Queue>,
    /// Events of a revision that may not be complete yet.
    pending: Vec<Event>,
    pub(super) paused: bool,
    /// Whether the store may have gone on since what is wanted next: see [`Watch::start`].
    pub(super) late: bool,
    /// Whether etcd has ever taken it.
    pub(super) accepted: bool,
    /// When etcd last refused it, unless it accepted it since; it may have been the token's age.
    pub(super) refused: Option<Instant>,
}

impl Hub {
    pub(crate) fn start(inner: Weak<Inner>) -> Self {
        let (adds, receiver) = mpsc::channel(256);
        let signals = Arc::new(Signals::default());
        let task = Task { inner, adds: receiver, watches: Watches::default(), signals: signals.clone() };
        tokio::spawn(task.run());
        Self { adds, signals }
    }

    pub(super) async fn add(&self, add: Add) -> Result<Arc<Signals>, Error> {
        self.adds.send(add).await.map_err(|_| Error::Stopped)?;
        Ok(self.signals.clone())
    }
}

impl Signals {
    pub(super) fn remove(&self, id: u64) {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.notify.notify_one();
    }

    pub(super) fn resume(&self, id: u64) {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.notify.notify_one();
    }

    pub(super) fn take_removed(&self) -> Vec<u64> {
        std::mem::take(&mut *self.removed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_resumed(&self) -> Vec<u64> {
        std::mem::take(&mut *self.resumed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All logical watches; ends them when the task does.
#[derive(Default)]
pub(super) struct Watches {
    pub(super) by_id: BTreeMap<u64, Watch>,
}

impl Watches {
    pub(super) fn add(&mut self, add: Add) {
        let Add { id, range, from, queue } = add;
        let watch = Watch {
            range,
            // To etcd, 0 is the present, and a negative revision is an error to newer versions.
            next: from.max(1),
            queue,
            pending: Vec::new(),
            paused: false,
            late: false,
            accepted: false,
            refused: None,
        };
        self.by_id.insert(id, watch);
    }

    /// Whether nobody waits for anything.
    pub(super) fn idle(&self) -> bool {
        self.by_id.values().all(|watch| watch.paused)
    }

    pub(super) fn fail(&mut self, id: u64, error: Error) {
        if let Some(watch) = self.by_id.remove(&id) {
            watch.queue.end(Err(error));
        }
    }

    pub(super) fn fail_all(&mut self, error: &Error) {
        for watch in std::mem::take(&mut self.by_id).into_values() {
            watch.queue.end(Err(error.clone()));
        }
    }

    pub(super) fn compacted(&mut self, id: u64, revision: i64) {
        if let Some(watch) = self.by_id.remove(&id) {
            watch.queue.end(Ok(revision));
        }
    }

    /// Takes events off the wire: drops what was delivered before, hands over whole revisions. Gives the highest
    /// revision handed over, and whether the watch must be taken off the stream.
    pub(super) fn deliver(&mut self, id: u64, events: Vec<Event>, complete: bool) -> (i64, bool) {
        let Some(watch) = self.by_id.get_mut(&id) else { return (0, true) };
        let mut highest = 0;
        for event in events {
            if event.kv.mod_revision < watch.next {
                tracing::debug!(
                    revision = event.kv.mod_revision,
                    next = watch.next,
                    "dropped an event seen before"
                );
                continue;
            }
            let started = watch.pending.first().map(|first| first.kv.mod_revision);
            if started.is_some_and(|revision| revision != event.kv.mod_revision) {
                match watch.flush() {
                    Ok(revision) => highest = highest.max(revision),
                    Err(()) => return (highest, true),
                }
            }
            watch.pending.push(event);
        }
        if complete {
            match watch.flush() {
                Ok(revision) => highest = highest.max(revision),
                Err(()) => return (highest, true),
            }
        }
        (highest, false)
    }

    /// The server says that nothing up to `revision` is still to come for this watch.
    pub(super) fn bookmark(&mut self, id: u64, revision: i64) {
        if let Some(watch) = self.by_id.get_mut(&id)
            && watch.pending.is_empty()
        {
            watch.next = watch.next.max(revision.saturating_add(1));
        }
    }
}

impl Watch {
    /// Hands the pending revision over. `Err` when the consumer cannot take it: then it is wanted again later.
    fn flush(&mut self) -> Result<i64, ()> {
        let Some(revision) = self.pending.first().map(|first| first.kv.mod_revision) else { return Ok(0) };
        let events = std::mem::take(&mut self.pending);
        match self.queue.push(Changes { revision, events }) {
            Push::Taken => {
                self.next = revision.saturating_add(1);
                Ok(revision)
            }
            Push::Full => {
                self.paused = true;
                Err(())
            }
            Push::Ended => {
                self.paused = true;
                Err(())
            }
        }
    }

    /// The stream is gone: what was not complete comes again.
    pub(super) fn rewind(&mut self) {
        self.pending.clear();
        self.late |= self.accepted;
    }

    /// The revision to ask for. Some versions of etcd (3.5.1 among them) forget a deletion with the compaction
    /// of its own revision, and still take a watch from there on for whole: asked for one revision more, they say that it
    /// is not. A watch from the present on has nothing to lose, and would only be served later.
    pub(super) fn start(&self) -> i64 {
        if self.late { self.next.saturating_sub(1).max(1) } else { self.next }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.fail_all(&Error::Stopped);
    }
}

struct Task {
    inner: Weak<Inner>,
    adds: mpsc::Receiver<Add>,
    watches: Watches,
    signals: Arc<Signals>,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::streams();
        loop {
            self.collect();
            if self.watches.idle() {
                tokio::select! {
                    biased;
                    add = self.adds.recv() => match add {
                        Some(add) => self.watches.add(add),
                        None => return,
                    },
                    () = self.signals.notify.notified() => {}
                }
                continue;
            }
            let Some(inner) = self.inner.upgrade() else { return };
            if let Err(error) = inner.rolled_back() {
                self.watches.fail_all(&error);
                continue;
            }
            let Some(plan) = Plan::new(&mut self.watches) else { continue };
            let index = inner.picker.pick();
            let mut used = None;
            let opened = tokio::time::timeout(OPEN, async {
                let connection = inner.picker.connection(index).await?;
                used = Some(connection.clone());
                let limit = inner.options.decode_limit;
                Pump::open(&connection, plan, limit).await.map_err(|error| classify(&error))
            });
            let (opened, late) = self.meanwhile(opened).await;
            let end = match opened {
                Ok(Ok(mut pump)) => {
                    late.into_iter().for_each(|id| pump.follow(id));
                    drop(inner);
                    pump.run(&self.inner, &mut self.adds, &mut self.watches, &self.signals, &mut backoff)
                        .await
                }
                Ok(Err(fault)) => End::Fault(fault),
                Err(_) => End::Stalled,
            };
            let Some(inner) = self.inner.upgrade() else { return };
            match end {
                End::Idle => continue,
                End::Shutdown => return,
                End::StaleToken => used.iter().for_each(|connection| inner.picker.forget(connection)),
                End::Fault(Fault::StaleToken(_)) => {
                    used.iter().for_each(|connection| inner.picker.forget(connection));
                }
                End::Fault(Fault::Refused(error)) => {
                    // Nothing of one watch is refused this way: it is the user, or the whole store.
                    self.watches.fail_all(&error);
                }
                End::Fault(fault) => {
                    tracing::debug!(?fault, "watch stream ended");
                    self.eject(&inner, index, used.as_ref());
                }
                End::Stalled => {
                    tracing::debug!(member = index, "watch stream fell silent");
                    self.eject(&inner, index, used.as_ref());
                }
            }
            drop(inner);
            self.meanwhile(tokio::time::sleep(backoff.next())).await;
        }
    }

    fn eject(&self, inner: &Arc<Inner>, index: usize, used: Option<&crate::picker::Connection>) {
        if inner.picker.eject(index, used) {
            crate::client::Client { inner: inner.clone() }.probe_ejected();
        }
    }

    /// Waits for something, still taking new watches, so that nobody who subscribes has to wait too. Gives those as well.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> (T, Vec<u64>) {
        let mut something = std::pin::pin!(something);
        let mut late = Vec::new();
        loop {
            tokio::select! {
                biased;
                done = &mut something => return (done, late),
                Some(add) = self.adds.recv() => {
                    late.push(add.id);
                    self.watches.add(add);
                }
            }
        }
    }

    fn collect(&mut self) {
        for id in self.signals.take_removed() {
            self.watches.by_id.remove(&id);
        }
        for id in self.signals.take_resumed() {
            if let Some(watch) = self.watches.by_id.get_mut(&id) {
                watch.paused = false;
                watch.late = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::EventKind;
    use super::super::queue::{Item, Overflow};
    use super::*;
    use crate::key::Key;
    use crate::kv::KeyValue;

    fn event(key: &str, revision: i64) -> Event {
        let key = Key::from_store(key.as_bytes().to_vec());
        let kv = KeyValue {
            key,
            value: "v".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        };
        Event { kind: EventKind::Put, kv }
    }

    fn one() -> (Watches, Arc<Queue>) {
        let queue = Arc::new(Queue::new(Overflow::Pause));
        let mut watches = Watches::default();
        let range = Range { start: b"a".to_vec(), end: None };
        watches.add(Add { id: 1, range, from: 5, queue: queue.clone() });
        (watches, queue)
    }

    fn delivered(queue: &Queue) -> Vec<(i64, usize)> {
        let mut seen = Vec::new();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(popped) = queue.poll_pop(&mut cx) {
            match popped.item {
                Some(Ok(Item::Changes(changes))) => seen.push((changes.revision, changes.events.len())),
                _ => break,
            }
        }
        seen
    }

    #[test]
    fn events_from_before_the_wanted_revision_are_dropped() {
        let (mut watches, queue) = one();
        watches.deliver(1, vec![event("a", 3), event("a", 5)], true);
        watches.deliver(1, vec![event("a", 5), event("a", 6)], true);
        assert_eq!(delivered(&queue), [(5, 1), (6, 1)]);
    }

    #[test]
    fn a_revision_is_delivered_only_when_it_is_complete() {
        let (mut watches, queue) = one();
        watches.deliver(1, vec![event("a", 5), event("b", 5)], false);
        assert_eq!(delivered(&queue), []);
        watches.deliver(1, vec![event("c", 5), event("a", 7)], true);
        assert_eq!(delivered(&queue), [(5, 3), (7, 1)]);
    }

    #[test]
    fn half_a_revision_is_asked_for_again_after_a_reconnect() {
        let (mut watches, queue) = one();
        watches.deliver(1, vec![event("a", 5)], false);
        let watch = watches.by_id.get_mut(&1).unwrap();
        watch.rewind();
        assert_eq!(watch.next, 5);
        watches.deliver(1, vec![event("a", 5), event("b", 5)], true);
        assert_eq!(delivered(&queue), [(5, 2)]);
    }

    #[test]
    fn a_consumer_that_does_not_keep_up_is_paused_where_it_is() {
        let (mut watches, queue) = one();
        let mut revision = 5;
        while !watches.deliver(1, vec![event("a", revision)], true).1 {
            revision += 1;
            assert!(revision < 10_000);
        }
        let watch = &watches.by_id[&1];
        assert!(watch.paused);
        assert_eq!(watch.next, revision, "the revision that found no room is wanted next");
        assert_eq!(delivered(&queue).last().unwrap().0, revision - 1);
    }

    #[test]
    fn a_bookmark_moves_only_forward_and_never_past_pending_events() {
        let (mut watches, _queue) = one();
        watches.bookmark(1, 9);
        assert_eq!(watches.by_id[&1].next, 10);
        watches.bookmark(1, 7);
        assert_eq!(watches.by_id[&1].next, 10);
        watches.deliver(1, vec![event("a", 12)], false);
        watches.bookmark(1, 20);
        assert_eq!(watches.by_id[&1].next, 10);
    }
}
