//! How old what is known may be.

use std::time::{Duration, Instant};

/// Etcd is asked for a word each second: when it has not been heard for so long, it is cut off.
const HEARD: Duration = Duration::from_secs(3);

/// The two things that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Hosts,
    Record,
}

/// When what is known was what is stored, for certain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freshness {
    as_of: Instant,
    /// How old it was already at `as_of`.
    before: Duration,
    /// Whether it was ever read from etcd.
    live: bool,
    /// What is not followed at the moment: that etcd is heard means nothing for it.
    hosts_cut: bool,
    record_cut: bool,
}

impl Freshness {
    /// Read from etcd by calls that were sent at `sent`, and followed from there on.
    pub(crate) fn live(sent: Instant) -> Self {
        Self { as_of: sent, before: Duration::ZERO, live: true, hosts_cut: false, record_cut: false }
    }

    /// Not followed, and so old.
    pub(crate) fn stored(age: Duration, now: Instant) -> Self {
        Self { as_of: now, before: age, live: false, hosts_cut: true, record_cut: true }
    }

    /// Something cannot be followed for now.
    pub(crate) fn cut(&mut self, part: Part, heard: Option<Instant>) {
        if !self.is_cut() {
            self.as_of = self.latest(heard);
        }
        match part {
            Part::Hosts => self.hosts_cut = true,
            Part::Record => self.record_cut = true,
        }
    }

    /// It is followed again.
    pub(crate) fn mend(&mut self, part: Part) {
        match part {
            Part::Hosts => self.hosts_cut = false,
            Part::Record => self.record_cut = false,
        }
    }

    pub(crate) fn age(&self, heard: Option<Instant>, now: Instant) -> Duration {
        let as_of = if self.is_cut() { self.as_of } else { self.latest(heard) };
        self.before + now.saturating_duration_since(as_of)
    }

    /// Whether changes are told as they happen.
    pub(crate) fn is_current(&self, heard: Option<Instant>, now: Instant) -> bool {
        self.live && !self.is_cut() && self.age(heard, now) <= HEARD
    }

    pub(crate) fn was_live(&self) -> bool {
        self.live
    }

    /// Whether something is not followed at the moment.
    pub(crate) fn is_cut(&self) -> bool {
        self.hosts_cut || self.record_cut
    }

    fn latest(&self, heard: Option<Instant>) -> Instant {
        heard.map_or(self.as_of, |heard| heard.max(self.as_of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_followed_is_as_old_as_the_last_word_of_etcd() {
        let start = Instant::now();
        let fresh = Freshness::live(start);
        assert_eq!(fresh.age(None, start + S), S);
        assert_eq!(fresh.age(Some(start + 5 * S), start + 6 * S), S);
        assert!(fresh.is_current(Some(start + 5 * S), start + 8 * S));
        assert!(!fresh.is_current(Some(start + 5 * S), start + 9 * S));
    }

    #[test]
    fn what_is_not_followed_ages_although_etcd_is_heard() {
        let start = Instant::now();
        let mut fresh = Freshness::live(start);
        fresh.cut(Part::Hosts, Some(start + S));
        fresh.cut(Part::Record, Some(start + 4 * S));
        fresh.mend(Part::Record);
        let heard = Some(start + 9 * S);
        assert_eq!(fresh.age(heard, start + 10 * S), 9 * S, "since the first cut");
        assert!(!fresh.is_current(heard, start + 10 * S));
        fresh.mend(Part::Hosts);
        assert!(fresh.is_current(heard, start + 10 * S));
    }

    #[test]
    fn the_age_of_a_file_counts() {
        let start = Instant::now();
        let fresh = Freshness::stored(60 * S, start);
        assert_eq!(fresh.age(Some(start + S), start + 2 * S), 62 * S);
        assert!(!fresh.was_live());
    }
}
