//! Chance: every random number of these crates is drawn here, so that a test can have the same ones again.
//!
//! Without the feature `seeded`, which only tests turn on, this is the system's randomness and nothing else.

use rand::{Rng as _, RngCore};

#[cfg(feature = "seeded")]
pub use self::seeded::{Seeded, seed};

/// A random number, as good as unique.
#[must_use]
pub fn number() -> u64 {
    with(|source| source.random())
}

/// A random number below `bound`; 0 when there is none.
#[must_use]
pub fn below(bound: usize) -> usize {
    #[cfg(feature = "seeded")]
    let bound = seeded::narrow(bound);
    if bound == 0 { 0 } else { with(|source| source.random_range(0..bound)) }
}

/// A random number from 0 (inclusive) to 1 (exclusive).
#[must_use]
pub fn fraction() -> f64 {
    with(|source| source.random())
}

/// Puts items into a random order.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    with(|source| rand::seq::SliceRandom::shuffle(items, source));
}

#[cfg(not(feature = "seeded"))]
fn with<T>(draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
    draw(&mut rand::rng())
}

#[cfg(feature = "seeded")]
fn with<T>(draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
    seeded::with(draw)
}

#[cfg(feature = "seeded")]
pub(crate) mod seeded {
    use std::cell::RefCell;
    use std::fmt;
    use std::marker::PhantomData;
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng as _};
    use tokio::time::Instant;

    thread_local! {
        static REPEATED: RefCell<Option<Repeated>> = const { RefCell::new(None) };
    }

    struct Repeated {
        source: StdRng,
        /// The moment that counts as 1 January 2020: the first one that was asked for.
        origin: Option<Instant>,
    }

    /// From here until the guard is dropped, everything that runs on this thread draws the numbers that follow from
    /// `seed` (of very many choices the first few only), and has a wall clock that goes as tokio's time does. With a
    /// runtime of one thread, paused time and servers inside the process, a run is then repeatable.
    #[must_use = "ends when it is dropped"]
    pub fn seed(seed: u64) -> Seeded {
        let repeated = Repeated { source: StdRng::seed_from_u64(seed), origin: None };
        let before = REPEATED.with(|known| known.borrow_mut().replace(repeated));
        Seeded { before, _this_thread: PhantomData }
    }

    /// Makes the chances of one thread repeatable while it lives: see [`seed`].
    pub struct Seeded {
        before: Option<Repeated>,
        _this_thread: PhantomData<*const ()>,
    }

    impl Drop for Seeded {
        fn drop(&mut self) {
            let before = self.before.take();
            REPEATED.with(|known| *known.borrow_mut() = before);
        }
    }

    impl fmt::Debug for Seeded {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Seeded").finish_non_exhaustive()
        }
    }

    /// Of very many things to choose from, a thread whose chances are repeated only sees the first few: what almost never
    /// coincides elsewhere does so all the time.
    pub(super) fn narrow(bound: usize) -> usize {
        let repeated = REPEATED.with(|known| known.borrow().is_some());
        if repeated && bound > 1000 { 8 } else { bound }
    }

    pub(super) fn with<T>(draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
        REPEATED.with(|known| match &mut *known.borrow_mut() {
            Some(repeated) => draw(&mut repeated.source),
            None => draw(&mut rand::rng()),
        })
    }

    /// The time since 1970 of a thread whose chances are repeated.
    pub(crate) fn wall() -> Option<Duration> {
        const START: Duration = Duration::from_secs(1_577_836_800);
        REPEATED.with(|known| {
            let mut known = known.borrow_mut();
            let now = Instant::now();
            let origin = *known.as_mut()?.origin.get_or_insert(now);
            Some(START + now.saturating_duration_since(origin))
        })
    }

    #[cfg(test)]
    mod tests {
        use super::super::*;

        fn draws() -> (Vec<u64>, Vec<usize>, Vec<u8>) {
            let mut order: Vec<u8> = (0..50).collect();
            shuffle(&mut order);
            ((0..9).map(|_| number()).collect(), (0..9).map(|_| below(100)).collect(), order)
        }

        #[test]
        fn one_seed_gives_the_same_numbers_and_only_while_it_is_held() {
            let first = {
                let _seeded = seed(7);
                draws()
            };
            let again = {
                let _seeded = seed(7);
                draws()
            };
            let other = {
                let _seeded = seed(8);
                draws()
            };
            assert_eq!(first, again);
            assert_ne!(first, other);
            assert_ne!(draws(), draws());
        }

        #[test]
        fn an_inner_seed_leaves_the_outer_one_where_it_was() {
            let _outer = seed(1);
            let first = number();
            drop(seed(2));
            let second = number();
            let _again = seed(1);
            assert_eq!([first, second], [number(), number()]);
        }
    }
}
