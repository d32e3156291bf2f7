//! Whose is which key or partition.

use std::sync::Arc;

use sereno_core::spread;

/// A member among those that share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) me: u64,
    /// All of them in the order that every view has them in: of equal scores the first wins.
    pub(crate) all: Arc<[u64]>,
}

impl Share {
    pub(crate) fn owns(&self, key: &[u8]) -> bool {
        spread::owner(key, self.all.iter().map(|member| (*member, *member))) == Some(self.me)
    }

    pub(crate) fn partitions(&self, partitions: u32) -> Vec<u32> {
        (0..partitions).filter(|partition| self.owns(&partition.to_be_bytes())).collect()
    }
}

/// What a seat counts as among those that share, under compact assignment: it stays the same when others come and go.
pub(crate) fn of_seat(name: &str) -> u64 {
    spread::hash(name.as_bytes())
}

/// What a slot counts as, under stable assignment, whoever has it.
pub(crate) fn of_slot(slot: usize) -> u64 {
    spread::hash(&(slot as u64).to_be_bytes())
}

/// What moved between two shares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moves {
    /// What is in the later share alone.
    pub gained: Vec<u32>,
    /// What is in the earlier share alone: to be stopped.
    pub lost: Vec<u32>,
}

impl Moves {
    /// The difference of two shares, each in ascending order, as [`Position::partitions`](crate::Position::partitions) gives
    /// them.
    #[must_use]
    pub fn between(before: &[u32], after: &[u32]) -> Self {
        let without = |one: &[u32], other: &[u32]| {
            one.iter().copied().filter(|number| other.binary_search(number).is_err()).collect()
        };
        Self { gained: without(after, before), lost: without(before, after) }
    }

    /// Whether nothing moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(members: &[u64]) -> Vec<Share> {
        let all: Arc<[u64]> = members.into();
        members.iter().map(|me| Share { me: *me, all: all.clone() }).collect()
    }

    fn seats(count: usize) -> Vec<u64> {
        (0..count).map(|n| of_seat(&format!("seat-{n}"))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_partition_and_every_key_has_exactly_one_owner(
            count in 1_usize..40, partitions in 0_u32..200, key: Vec<u8>
        ) {
            let shares = shares(&seats(count));
            let mut owned: Vec<u32> = shares.iter().flat_map(|share| share.partitions(partitions)).collect();
            owned.sort_unstable();
            prop_assert_eq!(owned, (0..partitions).collect::<Vec<_>>());
            prop_assert_eq!(shares.iter().filter(|share| share.owns(&key)).count(), 1);
        }

        #[test]
        fn when_a_member_goes_its_own_partitions_move_and_no_other(count in 2_usize..20, gone: prop::sample::Index) {
            let (before, gone) = (seats(count), gone.index(count));
            let mut after = before.clone();
            let left = after.remove(gone);
            for share in shares(&before) {
                let was = share.partitions(128);
                let Some(now) = shares(&after).into_iter().find(|other| other.me == share.me) else { continue };
                let moves = Moves::between(&was, &now.partitions(128));
                prop_assert_eq!(&moves.lost, &Vec::<u32>::new());
                let all: Arc<[u64]> = before.clone().into();
                let of_the_gone = Share { me: left, all }.partitions(128);
                prop_assert!(moves.gained.iter().all(|number| of_the_gone.contains(number)));
            }
        }

        #[test]
        fn whoever_takes_a_slot_anew_has_the_share_of_its_former_holder(slots in prop::collection::btree_set(0_usize..64, 1..20)) {
            let ids: Vec<u64> = slots.iter().map(|slot| of_slot(*slot)).collect();
            let before: Vec<Vec<u32>> = shares(&ids).iter().map(|share| share.partitions(128)).collect();
            let again: Vec<Vec<u32>> = shares(&ids).iter().map(|share| share.partitions(128)).collect();
            prop_assert_eq!(&before, &again);
            // One slot more, higher than all, takes from the others alone.
            let mut more = ids.clone();
            more.push(of_slot(64));
            for (share, was) in shares(&more).iter().zip(&before) {
                let moves = Moves::between(was, &share.partitions(128));
                prop_assert!(moves.gained.is_empty());
            }
        }
    }

    #[test]
    fn shares_of_a_thousand_partitions_are_about_even() {
        let sizes: Vec<usize> =
            shares(&seats(10)).iter().map(|share| share.partitions(10_000).len()).collect();
        assert!(sizes.iter().all(|size| (800..1200).contains(size)), "{sizes:?}");
    }

    #[test]
    fn moves_are_what_is_in_one_share_alone() {
        let moves = Moves::between(&[1, 2, 5], &[2, 3]);
        assert_eq!((moves.gained.clone(), moves.lost.clone()), (vec![3], vec![1, 5]));
        assert!(!moves.is_empty() && Moves::between(&[1], &[1]).is_empty());
    }
}
