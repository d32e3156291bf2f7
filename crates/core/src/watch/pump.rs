//! One watch stream on one member, from its opening to its end.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::event::Event;
use super::hub::{Add, Signals, Watch, Watches};
use super::silence::{Silence, TICK, Verdict};
use crate::backoff::Backoff;
use crate::classify::{Fault, classify};
use crate::client::{Client, Inner, Range};
use crate::error::{Cause, Error};
use crate::picker::Connection;

/// A token this young has not expired (etcd counts its life in seconds, from 1): what is refused then is forbidden.
const FRESH: Duration = Duration::from_millis(900);
/// And what is refused twice within this time, with another token each time, is forbidden as well.
const FORGIVE: Duration = Duration::from_secs(30);
/// Where the answer to a watch of an empty range is awaited: no watch has this number.
const REFUSAL: i64 = i64::MAX;

/// Why a stream ended.
pub(super) enum End {
    /// Nobody watches any more.
    Idle,
    /// The client is gone.
    Shutdown,
    /// A watch was refused in the way an old token is.
    StaleToken,
    Fault(Fault),
    Stalled,
}

enum Request {
    Create(u64),
    Cancel(i64),
    Progress,
    Refusal,
}

/// What a new stream begins with.
pub(super) struct Plan {
    id: u64,
    key: Vec<u8>,
    options: WatchOptions,
    outbox: VecDeque<Request>,
}

impl Plan {
    /// `None` when there is nothing to watch.
    pub(super) fn new(watches: &mut Watches) -> Option<Self> {
        let mut outbox = VecDeque::new();
        let mut first = None;
        for (id, watch) in &mut watches.by_id {
            watch.rewind();
            if watch.paused {
                continue;
            }
            if first.is_none() {
                first = Some((*id, watch.range.start.clone(), options(&watch.range, watch.start(), 1)));
            } else {
                outbox.push_back(Request::Create(*id));
            }
        }
        first.map(|(id, key, options)| Self { id, key, options, outbox })
    }
}

pub(super) struct Pump {
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    /// etcd's watch id on this stream, to ours.
    wires: HashMap<i64, u64>,
    ids: HashMap<u64, i64>,
    last_wire: i64,
    /// Watches asked for and not answered yet, in that order, which is the order of the answers.
    awaited: VecDeque<i64>,
    outbox: VecDeque<Request>,
    /// When the connection was made, and its token with it.
    since: Instant,
    /// Looks whether a member that has seen less than we have lags, or is another store. Once per stream.
    check: Check,
}

enum Check {
    NotNeeded,
    Running(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>),
    Done,
}

impl Pump {
    /// Opens a stream with one of the watches; the others follow.
    pub(super) async fn open(
        connection: &Connection,
        plan: Plan,
        decode_limit: usize,
    ) -> Result<Self, etcd_client::Error> {
        let Plan { id, key, options, outbox } = plan;
        let since = connection.since;
        let mut client = connection.client.watch_client().max_decoding_message_size(decode_limit);
        let (sender, responses) = client.watch(key, Some(options)).await?.split();
        let wires = HashMap::from([(1, id)]);
        let ids = HashMap::from([(id, 1)]);
        let awaited = VecDeque::from([1]);
        let check = Check::NotNeeded;
        Ok(Self { sender, responses, wires, ids, last_wire: 1, awaited, outbox, since, check })
    }

    /// A watch that was added while the stream was being opened.
    pub(super) fn follow(&mut self, id: u64) {
        self.outbox.push_back(Request::Create(id));
    }

