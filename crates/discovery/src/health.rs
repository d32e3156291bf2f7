//! What callers reported of one host, and whether it may be chosen.
//!
//! ```text
//!            n failures in a row                    the time is over
//!  choosable ------------------> ejected until t ------------------> one probe
//!      ^  ^                       |         ^                          |   |
//!      |  `------ success --------'         `---- failure: for longer -'   |
//!      `------------------------------- success ---------------------------'
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sereno_core::chance;

/// No ejection lasts longer, so that no sum of times overflows.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// When hosts are ejected, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// So many failures in a row; none ejects if it is 0.
    pub(crate) failures: u32,
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Rules {
    /// How long the ejection after so many others lasts. Not always the same, so that not everybody probes at once.
    fn lasting(&self, others: u32) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(others)).min(self.longest).min(YEAR);
        whole.mul_f64(1.0 - chance::fraction() / 4.0)
    }
}

/// The state of one registration, which its successor under the same key does not inherit.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) in_flight: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// In a row.
    pub(crate) failures: u32,
    pub(crate) ejection: Option<Ejection>,
    /// Counts the ejections and their ends: what was chosen before one of them says nothing of what came after.
    term: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ejection {
    pub(crate) until: Instant,
    /// So many went before it without a success.
    others: u32,
}

/// One request to a host: what its outcome counts for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    term: u64,
    pub(crate) is_probe: bool,
}

impl Health {
    pub(crate) fn state(&self) -> State {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a request to a host that was chosen like any other.
    pub(crate) fn ticket(&self) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ticket { term: self.lock().term, is_probe: false }
    }

    /// Whether it is ejected and the time is over.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.lock().ejection.is_some_and(|ejection| ejection.until <= now)
    }

    /// For the one request that an ejected host gets when its time is over. While it is under way the host stays ejected,
    /// for as long again at most: a probe of which nobody says what became of it must not keep the host out for ever.
    pub(crate) fn probe(&self, now: Instant, rules: &Rules) -> Option<Ticket> {
        let mut state = self.lock();
        let term = state.term;
        let ejection = state.ejection.as_mut().filter(|ejection| ejection.until <= now)?;
        ejection.until = now + rules.lasting(ejection.others);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Ticket { term, is_probe: true })
    }

    /// Whether the host is choosable again by it.
    pub(crate) fn succeeded(&self, ticket: Ticket) -> bool {
        let mut state = self.lock();
        if state.term != ticket.term {
            return false;
        }
        state.failures = 0;
        let was_ejected = state.ejection.take().is_some();
        state.term += u64::from(was_ejected);
        was_ejected
    }

    /// Whether the host is ejected by it, for the first time or again.
    pub(crate) fn failed(&self, ticket: Ticket, now: Instant, rules: &Rules) -> bool {
        let mut state = self.lock();
        if state.term != ticket.term {
            return false;
        }
        state.failures = state.failures.saturating_add(1);
        let others = match state.ejection {
            None if rules.failures > 0 && state.failures >= rules.failures => 0,
            Some(ejection) if ticket.is_probe => ejection.others.saturating_add(1),
            _ => return false,
        };
        state.ejection = Some(Ejection { until: now + rules.lasting(others), others });
        state.term += 1;
        true
    }

    /// Whether another probe may be made at once, since this one told nothing.
    pub(crate) fn told_nothing(&self, ticket: Ticket, now: Instant) -> bool {
        let mut state = self.lock();
        let is_waited_for = ticket.is_probe && state.term == ticket.term;
        match state.ejection.as_mut().filter(|_| is_waited_for) {
            None => false,
            Some(ejection) => {
                ejection.until = now;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { failures: 2, first: Duration::from_secs(5), longest: Duration::from_secs(60) };

    /// Fails a host until it is ejected.
    fn ejected(now: Instant) -> Health {
        let health = Health::default();
        assert!(!health.failed(health.ticket(), now, &RULES));
        assert!(health.failed(health.ticket(), now, &RULES));
        health
    }

    fn until(health: &Health) -> Instant {
        health.state().ejection.unwrap().until
    }

    #[test]
    fn failures_eject_only_in_a_row() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..5 {
            assert!(!health.failed(health.ticket(), now, &RULES));
            assert!(!health.succeeded(health.ticket()));
        }
        assert!(health.state().ejection.is_none());
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_the_longest() {
        let mut now = Instant::now();
        let health = ejected(now);
        for whole in [5, 10, 20, 40, 60, 60, 60] {
            let lasts = until(&health) - now;
            let whole = Duration::from_secs(whole);
            assert!(lasts <= whole && lasts >= whole.mul_f64(0.75), "{lasts:?} of {whole:?}");
            assert!(health.probe(now, &RULES).is_none());
            now = until(&health);
            let probe = health.probe(now, &RULES).unwrap();
            assert!(health.failed(probe, now, &RULES));
        }
    }

    #[test]
    fn one_probe_is_let_through_at_a_time_and_its_success_ends_it() {
        let health = ejected(Instant::now());
        let now = until(&health);
        let probe = health.probe(now, &RULES).unwrap();
        assert!(health.probe(now, &RULES).is_none());
        assert!(health.succeeded(probe));
        assert!(health.state().ejection.is_none() && health.state().failures == 0);
    }

    #[test]
    fn a_probe_that_told_nothing_is_followed_by_another() {
        let health = ejected(Instant::now());
        let now = until(&health);
        let probe = health.probe(now, &RULES).unwrap();
        assert!(health.told_nothing(probe, now));
        let silent = health.probe(now, &RULES).unwrap();
        assert!(health.probe(now, &RULES).is_none());
        let now = until(&health);
        let third = health.probe(now, &RULES).unwrap();
        assert!(health.succeeded(third));
        assert!(!health.failed(silent, now, &RULES) && health.state().failures == 0);
    }

    #[test]
    fn what_was_chosen_before_the_ejection_says_nothing_of_it() {
        let (health, now) = (Health::default(), Instant::now());
        let early = [(); 4].map(|()| health.ticket());
        assert!(!health.failed(early[0], now, &RULES));
        assert!(health.failed(early[1], now, &RULES));
        let before = until(&health);
        assert!(!health.failed(early[2], now + RULES.first, &RULES));
        assert!(!health.succeeded(early[3]));
        assert_eq!(until(&health), before);
    }

    #[test]
    fn zero_failures_never_eject() {
        let (health, now) = (Health::default(), Instant::now());
        let rules = Rules { failures: 0, ..RULES };
        assert!((0..100).all(|_| !health.failed(health.ticket(), now, &rules)));
    }
}
