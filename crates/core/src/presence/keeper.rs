//! The task behind a kept key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Command, Conflict, PresenceState, PresenceStatus};
use crate::backoff::{Backoff, Step, jitter};
use crate::client::Client;
use crate::epoch::Epoch;
use crate::error::{Error, LostReason, Result};
use crate::key::Key;
use crate::session::Shared;
use crate::txn::{Compare, Op, Txn};
use crate::watch::{EventKind, Overflow, Tail, TailItem};

/// A watch that went on for so long was a good one.
const CALM: Duration = Duration::from_secs(5);

/// Why the key has to be looked after again.
enum Turn {
    /// It was deleted underneath.
    Restore,
    /// It may or may not be as it should be.
    Retry,
    EpochLost,
    Displaced,
    Leave(Option<oneshot::Sender<Result<()>>>),
    Closing,
}

/// The key as it was found or made to be ours.
#[derive(Debug, Clone, Copy)]
struct Installed {
    /// The revision at which it was written.
    written: i64,
    /// The revision at which it was known to be so: perhaps much later, with nothing in between. What is from before may
    /// have been compacted.
    known: i64,
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) value: Bytes,
    pub(super) conflict: Conflict,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) status: watch::Sender<PresenceStatus>,
    /// The leases of this presence's former epochs: what hangs on them is ours to replace.
    pub(super) leases: Vec<i64>,
    /// Updates that are not written yet.
    pub(super) waiting: Vec<oneshot::Sender<Result<i64>>>,
    /// The watch on the key.
    pub(super) tail: Option<Tail>,
}

