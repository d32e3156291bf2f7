//! The task behind a member: takes its seat, keeps it, takes it again when it was lost, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use sereno_core::{
    CancellationToken, Compare, Conflict, Epoch, Key, Op, Presence, PresenceState, PresenceStatus, Session,
    Txn, WeakSession,
};
use tokio::sync::{oneshot, watch};

use crate::error::Result;
use crate::keys::{GONE, Keys};
use crate::options::{Assignment, OnLoss};
use crate::place::Place;
use crate::position::Invalid;
use crate::slot;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A name for a seat that nobody else has, and its key.
pub(crate) fn name(session: &Session, keys: &Keys) -> Result<(Arc<str>, Key)> {
    let name = format!("{}-{}", session.epoch().id(), session.serial());
    let key = keys.seat(&name)?;
    Ok((name.into(), key))
}

pub(crate) struct Keeper {
    pub(crate) place: Arc<Place>,
    pub(crate) session: WeakSession,
    pub(crate) on_loss: OnLoss,
    pub(crate) leave: CancellationToken,
    pub(crate) closing: CancellationToken,
    pub(crate) gone: watch::Sender<Option<Result<()>>>,
}

/// Why a seat is not kept any more.
enum End {
    Leave,
    Closing,
    /// Lost, and the member is not to come back.
    Lost(Invalid),
    /// Somebody wrote over the seat.
    Displaced,
}

impl Keeper {
    /// `first` is told when the seat is there, or why it is not.
    pub(crate) async fn run(self, session: Session, first: oneshot::Sender<Result<()>>) {
        let taken = self.take(&session, self.place.key()).await;
        drop(session);
        let mut presence = match taken {
            Some(Ok(presence)) => presence,
            Some(Err(error)) => {
                self.place.end(Invalid::Left);
                let clean = !error.is_outcome_unknown();
                let _ = first.send(Err(error.into()));
                return self.depart(None, clean).await;
            }
            None => {
                self.place.end(Invalid::Left);
                return self.depart(None, false).await;
            }
        };
        let _ = first.send(Ok(()));
        let (why, clean) = loop {
            let (end, clean) = self.keep(&mut presence).await;
            match end {
                End::Leave => break (Invalid::Left, clean),
                End::Closing => break (Invalid::Closed, clean),
                End::Lost(why) => break (why, false),
                End::Displaced => match self.another(&presence).await {
                    Some(another) => presence = another,
                    None => break (Invalid::Left, false),
                },
            }
        };
        // Before the seat goes: others may have the place from then on.
        self.place.end(why);
        self.depart(Some(presence), clean).await;
    }

    /// Writes a seat; `None` when that is not wanted any more.
    async fn take(&self, session: &Session, seat: Key) -> Option<sereno_core::Result<Presence>> {
        tokio::select! {
            biased;
            () = self.leave.cancelled() => None,
            () = self.closing.cancelled() => None,
            kept = session.keep(&seat, self.place.assignment.word(), Conflict::Refuse) => Some(kept),
        }
    }

    /// Keeps the seat until there is a reason not to. Also tells whether nothing of ours is on its way that could
    /// write the seat again.
    async fn keep(&self, presence: &mut Presence) -> (End, bool) {
        let mut status = presence.status();
        loop {
            let seated = match self.seated(status) {
                Ok(epoch) => {
                    self.place.sit(&epoch, status.revision);
                    Some(epoch)
                }
                Err(End::Lost(why)) if self.on_loss == OnLoss::Rejoin => {
                    self.place.away(why);
                    None
                }
                Err(end) => return (end, false),
            };
            let clean = seated.is_some();
            tokio::select! {
                biased;
                () = self.leave.cancelled() => return (End::Leave, clean),
                () = self.closing.cancelled() => return (End::Closing, clean),
                changed = presence.changed() => match changed {
                    Some(changed) => status = changed,
                    None if presence.status().state == PresenceState::Displaced => {
                        return (End::Displaced, false);
                    }
                    None => return (End::Closing, false),
                },
                // What follows from that is the state after this one.
                why = lost(seated.as_ref()) => match why {
                    why if self.on_loss == OnLoss::Leave => return (End::Lost(why), false),
                    _ => status.state = PresenceState::Missing,
                },
                () = self.slot(seated.as_ref()) => {}
            }
        }
    }

