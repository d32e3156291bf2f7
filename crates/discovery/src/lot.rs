//! Drawing from hosts by their weights.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sereno_core::{chance, spread};

use crate::seat::Seat;

/// The golden ratio's fraction in 64 bits: its multiples, taken without what overflows, fall evenly into any interval.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Two draws by weight may be the same host again and again, when it has nearly all of the weight.
const DRAWS: usize = 3;

/// Hosts to draw from. A draw takes constant time when all weights are equal, else logarithmic time.
#[derive(Debug, Default)]
pub(crate) struct Lot {
    seats: Vec<Arc<Seat>>,
    /// The sum of the weights up to each one; none when all are equal.
    sums: Vec<f64>,
}

impl Lot {
    pub(crate) fn new(seats: Vec<Arc<Seat>>) -> Self {
        let mut sum = 0.0;
        let sums = if is_even(&seats) {
            Vec::new()
        } else {
            let add = |seat: &Arc<Seat>| {
                sum += seat.weight();
                sum
            };
            seats.iter().map(add).collect()
        };
        Self { seats, sums }
    }

    pub(crate) fn random(&self) -> Option<&Arc<Seat>> {
        self.seats.get(self.place(chance::fraction()))
    }

    /// In turn; with unequal weights as evenly mixed as can be.
    pub(crate) fn next(&self, turn: &AtomicU64) -> Option<&Arc<Seat>> {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let place = if self.sums.is_empty() {
            let seats = u64::try_from(self.seats.len()).ok()?;
            usize::try_from(turn.checked_rem(seats)?).ok()?
        } else {
            self.place(fraction(turn.wrapping_mul(GOLDEN)))
        };
        self.seats.get(place)
    }

    /// The one with less to do for its weight, of two that are drawn; the first when they are equal.
    pub(crate) fn lighter(&self) -> Option<&Arc<Seat>> {
        let first = self.random()?;
        let second = (0..DRAWS).filter_map(|_| self.random()).find(|seat| !Arc::ptr_eq(first, seat));
        let load = |seat: &Seat| seat.load() / if self.sums.is_empty() { 1.0 } else { seat.weight() };
        Some(second.filter(|second| load(second) < load(first)).unwrap_or(first))
    }

    pub(crate) fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// Where a fraction of the whole weight falls.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place below the number of hosts, which is far below 2^53"
    )]
    fn place(&self, fraction: f64) -> usize {
        let place = match self.sums.last() {
            None => (fraction * self.seats.len() as f64) as usize,
            Some(whole) => {
                let mark = fraction * whole;
                self.sums.partition_point(|sum| *sum <= mark)
            }
        };
        // What rounding put at the very end.
        place.min(self.seats.len().saturating_sub(1))
    }
}

/// Whether all have the same weight.
pub(crate) fn is_even(seats: &[Arc<Seat>]) -> bool {
    let mut bits = seats.iter().map(|seat| seat.weight().to_bits());
    bits.next().is_none_or(|first| bits.all(|bits| bits == first))
}

/// The one that a key belongs to, by rendezvous hashing, and its score; of equal scores the first. The scores of hosts of
/// equal weights are found without a logarithm, and are in the same order.
pub(crate) fn owner<'a>(
    seats: impl IntoIterator<Item = &'a Arc<Seat>>,
    key: &[u8],
    is_even: bool,
) -> Option<(f64, &'a Arc<Seat>)> {
    let mut best: Option<(f64, &Arc<Seat>)> = None;
    for seat in seats {
        let id = seat.entry.id;
        let score = if is_even {
            fraction(spread::score(key, id))
        } else {
            spread::weighted_score(key, id, seat.weight())
        };
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, seat));
        }
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
fn fraction(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}
