//! Presence: a key that is there as long as its session is, whatever happens to the key or to an epoch.

mod events;
mod keeper;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use self::keeper::Keeper;
use crate::call::until;
use crate::error::{Cause, Error, LostReason, Result};
use crate::key::Key;
use crate::session::Session;

pub use self::events::PresenceEvents;

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
        let deadline = until(self.client().deadline());
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
            tail: None,
        };
        self.shared.tasks.spawn(keeper.run(epoch, first, deadline));
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

    /// The news of [`Presence::status`] for somebody else, who need not hold the presence; the present one counts as seen.
    #[must_use]
    pub fn events(&self) -> PresenceEvents {
        PresenceEvents::new(self.status.clone())
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
        self.ask(Command::Update(value.into(), reply), answer, self.session.client().deadline()).await
    }

    /// Deletes the key, at once and only if it is still ours. One RPC.
    ///
    /// # Errors
    /// As any call, within [`Session::time_to_close`]: then the key goes with the session.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn leave(self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::Leave(reply), answer, self.session.time_to_close()).await {
            // It had ended before: displaced, or the session closed.
            Err(Error::SessionLost { .. } | Error::NameTaken) => Ok(()),
            result => result,
        }
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T>>,
        deadline: Duration,
    ) -> Result<T> {
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
