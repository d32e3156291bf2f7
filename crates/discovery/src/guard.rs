//! The guard against many hosts going at once. It knows the time only as it is told.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use sereno_core::Key;

use crate::directory_options::GuardOptions;

/// Who went lately, and who is held back.
#[derive(Debug)]
pub(crate) struct Guard {
    options: Option<GuardOptions>,
    /// When hosts were removed within the window.
    removed: VecDeque<Instant>,
    /// Who is held, and until when.
    held: HashMap<Key, Instant>,
    due: BTreeSet<(Instant, Key)>,
}

impl Guard {
    pub(crate) fn new(options: Option<GuardOptions>) -> Self {
        Self { options, removed: VecDeque::new(), held: HashMap::new(), due: BTreeSet::new() }
    }

    /// A host has gone; `present` counts the hosts with it. Whether it is held back instead of being removed.
    pub(crate) fn lose(&mut self, key: &Key, present: usize, now: Instant) -> bool {
        let Some(options) = &self.options else { return false };
        while self.removed.front().is_some_and(|then| now.saturating_duration_since(*then) >= options.window)
        {
            self.removed.pop_front();
        }
        let (before, lost) = (present + self.removed.len(), self.removed.len() + 1);
        if lost < options.at_least || exact(lost) <= options.share * exact(before) {
            self.removed.push_back(now);
            return false;
        }
        let until = now + options.hold;
        self.held.insert(key.clone(), until);
        self.due.insert((until, key.clone()));
        true
    }

    /// A host is there again. Whether it had been held.
    pub(crate) fn back(&mut self, key: &Key) -> bool {
        match self.held.remove(key) {
            Some(until) => self.due.remove(&(until, key.clone())),
            None => false,
        }
    }

    /// Takes the hosts that have been held for long enough.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<Key> {
        let mut released = Vec::new();
        while self.due.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.due.pop_first() {
                self.held.remove(&key);
                released.push(key);
            }
        }
        released
    }

    /// Holds all of them for the whole time from now on.
    pub(crate) fn extend(&mut self, now: Instant) {
        let Some(options) = &self.options else { return };
        let until = now + options.hold;
        self.held.values_mut().for_each(|due| *due = until);
        self.due = self.held.keys().map(|key| (until, key.clone())).collect();
    }

    /// When the next one has been held for long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    pub(crate) fn is_held(&self, key: &Key) -> bool {
        self.held.contains_key(key)
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

/// Numbers of hosts are small.
fn exact(hosts: usize) -> f64 {
    u32::try_from(hosts).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use sereno_core::Namespace;

    use super::*;

    fn key(name: usize) -> Key {
        Namespace::default().prefix("services").unwrap().key(name.to_string()).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Loses so many of a fleet, the same moment; gives who is held.
    fn lose(
        guard: &mut Guard,
        present: &mut usize,
        keys: std::ops::Range<usize>,
        now: Instant,
    ) -> Vec<usize> {
        let mut held = Vec::new();
        for which in keys {
            match guard.lose(&key(which), *present, now) {
                true => held.push(which),
                false => *present -= 1,
            }
        }
        held
    }

    #[test]
    fn a_share_goes_and_the_others_are_held_until_they_are_back_or_their_time_is_over() {
        let (mut guard, now) = (Guard::new(Some(GuardOptions::default())), Instant::now());
        let mut present = 100;
        let held = lose(&mut guard, &mut present, 0..40, now);
        assert_eq!(held, (15..40).collect::<Vec<_>>());
        assert_eq!((present, guard.held()), (85, 25));
        assert!(guard.back(&key(20)) && !guard.back(&key(20)) && !guard.back(&key(99)));
        assert!(guard.is_held(&key(21)) && !guard.is_held(&key(20)));
        assert_eq!(guard.due(), Some(now + seconds(60)));
        assert_eq!(guard.release(now + seconds(59)), []);
        assert_eq!(guard.release(now + seconds(60)).len(), 24);
        assert_eq!((guard.due(), guard.held()), (None, 0));
    }

    #[test]
    fn few_hosts_are_never_held() {
        let now = Instant::now();
        for fleet in 1..=2 {
            let mut guard = Guard::new(Some(GuardOptions::default()));
            assert!(lose(&mut guard, &mut { fleet }, 0..fleet, now).is_empty(), "{fleet}");
        }
        let mut guard = Guard::new(Some(GuardOptions::default()));
        assert_eq!(lose(&mut guard, &mut 10, 0..10, now), (2..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_slow_departure_of_all_is_not_held() {
        let mut guard = Guard::new(Some(GuardOptions::default()));
        let (mut now, mut present) = (Instant::now(), 100);
        for which in 0..100 {
            assert!(lose(&mut guard, &mut present, which..which + 1, now).is_empty());
            now += seconds(5);
        }
        assert_eq!(present, 0);
    }

    #[test]
    fn the_next_window_lets_a_share_go_again() {
        let mut guard = Guard::new(Some(GuardOptions::default()));
        let (now, mut present) = (Instant::now(), 100);
        assert_eq!(lose(&mut guard, &mut present, 0..20, now).len(), 5);
        assert_eq!(lose(&mut guard, &mut present, 20..21, now + seconds(9)).len(), 1);
        assert_eq!(lose(&mut guard, &mut present, 21..41, now + seconds(10)).len(), 8, "12 of 85 go");
    }

    #[test]
    fn while_etcd_is_not_heard_the_time_begins_anew() {
        let mut guard = Guard::new(Some(GuardOptions::default()));
        let now = Instant::now();
        lose(&mut guard, &mut 4, 0..3, now);
        guard.extend(now + seconds(60));
        assert_eq!(guard.release(now + seconds(119)), []);
        assert_eq!(guard.release(now + seconds(120)), [key(2)]);
    }

    #[test]
    fn without_options_nobody_is_held() {
        let mut guard = Guard::new(None);
        assert!(lose(&mut guard, &mut 1000, 0..1000, Instant::now()).is_empty());
    }

    proptest! {
        #[test]
        fn no_more_than_the_share_goes_within_a_window(
            losses in proptest::collection::vec(0_u64..4000, 1..300),
            fleet in 300_usize..600,
        ) {
            let mut guard = Guard::new(Some(GuardOptions::default()));
            let (mut now, mut present) = (Instant::now(), fleet);
            let mut gone: Vec<Instant> = Vec::new();
            for (which, wait) in losses.into_iter().enumerate() {
                now += Duration::from_millis(wait / 20);
                if !guard.lose(&key(which), present, now) {
                    present -= 1;
                    gone.push(now);
                    let within = gone.iter().filter(|then| now - **then < seconds(10)).count();
                    prop_assert!(within < 3 || exact(within) <= 0.15 * exact(present + within));
                }
            }
            prop_assert_eq!(guard.due().is_some(), guard.held() > 0);
        }
    }
}
