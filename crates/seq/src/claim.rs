//! The guard of an index.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use sereno_core::{Compare, Epoch, Key, LostReason, Op, Session, Txn};
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::place::{Place, Seated};
use crate::position::{Invalid, Position};
use crate::release::Release;

/// Why a claim's holder is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimLost {
    /// The member has another index now. Nobody else gets the claimed one before the claim is released.
    Moved {
        /// The index it has.
        to: usize,
    },
    /// The member's position is not valid any more. With a lost epoch others may get the index from now on; with
    /// a lost seat, or after leaving, not before the claim is released.
    Invalid(Invalid),
    /// The claim's key was deleted underneath: others may have the index.
    Deleted,
}

/// An index that nobody else can claim while this lives: [`Member::claim`](crate::Member::claim).
///
/// Its key goes when it is released or dropped, or with the session's epoch, whichever is first, and not before: the next
/// holder starts after that. The holder is told to stop by [`Claim::lost`]. Dropping it releases, in the background.
#[must_use = "dropping a claim releases it"]
pub struct Claim {
    place: Arc<Place>,
    key: Key,
    index: usize,
    token: i64,
    epoch: Epoch,
    /// The position it was claimed at.
    position: Position,
    lost: OnceLock<ClaimLost>,
    released: bool,
}

impl Claim {
    /// The claimed index.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The fencing token: a later holder of the same index has a higher one, so a resource that remembers the highest one it
    /// has seen can refuse those who were only thought to hold it.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.token
    }

    /// The condition that this claim is still held in etcd, for a transaction of the caller's own.
    #[must_use]
    pub fn fence(&self) -> Compare {
        Compare::created_at(&self.key, self.token)
    }

    /// Whether nothing is known that ends the claim. No RPC; looked up in the clock at each call, so it is right even when the
    /// process has just been resumed after a long stop. Never true again once it was false.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.ended().is_none()
    }

    /// Why the holder is to stop, if it is to.
    #[must_use]
    pub fn ended(&self) -> Option<ClaimLost> {
        if let Some(lost) = self.lost.get() {
            return Some(*lost);
        }
        let lost = self.look()?;
        Some(*self.lost.get_or_init(|| lost))
    }

    /// Waits until the holder is to stop: the member got another index, its position is invalid, the key was deleted. Then
    /// stop, and release the claim.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn lost(&self) -> ClaimLost {
        loop {
            let (mut moved, mut news) = (pin!(self.place.roster.moved()), pin!(self.place.news()));
            // From here on nothing is missed.
            moved.as_mut().enable();
            news.as_mut().enable();
            if let Some(lost) = self.ended() {
                return lost;
            }
            tokio::select! {
                biased;
                _ = self.epoch.lost() => {}
                () = news => {}
                () = moved => {}
            }
        }
    }

    /// Gives the index back. One RPC.
    ///
    /// # Errors
    /// As any call, within the client's deadline: it goes on in the background until it is done or the epoch has ended.
    ///
    /// # Cancel safety
    /// Releasing goes on when the future is dropped.
    pub async fn release(mut self) -> Result<()> {
        let released = self.key_only().once(self.place.roster.client()).await;
        self.released = released.is_ok();
        Ok(released?)
    }

    fn look(&self) -> Option<ClaimLost> {
        if !self.epoch.is_valid() {
            let reason = self.epoch.ended().unwrap_or(LostReason::Deadline);
            return Some(ClaimLost::Invalid(Invalid::epoch_lost(reason)));
        }
        let view = self.place.roster.view();
        let there = view.claims.get(&self.index).is_some_and(|claimed| claimed.created == self.token);
        if !there && view.revision >= self.token {
            return Some(ClaimLost::Deleted);
        }
        match self.place.look().standing {
            Err(invalid) => Some(ClaimLost::Invalid(invalid)),
            Ok(now) if !now.same_stay(&self.position) => Some(ClaimLost::Invalid(self.place.lost())),
            Ok(now) if now.index != self.index => Some(ClaimLost::Moved { to: now.index }),
            Ok(_) => None,
        }
    }

    fn key_only(&self) -> Release {
        Release { key: self.key.clone(), token: self.token, epoch: self.epoch.clone() }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.released {
            self.place.roster.release(self.key_only());
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("index", &self.index)
            .field("token", &self.token)
            .field("lost", &self.ended())
            .finish_non_exhaustive()
    }
}

