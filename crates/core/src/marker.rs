//! Exactly-once for transactions that are not idempotent by themselves.
//!
//! A marker key of the session, `.tx/<epoch>/<slot>`, is written in the same transaction, and its version before the
//! operation is a condition: of several copies of the operation, sent because answers were lost, one lands, and the
//! marker tells whether one did. Before "not applied" is ever said after a lost answer, the marker is moved on by a
//! transaction of its own, so that no copy that is still on its way can land later.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::call::until;
use crate::client::Client;
use crate::epoch::Epoch;
use crate::error::{Error, LostReason, Result};
use crate::session::{Session, Shared};
use crate::txn::{Compare, Op, Reply, Txn};

/// How many such operations of one session can be under way at once; more wait.
const SLOTS: usize = 16;

/// What became of a transaction sent by [`Session::commit_once`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Once {
    /// The conditions held and `then` was done, exactly once.
    Applied {
        /// At this revision.
        revision: i64,
        /// What it answered; `None` when that was lost on the way. Values it would have read can be read at `revision`.
        reply: Option<Reply>,
    },
    /// Some condition did not hold. It was not applied and no copy of it will be.
    NotApplied(Reply),
}

/// One marker key and how often it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    index: u64,
    version: i64,
}

/// The markers of a session's present epoch.
#[derive(Debug)]
pub(crate) struct Markers {
    permits: Arc<Semaphore>,
    state: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    epoch: u64,
    free: Vec<Slot>,
    next: u64,
}

impl Default for Markers {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(SLOTS)), state: Mutex::default() }
    }
}

impl Markers {
    fn take(&self, epoch: u64) -> Slot {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch != epoch {
            *state = Free { epoch, free: Vec::new(), next: 0 };
        }
        state.free.pop().unwrap_or_else(|| {
            state.next += 1;
            Slot { index: state.next, version: 0 }
        })
    }

    /// Gives a slot back whose version is known. One whose version is not known is left to end with the epoch.
    fn give(&self, epoch: u64, slot: Slot) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch == epoch {
            state.free.push(slot);
        }
    }
}

impl Session {
    /// Applies a transaction exactly once if its conditions hold, however often answers are lost, as long as the epoch
    /// lives. For effects that cannot be made idempotent by conditions of their own. One RPC when nothing fails, and one
    /// more key written (`.tx/<epoch>/<slot>`, leased); at most 126 operations and 126 conditions are the caller's.
    ///
    /// # Errors
    /// [`Error::SessionLost`]: not applied. [`Error::OutcomeUnknown`]: the deadline passed, or the epoch was lost,
    /// before it was known. Definite refusals.
    ///
    /// # Cancel safety
    /// It goes on in the background when the future is dropped, and is applied once or not at all.
    pub async fn commit_once(&self, txn: Txn) -> Result<Once> {
        let deadline = until(self.client().deadline());
        let epoch = self.live_epoch().await?;
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            let _ = answer.send(Client::by(deadline, once(&shared, &epoch, txn, deadline)).await);
        });
        answered.await.map_err(|_| Error::Stopped)?
    }
}

async fn once(shared: &Shared, epoch: &Epoch, txn: Txn, deadline: Instant) -> Result<Once> {
    let permit = tokio::time::timeout_at(deadline, shared.markers.permits.acquire()).await;
    let Ok(permit) = permit else {
        let cause = crate::error::Cause::new("earlier operations were not answered in time");
        return Err(Error::Unavailable { deadline: shared.client.deadline(), cause });
    };
    let _permit = permit.map_err(|_| Error::Stopped)?;
    let slot = shared.markers.take(epoch.number());
    let (result, known) = attempt(shared, epoch, slot, txn).await;
    if let Some(slot) = known {
        shared.markers.give(epoch.number(), slot);
    }
    result
}