    pub(super) async fn run(
        mut self,
        inner: &Weak<Inner>,
        adds: &mut mpsc::Receiver<Add>,
        watches: &mut Watches,
        signals: &Signals,
        backoff: &mut Backoff,
    ) -> End {
        let mut silence = Silence::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if watches.idle() {
                return End::Idle;
            }
            let next = self.prepare(watches);
            tokio::select! {
                // What is rare comes first: only messages can come without end, and nothing waits behind them.
                biased;
                _ = tick.tick() => {
                    let Some(inner) = inner.upgrade() else { return End::Shutdown };
                    if let Err(error) = inner.rolled_back() {
                        watches.fail_all(&error);
                        return End::Idle;
                    }
                    if self.check.is_running() {
                        silence.end();
                    }
                    match silence.tick() {
                        Verdict::Wait => {}
                        Verdict::AskForProgress => self.outbox.push_front(Request::Progress),
                        Verdict::AskForRefusal => self.outbox.push_front(Request::Refusal),
                        Verdict::Stalled => return End::Stalled,
                    }
                }
                checked = self.check.wait() => {
                    if let Err(error) = checked {
                        tracing::debug!(%error, "checking the store");
                        // Not known to be the same store: nothing of it is passed on.
                        return End::Stalled;
                    }
                    silence.end();
                }
                () = signals.notify.notified() => self.collect(watches, signals),
                add = adds.recv() => match add {
                    Some(add) => {
                        self.outbox.push_back(Request::Create(add.id));
                        watches.add(add);
                    }
                    None => return End::Shutdown,
                },
                sent = transmit(&mut self.sender, next.as_ref()), if next.is_some() => {
                    self.outbox.pop_front();
                    match next {
                        Some(Prepared::Create { wire, .. }) => self.awaited.push_back(wire),
                        Some(Prepared::Refusal) => self.awaited.push_back(REFUSAL),
                        _ => {}
                    }
                    if let Err(error) = sent {
                        return End::Fault(classify(&error));
                    }
                }
                message = self.responses.message(), if !self.check.is_running() => match message {
                    Ok(Some(message)) => {
                        silence.end();
                        *backoff = Backoff::streams();
                        let Some(inner) = inner.upgrade() else { return End::Shutdown };
                        if let Some(end) = self.receive(message, &inner, watches) {
                            return end;
                        }
                        // A word of what may be another store says nothing of this one.
                        if !self.check.is_running() {
                            inner.hear();
                        }
                    }
                    Ok(None) => return End::Fault(Fault::Ambiguous(Cause::new("the watch stream was closed"))),
                    Err(error) => return End::Fault(classify(&error)),
                },
            }
        }
    }

    /// Makes the next request ready to be sent, passing over watches that have gone meanwhile.
    fn prepare(&mut self, watches: &Watches) -> Option<Prepared> {
        loop {
            match self.outbox.front()? {
                Request::Progress => return Some(Prepared::Progress),
                Request::Refusal => return Some(Prepared::Refusal),
                Request::Cancel(wire) => return Some(Prepared::Cancel(*wire)),
                Request::Create(id) => {
                    let id = *id;
                    if let Some(watch @ Watch { paused: false, .. }) = watches.by_id.get(&id) {
                        let wire = *self.ids.entry(id).or_insert_with(|| {
                            self.last_wire += 1;
                            self.last_wire
                        });
                        self.wires.insert(wire, id);
                        let (key, options) =
                            (watch.range.start.clone(), options(&watch.range, watch.start(), wire));
                        return Some(Prepared::Create { wire, key, options });
                    }
                    self.outbox.pop_front();
                }
            }
        }
    }

    fn receive(
        &mut self,
        message: WatchResponse,
        inner: &std::sync::Arc<Inner>,
        watches: &mut Watches,
    ) -> Option<End> {
        let message = message.0;
        let (cluster, revision) = message.header.as_ref().map_or((0, 0), |h| (h.cluster_id, h.revision));
        // A watch is not linearizable, a member may lag: only the cluster is compared here.
        if let Err(error) = inner.observe(cluster, inner.floor(), 0) {
            watches.fail_all(&error);
            return Some(End::Idle);
        }
        let wire = if message.created { self.answered(message.watch_id)? } else { message.watch_id };
        let id = *self.wires.get(&wire)?;
        if message.canceled {
            self.unmap(id);
            if message.compact_revision > 0 {
                // It counts as a watch that is not synchronized until it is cancelled from here too.
                self.outbox.push_back(Request::Cancel(wire));
                watches.compacted(id, message.compact_revision);
                return None;
            }
            return self.refused(id, &message.cancel_reason, watches);
        }
        if message.created {
            if let Some(watch) = watches.by_id.get_mut(&id) {
                watch.refused = None;
                watch.accepted = true;
                if !watch.late && revision >= watch.next {
                    // Something came in between after all.
                    watch.late = true;
                    self.unmap(id);
                    self.outbox.push_back(Request::Cancel(wire));
                    self.outbox.push_back(Request::Create(id));
                }
            }
            if revision < inner.floor() && matches!(self.check, Check::NotNeeded) {
                // This member has not seen what we have: it lags, or it is another store under the same name, whose
                // revisions mean something else. A linearizable read tells, and voids the client in the latter case.
                let client = Client { inner: inner.clone() };
                self.check = Check::Running(Box::pin(async move { client.check_store().await }));
            }
            return None;
        }
        if message.events.is_empty() {
            watches.bookmark(id, revision);
            return None;
        }
        let events = message.events.into_iter().filter_map(Event::from_proto).collect();
        let (highest, off) = watches.deliver(id, events, !message.fragment);
        if highest > 0 {
            // What was delivered may be relied on: the store must not show less from now on.
            let _ = inner.observe(cluster, highest, 0);
        }
        if off && let Some(wire) = self.unmap(id) {
            self.outbox.push_back(Request::Cancel(wire));
        }
        None
    }

    /// Which of the awaited watches an answer is for. What etcd refuses has its own number on some versions and none
    /// (-1) on others.
    fn answered(&mut self, wire: i64) -> Option<i64> {
        if wire < 0 || self.awaited.front() == Some(&wire) {
            return self.awaited.pop_front();
        }
        self.awaited.retain(|awaited| *awaited != wire);
        Some(wire)
    }

    /// etcd cancelled a watch without saying that history is gone.
    fn refused(&self, id: u64, reason: &str, watches: &mut Watches) -> Option<End> {
        tracing::debug!(reason, "etcd cancelled a watch");
        let watch = watches.by_id.get_mut(&id)?;
        let again = watch.refused.replace(Instant::now()).is_some_and(|before| before.elapsed() < FORGIVE);
        if !again && self.since.elapsed() >= FRESH {
            // Too old a token looks like this, in two spellings: authenticate anew and see.
            return Some(End::StaleToken);
        }
        watches.fail(id, Error::PermissionDenied { cause: Cause::new(reason) });
        None
    }

    fn collect(&mut self, watches: &mut Watches, signals: &Signals) {
        for id in signals.take_removed() {
            watches.by_id.remove(&id);
            if let Some(wire) = self.unmap(id) {
                self.outbox.push_back(Request::Cancel(wire));
            }
        }
        for id in signals.take_resumed() {
            if let Some(watch) = watches.by_id.get_mut(&id) {
                watch.paused = false;
                watch.late = true;
                self.outbox.push_back(Request::Create(id));
            }
        }
    }

    fn unmap(&mut self, id: u64) -> Option<i64> {
        let wire = self.ids.remove(&id)?;
        self.wires.remove(&wire);
        Some(wire)
    }
}

