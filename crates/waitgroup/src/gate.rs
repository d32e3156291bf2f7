//! When a wait is over: a pure decision over what was seen of a group.

use std::collections::BTreeSet;

use crate::options::EmptyWait;
use crate::roster::Died;
use crate::state::State;

/// What a look at a group came to, when it was not to go on waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The group has been released.
    Released,
    /// Workers have died.
    Died(Vec<Died>),
    /// The group has begun anew: somebody removed it, or deleted its keys.
    Deleted,
}

/// What a waiter waits for, and what it has seen so far.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The generation whose release is waited for; not known before the first look.
    awaited: Option<u64>,
    /// Whether a group with nothing outstanding counts as released.
    finished: Finished,
    /// The highest generation seen; 0 when nothing was there yet.
    seen: u64,
    /// The number of times the group had been removed at the last look.
    removals: u64,
    /// The dead this waiter has taken out, which a view may still show for a moment.
    buried: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
enum Finished {
    Always,
    /// When it has been released before.
    Reused,
    Never,
}

impl Gate {
    /// For the work that is outstanding at the first look.
    pub(crate) fn new(empty: EmptyWait) -> Self {
        let finished = match empty {
            EmptyWait::Wait => Finished::Reused,
            EmptyWait::Return => Finished::Always,
        };
        Self { awaited: None, finished, seen: 0, removals: 0, buried: BTreeSet::new() }
    }

    /// For one generation: only its release counts.
    pub(crate) fn of(generation: u64) -> Self {
        Self {
            awaited: Some(generation),
            finished: Finished::Never,
            seen: 0,
            removals: 0,
            buried: BTreeSet::new(),
        }
    }

    pub(crate) fn bury(&mut self, died: Vec<Died>) {
        self.buried.extend(died.into_iter().map(|died| died.id));
    }

