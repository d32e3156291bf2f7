use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::layout::{decompose, instant};

const LIMITS: Limits = Limits { ahead: 3000, max_lead: 1000 };
/// A tick of today.
const TODAY: u64 = 38_000_000_000;

fn slots(workers: &[u16]) -> (Slots, Instant) {
    let now = Instant::now();
    (Slots::new(workers.to_vec(), TODAY, TODAY + 3000, now, LIMITS), now)
}

fn take(slots: &mut Slots, tick: u64, now: Instant, count: usize) -> (Vec<u64>, Result<Need>) {
    let mut ids = Vec::new();
    let need = slots.take(instant(tick), now, &mut ids, count);
    (ids, need)
}

#[test]
fn a_tick_has_256_ids_per_worker_and_then_the_next_one_is_waited_for() {
    for workers in [&[7][..], &[3, 9, 500]] {
        let (mut slots, now) = slots(workers);
        let size = 256 * workers.len();
        let (ids, need) = take(&mut slots, TODAY, now, size + 1);
        assert_eq!(ids.len(), size);
        assert_eq!(need.unwrap(), Need::Moment(now + TICK));
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|id| workers.contains(&decompose(*id).worker)));
        let (more, need) = take(&mut slots, TODAY + 1, now + TICK, 1);
        assert_eq!(need.unwrap(), Need::Nothing);
        assert!(more[0] > ids[size - 1]);
    }
}

#[test]
fn the_wait_ends_when_the_clock_enters_its_next_tick() {
    let (mut slots, now) = slots(&[7]);
    let mut ids = Vec::new();
    let wall = instant(TODAY) + Duration::from_millis(7);
    let need = slots.take(wall, now, &mut ids, 300).unwrap();
    assert_eq!(need, Need::Moment(now + Duration::from_millis(3)));
}