impl Check {
    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// The result, once; never when nothing is being looked at.
    async fn wait(&mut self) -> Result<(), Error> {
        let Self::Running(check) = self else { return std::future::pending().await };
        let result = check.await;
        *self = Self::Done;
        result
    }
}

enum Prepared {
    Create { wire: i64, key: Vec<u8>, options: WatchOptions },
    Cancel(i64),
    Progress,
    Refusal,
}

async fn transmit(
    sender: &mut WatchRequestSender,
    request: Option<&Prepared>,
) -> Result<(), etcd_client::Error> {
    match request {
        Some(Prepared::Create { key, options, .. }) => sender.watch(key.clone(), Some(options.clone())).await,
        Some(Prepared::Cancel(wire)) => sender.cancel(*wire).await,
        Some(Prepared::Progress) => sender.request_progress().await,
        Some(Prepared::Refusal) => {
            let options = WatchOptions::new().with_range("0").with_watch_id(REFUSAL);
            sender.watch("1", Some(options)).await
        }
        None => Ok(()),
    }
}

fn options(range: &Range, from: i64, wire: i64) -> WatchOptions {
    let options = WatchOptions::new()
        .with_start_revision(from)
        .with_watch_id(wire)
        // Otherwise one large revision would exceed any limit on an answer's size.
        .with_fragment()
        .with_progress_notify();
    match &range.end {
        Some(end) => options.with_range(end.clone()),
        None => options,
    }
}