/// Claims the member's index, wherever it goes, as soon as nobody else has it.
pub(crate) async fn wait(place: &Arc<Place>, session: &Session) -> Result<Claim> {
    loop {
        let (mut moved, mut news) = (pin!(place.roster.moved()), pin!(place.news()));
        // From here on nothing is missed.
        moved.as_mut().enable();
        news.as_mut().enable();
        match place.seated() {
            Err((invalid, true)) => return Err(Error::Invalid(invalid)),
            Ok(seated) if !seated.view.claims.contains_key(&seated.position.index) => {
                let seen = seated.view.revision;
                match claim(place, session, seated).await? {
                    // One that is not wanted any more is dropped, and given back.
                    Some(claim) if claim.is_valid() => return Ok(claim),
                    // Something of the group has changed since that view, and will be heard of, if it was not yet.
                    None if place.roster.view().revision == seen => {}
                    _ => continue,
                }
            }
            _ => {}
        }
        tokio::select! {
            biased;
            () = news => {}
            () = moved => {}
        }
    }
}

/// Claims an index once; `None` when somebody else has it or the seat is not as it was seen.
///
/// On a task of its own: whoever waits for it may be gone before it is answered.
async fn claim(place: &Arc<Place>, session: &Session, seated: Seated) -> Result<Option<Claim>> {
    let (answer, answered) = oneshot::channel();
    let ticket = format!("{}-{}", seated.epoch.id(), session.serial());
    let place = place.clone();
    session.spawn(|closing| async move {
        let claiming = async {
            let claimed = create(&place, &seated, &ticket).await;
            let failed = claimed.is_err();
            // A claim that nobody takes is dropped, and so released.
            drop(answer.send(claimed));
            if failed {
                withdraw(&place, &seated, &ticket).await;
            }
        };
        tokio::select! {
            biased;
            // The lease goes, with everything on it.
            () = closing.cancelled() => {}
            () = claiming => {}
        }
    });
    answered.await.map_err(|_| Error::Invalid(Invalid::Closed))?
}

async fn create(place: &Arc<Place>, seated: &Seated, ticket: &str) -> Result<Option<Claim>> {
    let index = seated.position.index;
    let key = place.roster.keys().claim(index)?;
    let create = Txn::new()
        .when(seated.epoch.fence())
        .when(Compare::modified_at(&seated.seat, seated.seat_modified))
        .when(Compare::absent(&key))
        .then(Op::put_leased(&key, ticket.to_owned(), &seated.epoch))
        .otherwise(Op::get(&key));
    let reply = place.roster.client().settle(&create).await?.reply;
    let token = if reply.succeeded {
        Some(reply.revision)
    } else {
        // An earlier copy of this very transaction may have been the faster one.
        reply.entry(0).filter(|kv| kv.value == ticket.as_bytes()).map(|kv| kv.create_revision)
    };
    Ok(token.map(|token| Claim {
        place: place.clone(),
        key,
        index,
        token,
        epoch: seated.epoch.clone(),
        position: seated.position.clone(),
        lost: OnceLock::new(),
        released: false,
    }))
}

/// Sees to it that nothing stays of a claim whose outcome is not known: first the seat is written again, so that no copy
/// that is still on its way can land, and then the key is deleted if one did.
async fn withdraw(place: &Place, seated: &Seated, ticket: &str) {
    let client = place.roster.client();
    let Ok(key) = place.roster.keys().claim(seated.position.index) else { return };
    let touch = Txn::new()
        .when(seated.epoch.fence())
        .when(Compare::modified_at(&seated.seat, seated.seat_modified))
        .then(Op::put_leased(&seated.seat, place.assignment.word(), &seated.epoch))
        .then(Op::get(&key))
        .otherwise(Op::get(&key));
    let withdrawn = client.persist(&seated.epoch, async || {
        let reply = client.settle(&touch).await.ok()?.reply;
        let at = usize::from(reply.succeeded);
        if let Some(kv) = reply.entry(at).filter(|kv| kv.value == ticket.as_bytes()) {
            let release =
                Release { key: key.clone(), token: kv.create_revision, epoch: seated.epoch.clone() };
            release.once(client).await.ok()?;
        }
        Some(())
    });
    drop(withdrawn.await);
}
