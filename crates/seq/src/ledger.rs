//! The books of a group: what the watch told, put in order once for all members of this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sereno_core::{Change, Key, KeyValue, View};

use crate::group::{Claimed, Group, Seat, Seats, Slot, Slots};
use crate::keys::{Entry, GONE, Keys};
use crate::options::Assignment;
use crate::share;

/// Takes changes one by one and gives the group as it is after any number of them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In the order of joining; no two members join at one revision, but nothing here relies on that.
    seats: BTreeMap<(i64, Arc<str>), Seat>,
    created: HashMap<Arc<str>, i64>,
    slots: BTreeMap<usize, Option<Slot>>,
    claims: BTreeMap<usize, Claimed>,
    latest: Group,
    seats_changed: bool,
    slots_changed: bool,
    claims_changed: bool,
}

impl Ledger {
    pub(crate) fn of(keys: &Keys, view: &View) -> Self {
        let mut ledger = Self::default();
        for kv in view.iter() {
            ledger.put(keys, kv);
        }
        ledger
    }

    pub(crate) fn apply(&mut self, keys: &Keys, change: &Change) {
        match change {
            Change::Put { new, .. } => self.put(keys, new),
            Change::Deleted { old } => self.delete(keys, &old.key),
        }
    }

    fn put(&mut self, keys: &Keys, kv: &KeyValue) {
        match keys.parse(&kv.key) {
            Some(Entry::Seat(name)) if kv.value == GONE.as_bytes() => self.delete_seat(&name),
            Some(Entry::Seat(name)) => {
                self.put_seat(&name, kv.create_revision, kv.mod_revision, Assignment::from_word(&kv.value));
            }
            Some(Entry::Slot(slot)) => self.put_slot(slot, holder(kv)),
            Some(Entry::Claim(index)) => {
                self.claims.insert(index, Claimed { created: kv.create_revision });
                self.claims_changed = true;
            }
            None => {}
        }
    }

    pub(crate) fn put_seat(
        &mut self,
        name: &str,
        created: i64,
        modified: i64,
        assignment: Option<Assignment>,
    ) {
        self.delete_seat(name);
        let name: Arc<str> = name.into();
        self.created.insert(name.clone(), created);
        self.seats.insert((created, name.clone()), Seat { name, created, modified, assignment });
    }

    fn delete_seat(&mut self, name: &str) {
        self.seats_changed = true;
        if let Some((name, created)) = self.created.remove_entry(name) {
            self.seats.remove(&(created, name));
        }
    }

    pub(crate) fn put_slot(&mut self, slot: usize, holder: Option<Slot>) {
        self.slots.insert(slot, holder);
        self.slots_changed = true;
    }

    fn delete(&mut self, keys: &Keys, key: &Key) {
        match keys.parse(key) {
            Some(Entry::Seat(name)) => self.delete_seat(&name),
            Some(Entry::Slot(slot)) => {
                self.slots.remove(&slot);
                self.slots_changed = true;
            }
            Some(Entry::Claim(index)) => {
                self.claims.remove(&index);
                self.claims_changed = true;
            }
            None => {}
        }
    }

    /// The group as it is now. Takes time for each member when one came or went since, else none.
    pub(crate) fn publish(&mut self, revision: i64, followed: bool) -> Group {
        self.latest.revision = self.latest.revision.max(revision);
        self.latest.followed = followed;
        if self.seats_changed {
            self.latest.seats = Arc::new(self.seats());
        }
        if self.slots_changed || self.seats_changed && !self.slots.is_empty() {
            self.latest.slots = Arc::new(self.slots());
        }
        if self.claims_changed {
            self.latest.claims = Arc::new(self.claims.clone());
        }
        (self.seats_changed, self.slots_changed, self.claims_changed) = (false, false, false);
        self.latest.clone()
    }

    fn seats(&self) -> Seats {
        let order: Vec<Seat> = self.seats.values().cloned().collect();
        let ranks = order.iter().enumerate().map(|(rank, seat)| (seat.name.clone(), rank)).collect();
        let shares = order.iter().map(|seat| share::of_seat(&seat.name)).collect();
        Seats { order, ranks, shares }
    }

    fn slots(&self) -> Slots {
        let mut by_seat = HashMap::new();
        let mut shares = Vec::new();
        for (slot, holder) in &self.slots {
            let Some(holder) = holder.as_ref().filter(|holder| self.created.contains_key(&holder.seat))
            else {
                continue;
            };
            // Nobody has two; should somebody have forged one, the lower counts.
            if !by_seat.contains_key(&holder.seat) {
                by_seat.insert(holder.seat.clone(), *slot);
                shares.push(share::of_slot(*slot));
            }
        }
        Slots { taken: self.slots.clone(), by_seat, shares: shares.into() }
    }
}

/// `None` for a value that no member wrote: the slot is taken all the same.
fn holder(kv: &KeyValue) -> Option<Slot> {
    let (seat, epoch) = std::str::from_utf8(&kv.value).ok()?.split_once(' ')?;
    Some(Slot { seat: seat.into(), epoch: epoch.into(), modified: kv.mod_revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(group: &Group) -> Vec<&str> {
        group.seats.order.iter().map(|seat| &*seat.name).collect()
    }

    #[test]
    fn members_are_in_the_order_in_which_their_keys_were_created_whatever_these_are_called() {
        let mut ledger = Ledger::default();
        ledger.put_seat("z", 5, 5, None);
        ledger.put_seat("a", 7, 7, None);
        ledger.put_seat("m", 6, 6, None);
        let group = ledger.publish(7, true);
        assert_eq!(names(&group), ["z", "m", "a"]);
        assert_eq!(group.seats.rank("a").unwrap().0, 2);
        ledger.put_seat("z", 5, 8, None);
        assert_eq!(names(&ledger.publish(8, true)), ["z", "m", "a"], "written again, not joined again");
        ledger.delete_seat("z");
        ledger.put_seat("z", 9, 9, None);
        assert_eq!(names(&ledger.publish(9, true)), ["m", "a", "z"]);
    }

    #[test]
    fn a_slot_counts_while_its_holder_has_a_seat_and_is_taken_while_its_key_is_there() {
        let mut ledger = Ledger::default();
        let slot = |seat: &str| Some(Slot { seat: seat.into(), epoch: "e".into(), modified: 1 });
        ledger.put_seat("a", 1, 1, None);
        ledger.put_slot(0, slot("gone"));
        ledger.put_slot(1, slot("a"));
        ledger.put_slot(2, None);
        let group = ledger.publish(3, true);
        assert_eq!(group.slots.taken.len(), 3);
        assert_eq!(group.slots.shares.len(), 1);
        assert_eq!(group.slots.by_seat.get("a"), Some(&1));
        ledger.delete_seat("a");
        assert_eq!(ledger.publish(4, true).slots.shares.len(), 0);
    }

    #[test]
    fn what_did_not_change_is_not_made_anew() {
        let mut ledger = Ledger::default();
        ledger.put_seat("a", 1, 1, None);
        let before = ledger.publish(1, true);
        ledger.claims.insert(0, Claimed { created: 2 });
        ledger.claims_changed = true;
        let after = ledger.publish(2, true);
        assert!(Arc::ptr_eq(&before.seats, &after.seats));
        assert_eq!((after.revision, after.claims.len()), (2, 1));
    }
}
