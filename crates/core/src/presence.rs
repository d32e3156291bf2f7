//! Presence: a key that is there as long as its session is, whatever happens to the key or to an epoch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backoff::{Backoff, Step, jitter};
use crate::epoch::Epoch;
use crate::error::{Cause, Error, LostReason, Result};
use crate::key::Key;
use crate::session::{Session, Shared};
use crate::txn::{Compare, Op, Txn};
use crate::watch::{EventKind, Overflow, Tail, TailItem};

/// What to do when somebody else holds the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Conflict {
    /// Take it over; the other one is told that it was displaced and does not fight back. For names that say who one
    /// is: a process that restarts need not wait until the lease of its former life has run out.
    #[default]
    TakeOver,
    /// Fail with [`Error::NameTaken`] as long as the other one lives.
    Refuse,
}

/// How a kept key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceState {
    /// The key is there, under the present epoch.
    Kept,
    /// The epoch was lost, or the key deleted underneath; it is being restored.
    Missing,
    /// Somebody else took the key over, or holds it since before it could be restored. Final.
    Displaced,
    /// Left, or the session was closed. Final.
    Left,
}

/// The latest news of a kept key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceStatus {
    /// How it stands.
    pub state: PresenceState,
    /// The epoch it was last written under.
    pub epoch: u64,
    /// The revision at which it was last written.
    pub revision: i64,
    /// How often it had to be restored, because the key was deleted underneath or the epoch was lost.
    pub restored: u64,
}

enum Command {
    Update(Bytes, oneshot::Sender<Result<i64>>),
    Leave(oneshot::Sender<Result<()>>),
}

/// A key kept alive by its session: written under its lease, restored when it is deleted underneath and when the session
/// begins a new epoch. All presences of a session share its lease.
///
/// Dropping it leaves in the background, as [`Presence::leave`] does.
#[must_use = "dropping a presence deletes its key"]
pub struct Presence {
    key: Key,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<PresenceStatus>,
    session: Session,
}

impl Session {
    /// Writes a key under the session's lease and keeps it there. Returns when it is there. One RPC, two when somebody
    /// else's is taken over; none to keep it.
    ///
    /// # Errors
    /// [`Error::NameTaken`] under [`Conflict::Refuse`]; as any call.
    ///
    /// # Cancel safety
    /// When the future is dropped the key is deleted again if it was written.
    pub async fn keep(&self, key: &Key, value: impl Into<Bytes>, conflict: Conflict) -> Result<Presence> {
        let epoch = self.live_epoch().await?;
        let (commands, inbox) = mpsc::channel(16);
        let news =
            PresenceStatus { state: PresenceState::Missing, epoch: epoch.number(), revision: 0, restored: 0 };
        let (status, watched) = watch::channel(news);
        let (first, installed) = oneshot::channel();
        let keeper = Keeper {
            shared: self.shared.clone(),
            key: key.clone(),
            value: value.into(),
            conflict,
            inbox,
            status,
            leases: Vec::new(),
            waiting: Vec::new(),
        };
        self.shared.tasks.spawn(keeper.run(epoch, first));
        // Made before waiting: if this future is dropped, so is the presence, and the key goes.
        let mut presence = Presence { key: key.clone(), commands, status: watched, session: self.clone() };
        installed.await.map_err(|_| Error::Stopped)??;
        // That it is there is no news to somebody who has just been told.
        if presence.status.borrow_and_update().state != PresenceState::Kept {
            presence.status.mark_changed();
        }
        Ok(presence)
    }
}

impl Presence {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The session it stands on.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How it stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> PresenceStatus {
        *self.status.borrow()
    }