/// The result, and the slot as it is now if that is known.
async fn attempt(shared: &Shared, epoch: &Epoch, slot: Slot, txn: Txn) -> (Result<Once>, Option<Slot>) {
    let key = match shared.client.reserved("tx").join(epoch.id()).and_then(|p| p.key(slot.index.to_string()))
    {
        Ok(key) => key,
        Err(error) => return (Err(error.into()), Some(slot)),
    };
    let used = Slot { version: slot.version + 1, ..slot };
    let look = txn.otherwise_len();
    let marked = txn
        .when(epoch.fence())
        .when(Compare::version(&key, slot.version))
        .then(Op::put_leased(&key, "applied", epoch))
        .otherwise(Op::get(&key))
        .otherwise(Op::get(epoch.key()));
    let settled = match shared.client.settle(&marked).await {
        Ok(settled) => settled,
        Err(error @ Error::OutcomeUnknown { .. }) => return (Err(error), None),
        Err(error) => return (Err(error), Some(slot)),
    };
    let reply = settled.reply;
    if reply.succeeded {
        return (Ok(Once::Applied { revision: reply.revision, reply: Some(reply) }), Some(used));
    }
    if reply.entry(look + 1).is_none_or(|kv| kv.create_revision != epoch.token()) {
        epoch.end(LostReason::Expired);
        return (Err(lost(epoch, settled.resent)), None);
    }
    match reply.entry(look) {
        Some(kv) if kv.version == used.version => {
            (Ok(Once::Applied { revision: kv.mod_revision, reply: None }), Some(used))
        }
        _ if settled.resent => fence(shared, epoch, slot, &key, reply).await,
        _ => (Ok(Once::NotApplied(reply)), Some(slot)),
    }
}

/// Moves the marker on, so that an earlier copy cannot land any more; or learns that it has.
async fn fence(
    shared: &Shared,
    epoch: &Epoch,
    slot: Slot,
    key: &crate::key::Key,
    reply: Reply,
) -> (Result<Once>, Option<Slot>) {
    let used = Slot { version: slot.version + 1, ..slot };
    let cancel = Txn::new()
        .when(epoch.fence())
        .when(Compare::version(key, slot.version))
        .then(Op::put_leased(key, "cancelled", epoch))
        .otherwise(Op::get(key))
        .otherwise(Op::get(epoch.key()));
    let settled = match shared.client.settle(&cancel).await {
        Ok(settled) => settled,
        Err(error) => {
            let cause = crate::error::Cause::new(error.to_string());
            return (Err(Error::OutcomeUnknown { cause }), None);
        }
    };
    if settled.reply.succeeded {
        return (Ok(Once::NotApplied(reply)), Some(used));
    }
    if settled.reply.entry(1).is_none_or(|kv| kv.create_revision != epoch.token()) {
        epoch.end(LostReason::Expired);
        return (Err(lost(epoch, true)), None);
    }
    match settled.reply.entry(0) {
        Some(kv) if kv.value.as_ref() == b"applied" => {
            (Ok(Once::Applied { revision: kv.mod_revision, reply: None }), Some(used))
        }
        // An earlier copy of the cancellation.
        _ => (Ok(Once::NotApplied(reply)), Some(used)),
    }
}

fn lost(epoch: &Epoch, perhaps_applied: bool) -> Error {
    if perhaps_applied {
        let cause = crate::error::Cause::new(epoch.lost_error().to_string());
        return Error::OutcomeUnknown { cause };
    }
    epoch.lost_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_by_one_operation_at_a_time_and_never_across_epochs() {
        let markers = Markers::default();
        let (a, b) = (markers.take(1), markers.take(1));
        assert_ne!(a.index, b.index);
        markers.give(1, Slot { version: 1, ..a });
        assert_eq!(markers.take(1), Slot { version: 1, ..a });
        assert_eq!(markers.take(2), Slot { index: 1, version: 0 });
        markers.give(1, b);
        assert_eq!(
            markers.take(2),
            Slot { index: 2, version: 0 },
            "a slot of the former epoch is not taken back"
        );
    }
}
