//! Taking a slot under stable assignment, and giving it back.
//!
//! Each transaction that writes a slot also writes the member's seat, and stands on the seat being as it was: of several
//! of them, or of copies that arrive late, one lands. So nobody has two slots, and once the seat is gone none can come.

use std::pin::pin;

use sereno_core::{Compare, Epoch, Op, Result, Txn};

use crate::group::Want;
use crate::place::Place;

/// Sees to it that the member has a slot of this epoch. Ends only when the epoch does.
pub(crate) async fn hold(place: &Place, epoch: &Epoch) {
    // The last view on which something was done, applied or not: what comes of it is in a later one.
    let mut done = 0;
    loop {
        let (mut moved, mut slot) = (pin!(place.roster.moved()), pin!(place.slot()));
        // From here on nothing is missed.
        moved.as_mut().enable();
        slot.as_mut().enable();
        if place.placed() {
            // Most of the time: nobody is woken by what does not concern him.
            slot.await;
            continue;
        }
        let view = place.roster.view();
        match view.want(&place.name(), epoch, place.written()) {
            Some(want) if view.revision > done => {
                done = view.revision;
                if take(place, epoch, want).await.is_err() {
                    return;
                }
            }
            _ => tokio::select! {
                biased;
                () = slot => {}
                () = moved => {}
            },
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
