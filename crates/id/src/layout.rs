//! The bits of an id.
//!
//! ```text
//! 0 | 39 bits: 10 ms since 2014-09-01 UTC | 8 bits: sequence | 16 bits: worker
//! ```

use std::time::Duration;

/// 2014-09-01T00:00:00 UTC, since 1970.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_409_529_600);
/// The unit of an id's time.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// One more than the last tick that fits.
pub(crate) const TICKS: u64 = 1 << 39;
/// Ids per tick and worker.
pub(crate) const SEQUENCES: usize = 1 << 8;

/// What an id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Parts {
    /// When it was made: since the start of 1970, UTC, in steps of 10 ms.
    pub time: Duration,
    /// Its number among the ids of one worker within these 10 ms.
    pub sequence: u8,
    /// The worker id under which it was made.
    pub worker: u16,
}

/// Takes an id apart. Works for the ids of any Sonyflake generator with the usual start time; the top bit, which no id
/// has, is ignored.
#[must_use]
pub fn decompose(id: u64) -> Parts {
    let parts = sonyflake::decompose(sonyflake::Id::from(id & !(1 << 63)));
    Parts {
        time: instant(parts.time),
        sequence: u8::try_from(parts.sequence).unwrap_or(u8::MAX),
        worker: u16::try_from(parts.machine_id).unwrap_or(u16::MAX),
    }
}

pub(crate) fn compose(tick: u64, sequence: u8, worker: u16) -> u64 {
    tick << 24 | u64::from(sequence) << 16 | u64::from(worker)
}

/// The tick of a moment since 1970; 0 before the first one.
pub(crate) fn tick(time: Duration) -> u64 {
    let ticks = time.saturating_sub(EPOCH).as_millis() / TICK.as_millis();
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// When a tick began, since 1970.
pub(crate) fn instant(tick: u64) -> Duration {
    EPOCH.saturating_add(span(tick))
}

/// How long so many ticks are.
pub(crate) fn span(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(10))
}

/// How many ticks a time has, rounded up.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_come_apart_as_they_were_put_together(tick in 0..TICKS, sequence: u8, worker: u16) {
            let parts = decompose(compose(tick, sequence, worker));
            prop_assert_eq!(parts, Parts { time: instant(tick), sequence, worker });
        }

        #[test]
        fn a_later_time_makes_a_greater_id(
            tick in 0..TICKS - 1, a: (u8, u16), b: (u8, u16), later in 1..1_000_000_u64,
        ) {
            prop_assume!(tick + later < TICKS);
            prop_assert!(compose(tick, a.0, a.1) < compose(tick + later, b.0, b.1));
        }

        #[test]
        fn no_number_is_too_strange_to_be_taken_apart(id: u64) {
            let parts = decompose(id);
            prop_assert_eq!(compose(tick(parts.time), parts.sequence, parts.worker), id & !(1 << 63));
        }
    }

    #[test]
    fn the_ids_of_the_sonyflake_crate_are_understood() {
        let machine = || Ok(0xabcd);
        let flake = sonyflake::Sonyflake::builder().machine_id(&machine).finalize().unwrap();
        let before = crate::Clock::system().now();
        let ids: Vec<u64> = (0..300).map(|_| flake.next_id().unwrap().to_u64()).collect();
        let after = crate::Clock::system().now();
        for id in ids {
            let parts = decompose(id);
            assert_eq!(parts.worker, 0xabcd);
            assert!(parts.time + TICK >= before && parts.time <= after + TICK, "{parts:?}");
        }
    }

    #[test]
    fn time_before_the_first_tick_is_the_first_tick() {
        assert_eq!(tick(Duration::ZERO), 0);
        assert_eq!(tick(EPOCH), 0);
        assert_eq!(tick(EPOCH + TICK), 1);
        assert_eq!(instant(1), EPOCH + TICK);
        assert_eq!(ticks(Duration::from_millis(11)), 2);
    }
}