    /// The epoch under which the seat is there, or what became of it.
    fn seated(&self, status: PresenceStatus) -> std::result::Result<Epoch, End> {
        let epoch = self.session.epoch();
        let same = epoch.number() == status.epoch;
        match (status.state, epoch.ended().filter(|_| same)) {
            (PresenceState::Displaced, _) => match self.on_loss {
                OnLoss::Rejoin => Err(End::Displaced),
                OnLoss::Leave => Err(End::Lost(Invalid::SeatLost)),
            },
            (PresenceState::Left, _) => Err(End::Closing),
            (_, Some(reason)) => Err(End::Lost(Invalid::epoch_lost(reason))),
            (PresenceState::Kept, None) if same => Ok(epoch),
            // A later epoch has begun already: the state after this one says how the seat stands under it.
            _ if !same => Err(End::Lost(self.place.lost())),
            _ => Err(End::Lost(Invalid::SeatLost)),
        }
    }

    async fn slot(&self, epoch: Option<&Epoch>) {
        match epoch {
            Some(epoch) if self.place.assignment == Assignment::Stable => {
                slot::hold(&self.place, epoch).await
            }
            _ => {}
        }
        std::future::pending().await
    }

    /// Takes another seat, however long it takes; `None` when that is not wanted any more.
    async fn another(&self, presence: &Presence) -> Option<Presence> {
        let session = presence.session();
        self.place.away(Invalid::SeatLost);
        let (name, key) = name(session, self.place.roster.keys()).ok()?;
        self.place.rename(name, key.clone());
        let client = self.place.roster.client();
        let taken = client.patiently(FOR_EVER, async || match self.take(session, key.clone()).await {
            Some(Err(error)) => {
                tracing::debug!(%error, "taking another seat");
                None
            }
            taken => Some(taken),
        });
        taken.await??.ok()
    }

    /// Gives back everything, for as long as the epoch lives.
    async fn depart(&self, presence: Option<Presence>, clean: bool) {
        if self.closing.is_cancelled() {
            // The lease goes, with everything on it.
            self.gone.send_replace(Some(Ok(())));
            return;
        }
        let epoch = self.session.epoch();
        let left = match presence {
            Some(presence) => presence.leave().await.map_err(Into::into),
            None => Ok(()),
        };
        if !clean || left.is_err() || self.place.assignment == Assignment::Stable {
            let client = self.place.roster.client();
            let parting = parting(&self.place.key(), &epoch, clean);
            let vacated = client.persist(&epoch, async || {
                match slot::vacate(&self.place, &epoch, parting.clone()).await {
                    Ok(()) => Some(()),
                    Err(error) => {
                        tracing::debug!(%error, "leaving a group");
                        None
                    }
                }
            });
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {}
                done = vacated => drop(done),
            }
        }
        self.gone.send_replace(Some(left));
    }
}

/// However the task ends, nobody waits for it any more: a runtime that was shut down drops it where it is.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.place.end(Invalid::Closed);
        if self.gone.borrow().is_none() {
            self.gone.send_replace(Some(Err(sereno_core::Error::Stopped.into())));
        }
    }
}

async fn lost(epoch: Option<&Epoch>) -> Invalid {
    match epoch {
        Some(epoch) => Invalid::epoch_lost(epoch.lost().await),
        None => std::future::pending().await,
    }
}

/// Takes a seat away. When a copy of what creates it may still be on its way, a mark stays in its place until the epoch
/// ends, so that it cannot land.
fn parting(seat: &Key, epoch: &Epoch, clean: bool) -> Txn {
    if clean {
        return Txn::new().when(Compare::owned_by(seat, epoch)).then(Op::delete(seat));
    }
    Txn::new().when(epoch.fence()).then(Op::put_leased(seat, GONE, epoch))
}