impl Keeper {
    /// `first` is told when the key is there, or why it is not by `deadline`.
    pub(super) async fn run(
        mut self,
        mut epoch: Epoch,
        first: oneshot::Sender<Result<()>>,
        deadline: Instant,
    ) {
        let mut first = Some(first);
        let mut backoff = Backoff::streams();
        let mut rewatch = Backoff::streams();
        loop {
            let installed = match first {
                Some(_) => Client::by(deadline, self.install(&epoch)).await,
                None => self.install(&epoch).await,
            };
            let turn = match installed {
                Ok(installed) => {
                    backoff = Backoff::streams();
                    // A name is taken over once. Whoever has it when it is to be restored has taken it over since.
                    self.conflict = Conflict::Refuse;
                    // Before the answer: whoever has it must not find the key missing.
                    self.report(PresenceState::Kept, &epoch, installed.written);
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    for reply in self.waiting.drain(..) {
                        let _ = reply.send(Ok(installed.written));
                    }
                    let since = Instant::now();
                    match self.hold(&epoch, installed.known).await {
                        // The watch could not say: not again and again at full speed.
                        Turn::Retry => {
                            if since.elapsed() > CALM {
                                rewatch = Backoff::streams();
                            }
                            self.pause(&epoch, rewatch.next()).await
                        }
                        turn => turn,
                    }
                }
                Err(error) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Err(error));
                        // Perhaps it was written all the same.
                        let _ = self.delete(&epoch).await;
                        return;
                    }
                    match error {
                        Error::NameTaken => Turn::Displaced,
                        Error::SessionLost { .. } | Error::LeaseGone => Turn::EpochLost,
                        error => {
                            tracing::debug!(%error, key = %self.key, "restoring a kept key");
                            self.pause(&epoch, backoff.next()).await
                        }
                    }
                }
            };
            match turn {
                Turn::Restore => self.missing(),
                Turn::Retry => {}
                Turn::EpochLost => {
                    self.missing();
                    self.leases.push(epoch.lease());
                    match self.next(&epoch).await {
                        Ok(next) => epoch = next,
                        Err(turn) => return self.finish(turn, &epoch).await,
                    }
                }
                turn => return self.finish(turn, &epoch).await,
            }
        }
    }

    /// Holds the key until something happens to it.
    async fn hold(&mut self, epoch: &Epoch, known: i64) -> Turn {
        // One watch for as long as it can be resumed: a new one may be behind for a tenth of a second.
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => {
                let tail = self.shared.client.tail(&self.key, known.saturating_add(1), Overflow::Pause);
                let Ok(tail) = tail.await else { return Turn::Retry };
                tail
            }
        };
        let (turn, broken) = self.held(epoch, known, &mut tail).await;
        self.tail = (!broken).then_some(tail);
        turn
    }

    /// What ends the holding, and whether the watch is of no more use.
    async fn held(&mut self, epoch: &Epoch, mut known: i64, tail: &mut Tail) -> (Turn, bool) {
        let closing = self.shared.closing.clone();
        loop {
            let turn = tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Update(value, reply)) => {
                        self.value = value;
                        self.waiting.push(reply);
                        match self.install(epoch).await {
                            Ok(installed) => {
                                known = installed.known;
                                self.report(PresenceState::Kept, epoch, installed.written);
                                for reply in self.waiting.drain(..) {
                                    let _ = reply.send(Ok(installed.written));
                                }
                                continue;
                            }
                            Err(Error::SessionLost { .. } | Error::LeaseGone) => Turn::EpochLost,
                            Err(Error::NameTaken) => Turn::Displaced,
                            Err(_) => Turn::Retry,
                        }
                    }
                    Some(Command::Leave(reply)) => Turn::Leave(Some(reply)),
                    None => Turn::Leave(None),
                },
                () = closing.cancelled() => Turn::Closing,
                _ = epoch.lost() => Turn::EpochLost,
                turn = watch(tail, epoch, known) => match turn {
                    Some(turn) => turn,
                    None => return (Turn::Retry, true),
                },
            };
            return (turn, false);
        }
    }

    /// Makes the key ours with the present value.
    async fn install(&self, epoch: &Epoch) -> Result<Installed> {
        tokio::select! {
            biased;
            installed = self.shared.client.optimistic(|| self.try_install(epoch)) => installed,
            // The write may hang until the client's deadline; that the key is lost is known sooner. Should a copy of it
            // still land, it is fenced, and on a lease that is known as ours.
            _ = epoch.lost() => Err(epoch.lost_error()),
        }
    }

    async fn try_install(&self, epoch: &Epoch) -> Result<Step<Installed>> {
        let now = |revision| Step::Done(Installed { written: revision, known: revision });
        let client = &self.shared.client;
        epoch.check()?;
        let put = Op::put_leased(&self.key, self.value.clone(), epoch);
        let create = Txn::new()
            .when(epoch.fence())
            .when(Compare::absent(&self.key))
            .then(put.clone())
            .otherwise(Op::get(&self.key))
            .otherwise(Op::get(epoch.key()));
        let reply = client.settle(&create).await?.reply;
        if reply.succeeded {
            return Ok(now(reply.revision));
        }
        if reply.entry(1).is_none_or(|kv| kv.create_revision != epoch.token()) {
            epoch.end(LostReason::Expired);
            return Err(epoch.lost_error());
        }
        let Some(found) = reply.entry(0) else { return Ok(Step::Conflict) };
        let ours = found.lease == epoch.lease();
        if ours && found.value == self.value {
            return Ok(Step::Done(Installed { written: found.mod_revision, known: reply.revision }));
        }
        let former = self.leases.contains(&found.lease);
        if !ours && !former && self.conflict == Conflict::Refuse {
            return Err(Error::NameTaken);
        }
        let replace = Txn::new()
            .when(epoch.fence())
            .when(Compare::modified_at(&self.key, found.mod_revision))
            .then(put);
        let settled = client.settle(&replace).await?;
        // Not applied: either somebody was faster, or a copy of this one was; the next round sees which.
        Ok(if settled.reply.succeeded { now(settled.reply.revision) } else { Step::Conflict })
    }

    /// Deletes the key if it is still ours.
    async fn delete(&self, epoch: &Epoch) -> Result<()> {
        let delete = Txn::new().when(Compare::owned_by(&self.key, epoch)).then(Op::delete(&self.key));
        self.shared.client.settle(&delete).await.map(|_| ())
    }

    async fn pause(&mut self, epoch: &Epoch, wait: Duration) -> Turn {
        tokio::select! {
            biased;
            turn = self.commanded() => turn,
            _ = epoch.lost() => Turn::EpochLost,
            () = tokio::time::sleep(wait) => Turn::Retry,
        }
    }

    async fn next(&mut self, epoch: &Epoch) -> Result<Epoch, Turn> {
        let shared = self.shared.clone();
        let wait = jitter((epoch.ttl() / 20).min(Duration::from_millis(250)));
        let next = async {
            // Many keys move together: not all in the same millisecond.
            tokio::time::sleep(wait).await;
            shared.next_epoch(epoch.number()).await
        };
        tokio::select! {
            biased;
            turn = self.commanded() => Err(turn),
            next = next => next.map_err(|_| Turn::Closing),
        }
    }

    /// Takes commands while the key cannot be written; returns when it is to be given up.
    async fn commanded(&mut self) -> Turn {
        let closing = self.shared.closing.clone();
        loop {
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Update(value, reply)) => {
                        self.value = value;
                        self.waiting.retain(|waiting| !waiting.is_closed());
                        self.waiting.push(reply);
                    }
                    Some(Command::Leave(reply)) => return Turn::Leave(Some(reply)),
                    None => return Turn::Leave(None),
                },
                () = closing.cancelled() => return Turn::Closing,
            }
        }
    }

    async fn finish(mut self, turn: Turn, epoch: &Epoch) {
        match turn {
            Turn::Displaced => {
                tracing::info!(key = %self.key, "a kept key was taken over");
                for reply in self.waiting.drain(..) {
                    let _ = reply.send(Err(Error::NameTaken));
                }
                self.end(PresenceState::Displaced);
            }
            Turn::Leave(reply) => {
                let deleted = if epoch.ended().is_some() { Ok(()) } else { self.delete(epoch).await };
                self.end(PresenceState::Left);
                if let (Err(error), None) = (&deleted, &reply) {
                    tracing::debug!(%error, key = %self.key, "deleting a kept key");
                }
                if let Some(reply) = reply {
                    let _ = reply.send(deleted);
                }
            }
            // The lease is about to be revoked, with all its keys.
            _ => self.end(PresenceState::Left),
        }
    }

    fn report(&self, state: PresenceState, epoch: &Epoch, revision: i64) {
        self.status.send_modify(|status| {
            status.state = state;
            status.epoch = epoch.number();
            status.revision = revision;
        });
    }

    fn missing(&self) {
        self.status.send_if_modified(|status| {
            if status.state == PresenceState::Missing {
                return false;
            }
            status.state = PresenceState::Missing;
            status.restored += 1;
            true
        });
    }

    fn end(&self, state: PresenceState) {
        self.status.send_modify(|status| status.state = state);
    }
}

/// Waits until the watched key is not what this presence knew it to be at `known`; `None` when the watch cannot tell.
async fn watch(tail: &mut Tail, epoch: &Epoch, known: i64) -> Option<Turn> {
    while let Some(Ok(TailItem::Changes(changes))) = tail.next().await {
        // What led up to the present state is history.
        for event in changes.events.into_iter().filter(|event| event.kv.mod_revision > known) {
            match event.kind {
                EventKind::Delete => return Some(Turn::Restore),
                EventKind::Put if event.kv.lease != epoch.lease() => return Some(Turn::Displaced),
                EventKind::Put => {}
            }
        }
    }
    None
}
