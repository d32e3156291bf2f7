//! Taking a slot under stable assignment, and giving it back.
//!
//! Each transaction that writes a slot also writes the member's seat, and stands on the seat being as it was: of several
//! of them, or of copies that arrive late, one lands. So nobody has two slots, and once the seat is gone none can come.

use sereno_core::{Compare, Epoch, Op, Result, Txn};

use crate::group::Want;
use crate::place::Place;

/// Sees to it that the member has a slot of this epoch. Ends only when the epoch does.
pub(crate) async fn hold(place: &Place, epoch: &Epoch) {
    let mut placed = place.placed();
    let mut views = place.roster.views();
    while placed.wait_for(|placed| !*placed).await.is_ok() {
        let view = views.borrow_and_update().clone();
        let written = place.written();
        let Some(want) = view.want(&place.name(), epoch, written) else {
            if views.changed().await.is_err() {
                return;
            }
            continue;
        };
        if take(place, epoch, want).await.is_err() {
            return;
        }
        // Applied or not, something has happened since that view.
        if views.wait_for(|now| now.revision > view.revision || !now.followed).await.is_err() {
            return;
        }
    }
}

async fn take(place: &Place, epoch: &Epoch, want: Want) -> Result<()> {
    let (keys, client) = (place.roster.keys(), place.roster.client());
    let (seat, value) = (place.key(), format!("{} {}", place.name(), epoch.id()));
    let (slot, seat_modified) = match want {
        Want::Take { slot, seat_modified } | Want::Renew { slot, seat_modified, .. } => (slot, seat_modified),
    };
    let key = keys.slot(slot)?;
    let as_seen = match want {
        Want::Take { .. } => Compare::absent(&key),
        Want::Renew { slot_modified, .. } => Compare::modified_at(&key, slot_modified),
    };
    let txn = Txn::new()
        .when(epoch.fence())
        .when(Compare::modified_at(&seat, seat_modified))
        .when(as_seen)
        .then(Op::put_leased(&key, value, epoch))
        .then(Op::put_leased(&seat, place.assignment.word(), epoch));
    place.reach(slot);
    let settled = client.persist(epoch, async || match client.settle(&txn).await {
        Ok(settled) => Some(settled),
        Err(error) => {
            tracing::debug!(%error, slot, "taking a slot");
            None
        }
    });
    if settled.await?.reply.succeeded {
        place.reached(slot);
    }
    Ok(())
}

/// Takes the seat away by `parting`, and then every slot that is this member's. One RPC, and one for its slot.
pub(crate) async fn vacate(place: &Place, epoch: &Epoch, parting: Txn) -> Result<()> {
    let (keys, client) = (place.roster.keys(), place.roster.client());
    let (first, mine) = (parting.then_len(), format!("{} ", place.name()));
    let mut look = parting;
    let slots = place.slots();
    for slot in &slots {
        let key = keys.slot(*slot)?;
        look = look.then(Op::get(&key)).otherwise(Op::get(&key));
    }
    let reply = client.settle(&look).await?.reply;
    let first = if reply.succeeded { first } else { 0 };
    for at in 0..slots.len() {
        let Some(found) = reply.entry(first + at) else { continue };
        if found.value.starts_with(mine.as_bytes()) {
            let delete = Txn::new()
                .when(epoch.fence())
                .when(Compare::modified_at(&found.key, found.mod_revision))
                .then(Op::delete(&found.key));
            client.settle(&delete).await?;
        }
    }
    Ok(())
}