#[test]
fn a_clock_that_stands_still_slows_nothing_down_and_repeats_nothing() {
    let (mut slots, start) = slots(&[7]);
    let mut all = Vec::new();
    for step in 0..50_u32 {
        let (ids, need) = take(&mut slots, TODAY, start + TICK * step, 1000);
        assert_eq!(ids.len(), 256, "step {step}: {need:?}");
        all.extend(ids);
    }
    assert!(all.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_clock_set_back_a_little_is_waited_out_with_ascending_ids() {
    let (mut slots, now) = slots(&[7]);
    let (before, _) = take(&mut slots, TODAY, now, 10);
    let (after, need) = take(&mut slots, TODAY - 900, now, 10);
    assert_eq!(need.unwrap(), Need::Nothing);
    assert!(after[0] > before[9]);
    assert_eq!(decompose(after[0]).time, instant(TODAY), "the time of ids did not go back, nor on");
}

#[test]
fn a_clock_set_back_too_far_is_an_error_until_it_has_caught_up() {
    let (mut slots, now) = slots(&[7]);
    let (before, _) = take(&mut slots, TODAY, now, 10);
    let (ids, refused) = take(&mut slots, TODAY - 1001, now, 1);
    assert!(matches!(refused, Err(Error::ClockBehind { behind }) if behind == layout::span(1001)));
    assert_eq!(ids.len(), 0);
    assert!(!slots.serves(instant(TODAY - 1001)) && slots.serves(instant(TODAY)));
    let (after, need) = take(&mut slots, TODAY, now, 1);
    assert_eq!(need.unwrap(), Need::Nothing);
    assert!(after[0] > before[9]);
}

#[test]
fn the_lead_over_a_clock_that_stands_still_is_bounded() {
    let (mut slots, start) = slots(&[7]);
    let mut now = start;
    let ended = (0..5000).find_map(|_| {
        now += TICK;
        take(&mut slots, TODAY, now, 256).1.err()
    });
    assert!(matches!(ended, Some(Error::ClockBehind { .. })), "{ended:?}");
    assert!(slots.tick <= TODAY + LIMITS.max_lead);
}

#[test]
fn no_id_is_given_out_beyond_the_mark() {
    let (mut slots, now) = slots(&[7]);
    let (ids, need) = take(&mut slots, TODAY + 2999, now, 1);
    assert_eq!((ids.len(), need.unwrap()), (1, Need::Nothing));
    let (ids, need) = take(&mut slots, TODAY + 3000, now, 1);
    assert_eq!((ids.len(), need.unwrap()), (0, Need::Mark));
    // A clock that had leapt ahead and was set right before the mark came has done no harm.
    let (ids, need) = take(&mut slots, TODAY + 2999, now, 1);
    assert_eq!((ids.len(), need.unwrap()), (1, Need::Nothing));
    slots.asked(Some(TODAY + 6000));
    let (ids, need) = take(&mut slots, TODAY + 3000, now, 1);
    assert_eq!((ids.len(), need.unwrap()), (1, Need::Nothing));
}

#[test]
fn a_later_mark_is_asked_for_in_time_and_once() {
    let (mut slots, now) = slots(&[7]);
    assert!(!slots.runs_low());
    take(&mut slots, TODAY + 1500, now, 1).1.unwrap();
    assert!(slots.runs_low());
    assert!(!slots.runs_low(), "once");
    slots.asked(None);
    assert!(slots.runs_low(), "again after it failed");
    let wanted = slots.wanted_mark(instant(TODAY + 1600));
    assert_eq!(wanted, TODAY + 4601);
    slots.asked(Some(wanted));
    assert!(!slots.runs_low());
}

#[test]
fn time_runs_out_with_an_error() {
    let (mut slots, now) = slots(&[7]);
    let (ids, refused) = take(&mut slots, TICKS, now, 1);
    assert!(matches!(refused, Err(Error::TimeOver)), "{refused:?}");
    assert_eq!(ids.len(), 0);
}

#[test]
fn an_end_is_final_and_the_first_reason_stays() {
    let (mut slots, now) = slots(&[7]);
    slots.end(Error::Closed);
    slots.end(Error::WorkerLost { worker: 7 });
    let (ids, refused) = take(&mut slots, TODAY, now, 1);
    assert!(matches!(refused, Err(Error::Closed)));
    assert_eq!(ids.len(), 0);
}

#[test]
fn the_least_mark_covers_what_was_given_out_and_no_more() {
    let (mut slots, now) = slots(&[7]);
    assert_eq!(slots.least_mark(), TODAY, "nothing was");
    let (ids, _) = take(&mut slots, TODAY, now, 1);
    assert!(decompose(ids[0]).time < instant(slots.least_mark()));
    assert_eq!(slots.least_mark(), TODAY + 1);
}

proptest! {
    /// Whatever the clock does, and however late marks come: ids ascend, and none is outside what was reserved.
    #[test]
    fn ids_ascend_and_stay_within_their_marks(
        workers in proptest::collection::btree_set(any::<u16>(), 1..5),
        steps in proptest::collection::vec((-1500_i64..1500, 0_u64..30, 0_usize..600, any::<bool>()), 1..60),
    ) {
        let workers: Vec<u16> = workers.into_iter().collect();
        let (mut slots, mut now) = slots(&workers);
        let (mut wall, mut mark) = (TODAY, TODAY + 3000);
        let mut all: Vec<u64> = Vec::new();
        for (leap, millis, count, grant) in steps {
            wall = wall.checked_add_signed(leap).unwrap();
            now += Duration::from_millis(millis);
            let (ids, need) = take(&mut slots, wall, now, count);
            prop_assert!(ids.iter().all(|id| decompose(*id).time < instant(mark)));
            all.extend(ids);
            if grant && matches!(need, Ok(Need::Mark)) {
                mark = mark.max(slots.wanted_mark(instant(wall)));
                slots.asked(Some(mark));
            }
        }
        prop_assert!(all.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        prop_assert!(all.iter().all(|id| decompose(*id).time < instant(slots.least_mark())));
    }
}
