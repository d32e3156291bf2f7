//! Sharing keys out among members, the same way in every process and every version: hashes that never change, jump
//! hashing over a number of places, and rendezvous hashing over members with names.
//!
//! Both move as little as can be when members come and go: of n members one more takes over 1/(n + 1) of the keys, and
//! nothing moves between the others. Jump hashing wants the members numbered without gaps, and only the last one may go;
//! rendezvous hashing wants names, and any one may.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The hash of some bytes: XXH3, 64 bits. It is the same on every machine, and no defence against keys that somebody
/// chose to collide.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Which of `places` numbered ones a key belongs to, by jump consistent hashing (Lamping and Veach); `None` when there
/// are none. Takes logarithmic time.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the algorithm is defined by these roundings; the result is below `places`"
)]
pub fn jump(key: &[u8], places: u32) -> Option<u32> {
    if places == 0 {
        return None;
    }
    let mut state = hash(key);
    let (mut place, mut next) = (0_i64, 0_i64);
    while next < i64::from(places) {
        place = next;
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let fraction = (1_i64 << 31) as f64 / ((state >> 33) + 1) as f64;
        next = ((place + 1) as f64 * fraction) as i64;
    }
    u32::try_from(place).ok()
}

/// How much a key belongs to a member, by rendezvous (highest random weight) hashing: it belongs to the one with the
/// highest score.
#[must_use]
pub fn score(key: &[u8], member: u64) -> u64 {
    xxh3_64_with_seed(key, member)
}

/// As [`score`], for members of different weight: of two members, one with twice the weight gets twice the keys. A weight
/// that is not above zero gives the lowest score of all.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits of a hash are enough of it")]
pub fn weighted_score(key: &[u8], member: u64, weight: f64) -> f64 {
    if weight.is_nan() || weight <= 0.0 {
        return f64::NEG_INFINITY;
    }
    // Above 0 and below 1, so that the logarithm is below 0 and finite.
    let fraction = ((score(key, member) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -weight / fraction.ln()
}

/// The member that a key belongs to, by [`score`]; of equal scores the first. `None` when there are none. Takes time for
/// each member.
pub fn owner<T>(key: &[u8], members: impl IntoIterator<Item = (u64, T)>) -> Option<T> {
    let mut best: Option<(u64, T)> = None;
    for (member, item) in members {
        let score = score(key, member);
        if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
            best = Some((score, item));
        }
    }
    best.map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn keys(count: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|n| format!("key-{n}").into_bytes())
    }

    #[test]
    fn hashes_never_change() {
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(b"sereno"), 0x754f_53ea_1da3_1622);
        assert_eq!(score(b"sereno", 7), 0xeace_38e7_119d_614d);
        assert_eq!(keys(8).map(|key| jump(&key, 10).unwrap()).collect::<Vec<_>>(), [1, 7, 7, 0, 3, 7, 6, 2]);
    }

    #[test]
    fn a_further_place_takes_its_share_and_nothing_moves_between_the_others() {
        let (mut moved, mut shares) = (0, HashMap::<u32, u32>::new());
        for key in keys(10_000) {
            let (before, after) = (jump(&key, 9).unwrap(), jump(&key, 10).unwrap());
            assert!(before == after || after == 9);
            moved += u32::from(before != after);
            *shares.entry(after).or_default() += 1;
        }
        assert!((800..1200).contains(&moved), "{moved}");
        assert!(shares.len() == 10 && shares.values().all(|share| (800..1200).contains(share)), "{shares:?}");
        assert_eq!((jump(b"any", 0), jump(b"any", 1)), (None, Some(0)));
    }

    #[test]
    fn when_any_member_goes_only_its_own_keys_move() {
        let members: Vec<u64> = (0..10).map(|n: u64| hash(&n.to_be_bytes())).collect();
        let mut moved = 0;
        for key in keys(10_000) {
            let before = owner(&key, members.iter().map(|id| (*id, *id))).unwrap();
            let after = owner(&key, members.iter().filter(|id| **id != members[3]).map(|id| (*id, *id)));
            assert!(Some(before) == after || before == members[3]);
            moved += u32::from(Some(before) != after);
        }
        assert!((800..1200).contains(&moved), "{moved}");
        assert_eq!(owner::<u64>(b"any", []), None);
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [(1_u64, 1.0), (2, 2.0), (3, 0.0), (4, f64::NAN)];
        let mut shares = HashMap::<u64, u32>::new();
        for key in keys(9_000) {
            let best = weights.iter().max_by(|(a, x), (b, y)| {
                weighted_score(&key, *a, *x).total_cmp(&weighted_score(&key, *b, *y))
            });
            *shares.entry(best.unwrap().0).or_default() += 1;
        }
        assert_eq!(shares.len(), 2, "{shares:?}");
        assert!((2700..3300).contains(&shares[&1]), "{shares:?}");
    }
}
