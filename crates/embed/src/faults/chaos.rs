//! Random faults, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::fault::Fault;

/// Random faults, each with a probability per request, for [`Faults::random`](crate::Faults::random).
///
/// The same seed and the same order of requests give the same faults: each request draws the same number of random
/// numbers, whatever its kind. At most one fault is drawn per request, so the probabilities should add up to at most 1.
///
/// ```
/// use std::time::Duration;
/// use sereno_embed::Chaos;
///
/// let chaos = Chaos::seed(42).lose_reply(0.02).cut_streams(0.01).delay(0.1, Duration::from_millis(20));
/// ```
#[derive(Debug, Clone)]
pub struct Chaos {
    seed: u64,
    odds: Vec<(f64, Kind)>,
    longest_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fault(Fault),
    Delay,
    CutStreams,
    ExpireLease,
    Compact,
}

/// The result of one draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draw {
    Nothing,
    Fault(Fault),
    CutStreams,
    /// Expire the n-th lease, modulo the number of leases.
    ExpireLease(usize),
    Compact,
}

impl Chaos {
    /// Starts with no faults. The faults added to it are drawn from this seed.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self { seed, odds: Vec::new(), longest_delay: Duration::ZERO }
    }

    /// [`Fault::LoseRequest`] with this probability, from 0 to 1.
    #[must_use]
    pub fn lose_request(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::LoseRequest))
    }

    /// [`Fault::LoseReply`] with this probability, from 0 to 1.
    #[must_use]
    pub fn lose_reply(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::LoseReply))
    }

    /// [`Fault::HangRequest`] with this probability, from 0 to 1.
    #[must_use]
    pub fn hang_request(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::HangRequest))
    }

    /// [`Fault::HangReply`] with this probability, from 0 to 1.
    #[must_use]
    pub fn hang_reply(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::HangReply))
    }

    /// [`Fault::Refuse`] with this probability, from 0 to 1.
    #[must_use]
    pub fn refuse(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::Refuse))
    }

    /// [`Fault::NoLeader`] with this probability, from 0 to 1.
    #[must_use]
    pub fn no_leader(self, probability: f64) -> Self {
        self.with(probability, Kind::Fault(Fault::NoLeader))
    }

    /// [`Fault::Delay`] of a uniformly random time up to `longest` with this probability, from 0 to 1.
    #[must_use]
    pub fn delay(mut self, probability: f64, longest: Duration) -> Self {
        self.longest_delay = longest;
        self.with(probability, Kind::Delay)
    }

    /// Ends all watch and keepalive streams with this probability, from 0 to 1.
    #[must_use]
    pub fn cut_streams(self, probability: f64) -> Self {
        self.with(probability, Kind::CutStreams)
    }

    /// Expires a random lease with this probability, from 0 to 1.
    #[must_use]
    pub fn expire_lease(self, probability: f64) -> Self {
        self.with(probability, Kind::ExpireLease)
    }

    /// Compacts the history up to the current revision with this probability, from 0 to 1.
    #[must_use]
    pub fn compact(self, probability: f64) -> Self {
        self.with(probability, Kind::Compact)
    }

    fn with(mut self, probability: f64, kind: Kind) -> Self {
        self.odds.retain(|(_, present)| *present != kind);
        self.odds.push((probability.clamp(0.0, 1.0), kind));
        self
    }

    pub(super) fn dice(&self) -> Dice {
        Dice { chaos: self.clone(), random: StdRng::seed_from_u64(self.seed) }
    }
}

/// A [`Chaos`] in use, with its random number generator.
#[derive(Debug)]
pub(super) struct Dice {
    chaos: Chaos,
    random: StdRng,
}

impl Dice {
    pub(super) fn draw(&mut self) -> Draw {
        let mut point: f64 = self.random.random();
        let share: f64 = self.random.random();
        let choice: u32 = self.random.random();
        for (probability, kind) in &self.chaos.odds {
            if point < *probability {
                return match kind {
                    Kind::Fault(fault) => Draw::Fault(*fault),
                    Kind::Delay => Draw::Fault(Fault::Delay(self.chaos.longest_delay.mul_f64(share))),
                    Kind::CutStreams => Draw::CutStreams,
                    Kind::ExpireLease => Draw::ExpireLease(choice as usize),
                    Kind::Compact => Draw::Compact,
                };
            }
            point -= probability;
        }
        Draw::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> Vec<Draw> {
        let mut dice =
            Chaos::seed(seed).lose_reply(0.2).delay(0.2, Duration::from_secs(1)).compact(0.1).dice();
        (0..1000).map(|_| dice.draw()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_one_others() {
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn each_fault_comes_as_often_as_it_is_likely() {
        let draws = draws(3);
        let count = |wanted: fn(&Draw) -> bool| draws.iter().filter(|draw| wanted(draw)).count();
        assert!((150..250).contains(&count(|draw| *draw == Draw::Fault(Fault::LoseReply))));
        assert!((150..250).contains(&count(|draw| matches!(draw, Draw::Fault(Fault::Delay(_))))));
        assert!((60..140).contains(&count(|draw| *draw == Draw::Compact)));
        assert!((420..580).contains(&count(|draw| *draw == Draw::Nothing)));
    }
}
