//! The guard of an announced node.

use std::fmt;

use bytes::Bytes;
use sereno_core::{Presence, PresenceState, PresenceStatus};

use crate::error::Result;
use crate::keepalive::KeepAlive;

/// A node that is announced for as long as this lives.
///
/// It is restored by itself: within milliseconds when its key is deleted underneath, under the session's next epoch when
/// the lease was lost. Dropping it leaves, in the background; [`Announcement::leave`] does so in order.
/// At the end of `main` nothing goes on in the background: see [`Session`](sereno_core::Session#the-end-of-a-process).
#[must_use = "dropping an announcement takes the node away"]
pub struct Announcement {
    presence: Presence,
    keepalive: KeepAlive,
}

impl Announcement {
    pub(crate) fn new(presence: Presence, keepalive: KeepAlive) -> Self {
        Self { presence, keepalive }
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        self.keepalive.group()
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        self.keepalive.node()
    }

    /// How it stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> PresenceStatus {
        self.presence.status()
    }

    /// Waits for the next change of [`Announcement::status`] (missing, restored, displaced, left); `None` after a final
    /// one. Whoever is slow misses states in between, never the last one; `restored` counts them all.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Option<PresenceStatus> {
        self.presence.changed().await
    }

    /// Waits until others may not see the node (its key deleted, the epoch lost, displaced, left); at once when that is
    /// so now.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn lost(&self) -> PresenceState {
        self.presence.lost().await
    }

    /// Replaces the value in place: others see a change, never an absence. Returns the revision. One RPC.
    ///
    /// # Errors
    /// [`Error::NameTaken`](crate::Error::NameTaken) when another session took the name over. While etcd is away, a
    /// timeout within the client's deadline: the value is remembered, and written when the key is restored.
    /// A lost session when it is closed.
    ///
    /// # Cancel safety
    /// The update is done, now or later, even when the future is dropped.
    pub async fn update(&self, value: impl Into<Bytes>) -> Result<i64> {
        let updated = self.presence.update(value).await;
        updated.map_err(|error| self.keepalive.name_taken(error))
    }

    /// Takes the node away, at once and only if it is still this announcement's. One RPC.
    ///
    /// # Errors
    /// As any call, within [`Session::time_to_close`](crate::core::Session::time_to_close): then the key goes with the session.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn leave(self) -> Result<()> {
        Ok(self.presence.leave().await?)
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("group", &self.group())
            .field("node", &self.node())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
