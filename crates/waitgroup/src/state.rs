//! A group as it was at one revision, and what may be done to it then: pure.

use sereno_core::TallyChange;

use crate::error::{Error, Result};
use crate::roster::Roster;

#[derive(Debug)]
pub(crate) struct State {
    /// One more than how often the group has been released.
    pub(crate) generation: u64,
    /// The number of times it was removed.
    pub(crate) removals: u64,
    /// True when anything was written since it was last removed.
    pub(crate) exists: bool,
    /// What was added, less what was done. Never negative, unless somebody else wrote our keys.
    pub(crate) value: i128,
    pub(crate) roster: Roster,
}

impl State {
    pub(crate) fn is_empty(&self) -> bool {
        self.value == 0 && self.roster.is_empty()
    }

    /// Everything outstanding, workers included.
    pub(crate) fn count(&self) -> u64 {
        let workers = u64::try_from(self.roster.len()).unwrap_or(u64::MAX);
        self.added().saturating_add(workers)
    }

    /// What is outstanding of what was added.
    fn added(&self) -> u64 {
        u64::try_from(self.value.max(0)).unwrap_or(u64::MAX)
    }

    /// Nothing is outstanding and never was: the beginning of the next generation wakes whoever waits.
    pub(crate) fn declared_empty(&self) -> Option<TallyChange> {
        self.is_empty().then_some(TallyChange::Set(0))
    }

    /// The change that removes it, if there is anything to remove.
    pub(crate) fn removed(&self, forced: bool) -> Result<Option<TallyChange>> {
        let count = self.count();
        if count > 0 && !forced {
            return Err(Error::InUse { count });
        }
        Ok((self.exists || count > 0).then_some(TallyChange::Remove))
    }

    /// `n` done.
    pub(crate) fn done(&self, n: u64) -> Result<TallyChange> {
        let too_many = || Error::TooManyDone { count: self.added(), done: n };
        let n = i64::try_from(n).map_err(|_| too_many())?;
        if self.value < i128::from(n) {
            return Err(too_many());
        }
        Ok(self.less(n, 0))
    }

    /// `workers` of the roster gone.
    pub(crate) fn left(&self, workers: usize) -> TallyChange {
        self.less(0, workers)
    }

    /// Whoever takes away the last that was outstanding releases the group, in the same transaction.
    fn less(&self, n: i64, workers: usize) -> TallyChange {
        let last = self.value == i128::from(n) && self.roster.len() == workers;
        match n {
            _ if last => TallyChange::Set(0),
            0 => TallyChange::Keep,
            n => TallyChange::Add(n.saturating_neg()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: i128, workers: &[(&str, bool)]) -> State {
        State { generation: 1, removals: 0, exists: true, value, roster: Roster::of(workers) }
    }

    #[test]
    fn the_last_one_releases() {
        assert_eq!(state(3, &[]).done(1).unwrap(), TallyChange::Add(-1));
        assert_eq!(state(3, &[]).done(3).unwrap(), TallyChange::Set(0));
        assert_eq!(state(0, &[("x", true)]).left(1), TallyChange::Set(0));
        assert_eq!(state(0, &[("x", false), ("y", false)]).left(2), TallyChange::Set(0));
    }

    #[test]
    fn what_is_added_and_who_has_entered_wait_for_each_other() {
        assert_eq!(state(3, &[("x", true)]).done(3).unwrap(), TallyChange::Add(-3));
        assert_eq!(state(1, &[("x", true)]).left(1), TallyChange::Keep);
        assert_eq!(state(0, &[("x", true), ("y", false)]).left(1), TallyChange::Keep);
    }

    #[test]
    fn a_done_too_many_is_refused_whole() {
        for (value, done) in [(0, 1), (2, 3), (5, u64::MAX)] {
            let error = state(value, &[("x", true)]).done(done).unwrap_err();
            let count = u64::try_from(value).unwrap();
            assert!(
                matches!(error, Error::TooManyDone { count: c, done: d } if (c, d) == (count, done)),
                "{error}"
            );
        }
    }

    #[test]
    fn the_count_is_of_things_and_workers() {
        assert_eq!(state(3, &[("x", true), ("y", false)]).count(), 5);
        assert_eq!(state(-3, &[]).count(), 0, "somebody else's doing");
    }

    #[test]
    fn what_is_outstanding_is_removed_by_force_only() {
        assert_eq!(state(0, &[]).removed(false).unwrap(), Some(TallyChange::Remove));
        for used in [state(2, &[]), state(1, &[("x", true)]), state(0, &[("x", false), ("y", true)])] {
            let count = used.count();
            assert!(
                matches!(used.removed(false).unwrap_err(), Error::InUse { count: told } if told == count)
            );
            assert_eq!(used.removed(true).unwrap(), Some(TallyChange::Remove));
        }
        let nothing = State { exists: false, ..state(0, &[]) };
        assert_eq!(nothing.removed(false).unwrap(), None);
    }

    #[test]
    fn nothing_to_do_releases_only_what_is_empty() {
        assert_eq!(state(0, &[]).declared_empty(), Some(TallyChange::Set(0)));
        assert_eq!(state(1, &[]).declared_empty(), None);
        assert_eq!(state(0, &[("x", false)]).declared_empty(), None);
    }
}
