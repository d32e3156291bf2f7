//! The guard of a member.

use std::fmt;
use std::sync::Arc;

use sereno_core::{CancellationToken, Session};
use tokio::sync::watch;

use crate::claim::{self, Claim};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::position::{Invalid, Standing};
use crate::positions::Positions;

/// A member of a group, for as long as this lives.
///
/// Dropping it leaves, in the background; [`Member::leave`] does so in order. In either case its position is invalid at
/// once.
/// At the end of `main` nothing goes on in the background: see [`Session`](sereno_core::Session#the-end-of-a-process).
#[must_use = "dropping a member leaves the group"]
pub struct Member {
    group: String,
    place: Arc<Place>,
    leave: CancellationToken,
    gone: watch::Receiver<Option<Result<()>>>,
    session: Session,
}

impl Member {
    pub(crate) fn new(
        group: String,
        place: Arc<Place>,
        leave: CancellationToken,
        gone: watch::Receiver<Option<Result<()>>>,
        session: Session,
    ) -> Self {
        Self { group, place, leave, gone, session }
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The session it stands on.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its position now, or why it has none: looked up in the clock and the latest view at each call, so that it is right
    /// even when the process has just been resumed after a long stop. No RPC.
    ///
    /// # Errors
    /// [`Invalid`], which says whether a position can follow.
    pub fn position(&self) -> Standing {
        self.place.look().standing
    }

    /// Its positions from the present one on: whoever is slow misses some in between, never the last one.
    pub fn positions(&self) -> Positions {
        Positions::new(self.place.clone())
    }

    /// Claims the member's index, so that what is done under it is done by nobody else: waits until the former holder has
    /// released it or has expired for certain, and follows the member to another index meanwhile. The claim is on the
    /// session's lease. One RPC when the index is free, one more for each time that somebody else was faster.
    ///
    /// A claim of an index that this member holds already waits for that one to be released.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the member has left or the session is closed; while its position is invalid for a time it
    /// waits. As any call of the core. After an error no claim stays: what may have been written is taken back in the
    /// background.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no claim behind; one that was won meanwhile is released in the background.
    pub async fn claim(&self) -> Result<Claim> {
        claim::wait(&self.place, &self.session).await
    }

    /// Leaves the group: the position is invalid at once, and the others see it within milliseconds. Claims stay until their
    /// guards are released or dropped, so that whoever gets the index waits for them. May be called more than once. One
    /// RPC; three under stable assignment, which has a slot to give back.
    ///
    /// # Errors
    /// As any call, within [`Session::time_to_close`]: then leaving goes on in the background until it is done or the
    /// session's epoch has ended.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn leave(&self) -> Result<()> {
        self.end();
        let deadline = self.session.time_to_close();
        let mut gone = self.gone.clone();
        let result = match tokio::time::timeout(deadline, gone.wait_for(Option::is_some)).await {
            Ok(Ok(gone)) => gone.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err(sereno_core::Error::Stopped.into()),
            Err(_) => Err(Error::NotGone { group: self.group.clone(), deadline }),
        };
        match result {
            // With the session closed there is nothing to leave any more.
            Err(error) if error.is_session_lost() => Ok(()),
            result => result,
        }
    }

    fn end(&self) {
        self.place.end(Invalid::Left);
        self.leave.cancel();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("group", &self.group)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