    /// `None` to go on waiting.
    pub(crate) fn look(&mut self, state: &State) -> Option<Sight> {
        let anew = !state.exists || state.generation < self.seen || state.removals != self.removals;
        if self.seen > 0 && anew {
            return Some(Sight::Deleted);
        }
        self.removals = state.removals;
        self.seen = if state.exists { state.generation } else { 0 };
        let awaited = match self.awaited {
            // Generations begin again when what is left of the removed group has gone.
            None if !state.exists && state.removals > 0 => state.generation,
            _ => *self.awaited.get_or_insert(state.generation),
        };
        // Whatever has happened since, that generation is done: a waiter that slept, or whose history was compacted, has
        // missed nothing.
        if state.generation > awaited {
            return Some(Sight::Released);
        }
        let finished = match self.finished {
            Finished::Always => true,
            Finished::Reused => state.exists && state.generation > 1,
            Finished::Never => false,
        };
        if finished && state.is_empty() {
            return Some(Sight::Released);
        }
        let mut died = state.roster.died();
        died.retain(|died| !self.buried.contains(&died.id));
        if died.is_empty() { None } else { Some(Sight::Died(died)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Roster;

    fn state(generation: u64, value: i128) -> State {
        State { generation, removals: 0, exists: true, value, roster: Roster::default() }
    }

    fn nothing() -> State {
        State { exists: false, ..state(1, 0) }
    }

    fn with(state: State, workers: &[(&str, bool)]) -> State {
        State { roster: Roster::of(workers), ..state }
    }

    #[test]
    fn what_is_outstanding_is_waited_for() {
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&state(3, 2)), None);
        assert_eq!(gate.look(&state(3, 1)), None);
        assert_eq!(gate.look(&state(4, 0)), Some(Sight::Released));
    }

    #[test]
    fn a_release_is_seen_even_when_the_next_generation_is_under_way() {
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&state(3, 2)), None);
        assert_eq!(gate.look(&with(state(9, 7), &[("x", false)])), Some(Sight::Released));
    }

    #[test]
    fn a_group_never_used_is_waited_for_or_not_by_option() {
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&nothing()), None);
        assert_eq!(gate.look(&state(1, 1)), None);
        assert_eq!(gate.look(&state(2, 0)), Some(Sight::Released));
        assert_eq!(Gate::new(EmptyWait::Return).look(&nothing()), Some(Sight::Released));
        assert_eq!(Gate::new(EmptyWait::Return).look(&state(1, 1)), None);
    }

    #[test]
    fn a_group_released_and_not_used_since_is_finished() {
        assert_eq!(Gate::new(EmptyWait::Wait).look(&state(2, 0)), Some(Sight::Released));
    }

    #[test]
    fn a_worker_is_outstanding_too() {
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&with(state(1, 0), &[("x", true)])), None);
        assert_eq!(gate.look(&state(2, 0)), Some(Sight::Released));
    }

    #[test]
    fn the_dead_are_told_once_they_are_not_buried() {
        let mut gate = Gate::new(EmptyWait::Wait);
        let seen = with(state(1, 5), &[("x", true), ("y", false)]);
        let Some(Sight::Died(died)) = gate.look(&seen) else { panic!("a death is to be seen") };
        assert_eq!(died.len(), 1);
        gate.bury(died);
        assert_eq!(gate.look(&seen), None, "a view that lags behind the burial");
        let seen = with(state(1, 5), &[("x", false)]);
        assert!(matches!(gate.look(&seen), Some(Sight::Died(died)) if died[0].id == "x"));
    }

    #[test]
    fn a_named_generation_is_waited_for_even_while_nothing_is_outstanding() {
        let mut gate = Gate::of(4);
        assert_eq!(gate.look(&state(4, 0)), None);
        assert_eq!(gate.look(&state(4, 1)), None);
        assert_eq!(gate.look(&state(5, 0)), Some(Sight::Released));
        assert_eq!(Gate::of(4).look(&state(7, 3)), Some(Sight::Released));
    }

    #[test]
    fn a_group_that_was_deleted_is_not_a_group_that_was_released() {
        let mut gate = Gate::new(EmptyWait::Return);
        assert_eq!(gate.look(&state(3, 2)), None);
        assert_eq!(gate.look(&nothing()), Some(Sight::Deleted));
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&state(3, 2)), None);
        assert_eq!(gate.look(&state(1, 1)), Some(Sight::Deleted), "deleted and begun again");
        let mut gate = Gate::new(EmptyWait::Wait);
        assert_eq!(gate.look(&state(3, 2)), None);
        let cells_left_behind = State { exists: false, ..state(4, 0) };
        assert_eq!(gate.look(&cells_left_behind), Some(Sight::Deleted));
    }

    #[test]
    fn a_group_that_was_removed_is_a_new_one_for_those_who_come_after_and_deleted_for_those_before() {
        let removed = || State { exists: false, removals: 1, ..state(5, 0) };
        let again = |generation, value| State { removals: 1, ..state(generation, value) };
        let mut before = Gate::new(EmptyWait::Wait);
        assert_eq!(before.look(&state(4, 2)), None);
        assert_eq!(before.look(&again(5, 1)), Some(Sight::Deleted), "it has slept through the removal");
        let mut after = Gate::new(EmptyWait::Wait);
        assert_eq!(after.look(&removed()), None);
        assert_eq!(after.look(&again(5, 1)), None);
        assert_eq!(after.look(&again(6, 0)), Some(Sight::Released));
        assert_eq!(Gate::new(EmptyWait::Return).look(&removed()), Some(Sight::Released));
        // What refused late copies is gone, and generations begin again.
        let mut late = Gate::new(EmptyWait::Wait);
        assert_eq!(late.look(&removed()), None);
        assert_eq!(late.look(&nothing()), None);
        assert_eq!(late.look(&state(1, 1)), None);
        assert_eq!(late.look(&state(2, 0)), Some(Sight::Released));
    }
}