    /// Waits for the next change of [`Presence::status`]; `None` after a final state. Whoever is slow misses states in
    /// between, never the last one.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Option<PresenceStatus> {
        self.status.changed().await.ok()?;
        Some(*self.status.borrow_and_update())
    }

    /// Waits until the key is not there (epoch lost, displaced, left); at once when it is not.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn lost(&self) -> PresenceState {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.state != PresenceState::Kept).await {
            Ok(status) => status.state,
            Err(_) => PresenceState::Left,
        }
    }

    /// Replaces the value in place: watchers see a change, never an absence. Returns the revision. One RPC.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it could not be written within the client's deadline: it is remembered, and written
    /// when the key is restored. [`Error::NameTaken`] when the key was taken over; [`Error::SessionLost`] after the end.
    ///
    /// # Cancel safety
    /// The update is done, now or later, even when the future is dropped.
    pub async fn update(&self, value: impl Into<Bytes>) -> Result<i64> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Update(value.into(), reply), answer).await
    }

    /// Deletes the key, at once and only if it is still ours. One RPC.
    ///
    /// # Errors
    /// As any call, within the client's deadline: then the key goes with the session.
    ///
    /// # Cancel safety
    /// Leaving goes on when the future is dropped.
    pub async fn leave(self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::Leave(reply), answer).await {
            // It had ended before: displaced, or the session closed.
            Err(Error::SessionLost { .. } | Error::NameTaken) => Ok(()),
            result => result,
        }
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let deadline = self.session.client().deadline();
        let asked = async {
            self.commands.send(command).await.map_err(|_| self.over())?;
            answer.await.map_err(|_| self.over())?
        };
        let timeout = |_| Error::Timeout { deadline, cause: Cause::new("the key is being restored") };
        tokio::time::timeout(deadline, asked).await.map_err(timeout)?
    }

    fn over(&self) -> Error {
        match self.status().state {
            PresenceState::Displaced => Error::NameTaken,
            _ => Error::SessionLost { epoch: self.status().epoch, reason: LostReason::Closed },
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("key", &self.key)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Why the key has to be looked after again.
enum Turn {
    /// It was deleted underneath, or may have been.
    Restore,
    EpochLost,
    Displaced,
    Leave(Option<oneshot::Sender<Result<()>>>),
    Closing,
}

struct Keeper {
    shared: Arc<Shared>,
    key: Key,
    value: Bytes,
    conflict: Conflict,
    inbox: mpsc::Receiver<Command>,
    status: watch::Sender<PresenceStatus>,
    /// The leases of this presence's former epochs: what hangs on them is ours to replace.
    leases: Vec<i64>,
    /// Updates that are not written yet.
    waiting: Vec<oneshot::Sender<Result<i64>>>,
}

impl Keeper {
    async fn run(mut self, mut epoch: Epoch, first: oneshot::Sender<Result<()>>) {
        let mut first = Some(first);
        let mut backoff = Backoff::streams();
        loop {
            let turn = match self.install(&epoch).await {
                Ok(revision) => {
                    backoff = Backoff::streams();
                    // Before the answer: whoever has it must not find the key missing.
                    self.report(PresenceState::Kept, &epoch, revision);
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    for reply in self.waiting.drain(..) {
                        let _ = reply.send(Ok(revision));
                    }
                    self.hold(&epoch, revision).await
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
    async fn hold(&mut self, epoch: &Epoch, revision: i64) -> Turn {
        let client = self.shared.client.clone();
        let Ok(mut tail) = client.tail(&self.key, revision.saturating_add(1), Overflow::Pause).await else {
            return Turn::Restore;
        };
        let closing = self.shared.closing.clone();
        loop {
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Update(value, reply)) => {
                        self.value = value;
                        self.waiting.push(reply);
                        match self.install(epoch).await {
                            Ok(revision) => {
                                self.report(PresenceState::Kept, epoch, revision);
                                for reply in self.waiting.drain(..) {
                                    let _ = reply.send(Ok(revision));
                                }
                            }
                            Err(Error::SessionLost { .. } | Error::LeaseGone) => return Turn::EpochLost,
                            Err(Error::NameTaken) => return Turn::Displaced,
                            Err(_) => return Turn::Restore,
                        }
                    }
                    Some(Command::Leave(reply)) => return Turn::Leave(Some(reply)),
                    None => return Turn::Leave(None),
                },
                () = closing.cancelled() => return Turn::Closing,
                _ = epoch.lost() => return Turn::EpochLost,
                turn = watch(&mut tail, epoch) => return turn,
            }
        }
    }

    /// Makes the key ours with the present value; gives the revision at which it is so.
    async fn install(&self, epoch: &Epoch) -> Result<i64> {
        self.shared.client.optimistic(|| self.try_install(epoch)).await
    }

    async fn try_install(&self, epoch: &Epoch) -> Result<Step<i64>> {
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
            return Ok(Step::Done(reply.revision));
        }
        if reply.entry(1).is_none_or(|kv| kv.create_revision != epoch.token()) {
            epoch.end(LostReason::Expired);
            return Err(epoch.lost_error());
        }
        let Some(found) = reply.entry(0) else { return Ok(Step::Conflict) };
        let ours = found.lease == epoch.lease();
        if ours && found.value == self.value {
            return Ok(Step::Done(found.mod_revision));
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
        Ok(if settled.reply.succeeded { Step::Done(settled.reply.revision) } else { Step::Conflict })
    }

    /// Deletes the key if it is still ours.
    async fn delete(&self, epoch: &Epoch) -> Result<()> {
        let delete = Txn::new().when(Compare::owned_by(&self.key, epoch)).then(Op::delete(&self.key));
        self.shared.client.settle(&delete).await.map(|_| ())
    }

    async fn pause(&mut self, epoch: &Epoch, wait: Duration) -> Turn {
        tokio::select! {
            turn = self.commanded() => turn,
            _ = epoch.lost() => Turn::EpochLost,
            () = tokio::time::sleep(wait) => Turn::Restore,
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
            next = next => next.map_err(|_| Turn::Closing),
            turn = self.commanded() => Err(turn),
        }
    }

    /// Takes commands while the key cannot be written; returns when it is to be given up.
    async fn commanded(&mut self) -> Turn {
        let closing = self.shared.closing.clone();
        loop {
            tokio::select! {
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

/// Waits until the watched key is not what this presence wrote.
async fn watch(tail: &mut Tail, epoch: &Epoch) -> Turn {
    while let Some(Ok(item)) = tail.next().await {
        let TailItem::Changes(changes) = item else { return Turn::Restore };
        for event in changes.events {
            match event.kind {
                EventKind::Delete => return Turn::Restore,
                EventKind::Put if event.kv.lease != epoch.lease() => return Turn::Displaced,
                EventKind::Put => {}
            }
        }
    }
    Turn::Restore
}
