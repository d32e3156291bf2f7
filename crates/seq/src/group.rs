//! A group as of one revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sereno_core::Epoch;

use crate::options::Assignment;

/// Everything of a group that members decide by. Cheap to clone: parts that did not change are shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// Up to which every change is in.
    pub(crate) revision: i64,
    /// Whether changes are being heard of.
    pub(crate) followed: bool,
    pub(crate) seats: Arc<Seats>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) claims: Arc<BTreeMap<usize, Claimed>>,
}

/// A member's key.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) name: Arc<str>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    /// `None` for a seat of a later version.
    pub(crate) assignment: Option<Assignment>,
}

/// All seats.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    /// In the order of joining.
    pub(crate) order: Vec<Seat>,
    pub(crate) ranks: HashMap<Arc<str>, usize>,
    pub(crate) shares: Arc<[u64]>,
}

/// Who has a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) seat: Arc<str>,
    pub(crate) epoch: Arc<str>,
    pub(crate) modified: i64,
}

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Those with a key, whether or not their holder has a seat: no other one is free.
    pub(crate) taken: BTreeMap<usize, Option<Slot>>,
    pub(crate) by_seat: HashMap<Arc<str>, usize>,
    /// Those whose holder has a seat, in the order of the slots.
    pub(crate) shares: Arc<[u64]>,
}

/// A claim's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) created: i64,
}

/// What a member without a slot of its present epoch is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Create the key of this slot.
    Take { slot: usize, seat_modified: i64 },
    /// Its own slot of a former epoch is still there.
    Renew { slot: usize, slot_modified: i64, seat_modified: i64 },
}

impl Seats {
    pub(crate) fn rank(&self, name: &str) -> Option<(usize, &Seat)> {
        let rank = *self.ranks.get(name)?;
        Some((rank, self.order.get(rank)?))
    }
}

impl Group {
    /// The slot that a seat has under this epoch, and the revision at which it was taken.
    pub(crate) fn slot_of(&self, seat: &str, epoch: &Epoch) -> Option<(usize, i64)> {
        let slot = *self.slots.by_seat.get(seat)?;
        let held = self.slots.taken.get(&slot)?.as_ref()?;
        (held.epoch.as_ref() == epoch.id()).then_some((slot, held.modified))
    }

    /// What to do for a slot; `None` when there is nothing to do, or not enough known yet.
    ///
    /// Those without one take the free slots in the order in which they joined, so that many who join together do not
    /// reach for the same one.
    pub(crate) fn want(&self, name: &str, epoch: &Epoch, written: i64) -> Option<Want> {
        let (rank, seat) = self.seats.rank(name)?;
        if seat.modified < written || self.slot_of(name, epoch).is_some() {
            return None;
        }
        let seat_modified = seat.modified;
        if let Some(slot) = self.slots.by_seat.get(name) {
            let slot_modified = self.slots.taken.get(slot)?.as_ref()?.modified;
            return Some(Want::Renew { slot: *slot, slot_modified, seat_modified });
        }
        Some(Want::Take { slot: self.free_for(rank)?, seat_modified })
    }

    /// The slot that the `rank`-th member is to reach for.
    fn free_for(&self, rank: usize) -> Option<usize> {
        let earlier = self.seats.order.get(..rank)?;
        let before = earlier.iter().filter(|seat| !self.slots.by_seat.contains_key(&seat.name)).count();
        (0..).filter(|slot| !self.slots.taken.contains_key(slot)).nth(before)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Ledger;

    proptest! {
        #[test]
        fn those_without_a_slot_reach_for_different_ones_and_for_the_lowest_free(
            taken in prop::collection::btree_set(0_usize..20, 0..10), waiting in 1_usize..10
        ) {
            let mut ledger = Ledger::default();
            for slot in &taken {
                ledger.put_slot(*slot, Some(Slot { seat: format!("old-{slot}").into(), epoch: "e".into(), modified: 1 }));
                ledger.put_seat(&format!("old-{slot}"), 1 + *slot as i64, 1, None);
            }
            for n in 0..waiting {
                ledger.put_seat(&format!("new-{n}"), 100 + n as i64, 100 + n as i64, None);
            }
            let group = ledger.publish(200, true);
            let reached: Vec<usize> = (0..waiting)
                .map(|n| group.free_for(group.seats.rank(&format!("new-{n}")).unwrap().0).unwrap())
                .collect();
            let free: Vec<usize> = (0..).filter(|slot| !taken.contains(slot)).take(waiting).collect();
            prop_assert_eq!(&reached, &free);
            prop_assert_eq!(reached.iter().collect::<BTreeSet<_>>().len(), waiting);
        }
    }
}
