//! The hosts of a balancer at one version of its source, laid out for choosing.

use std::sync::Arc;
use std::time::Instant;

use sereno_core::pace;

use crate::entry::Entry;
use crate::health::{Rules, Ticket};
use crate::lot::{self, Lot};
use crate::seat::Seat;

/// Made anew when the hosts change, and when one is ejected or comes back.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// All that may be chosen but for ejections, by age.
    seats: Vec<Arc<Seat>>,
    /// Whether those that have a share of the load, ejected or not, have the same weight.
    is_even: bool,
    /// Those to choose from now.
    lot: Lot,
    /// Those that are ejected.
    out: Vec<Arc<Seat>>,
    /// When the first of these is to be probed.
    due: Option<Instant>,
}

impl Table {
    /// The same hosts, after an ejection or its end.
    pub(crate) fn again(&self, max_ejected: u8) -> Self {
        Self::new(self.seats.clone(), max_ejected)
    }

    /// Other hosts; those that were there before keep what was reported of them.
    pub(crate) fn with(&self, entries: &[Arc<Entry>], max_ejected: u8) -> Self {
        // Both are in the same order.
        let mut known = self.seats.iter().peekable();
        let seat = |entry: &Arc<Entry>| {
            while known.next_if(|seat| seat.entry.rank() < entry.rank()).is_some() {}
            match known.next_if(|seat| seat.is_of(entry)) {
                Some(seat) if Arc::ptr_eq(&seat.entry, entry) => seat.clone(),
                Some(seat) => Arc::new(Seat { entry: entry.clone(), health: seat.health.clone() }),
                None => Arc::new(Seat { entry: entry.clone(), health: Arc::default() }),
            }
        };
        Self::new(entries.iter().map(seat).collect(), max_ejected)
    }

    fn new(seats: Vec<Arc<Seat>>, max_ejected: u8) -> Self {
        // Those with a weight share the load, or all when none has one.
        let mut sharing: Vec<_> = seats.iter().filter(|seat| seat.weight() > 0.0).cloned().collect();
        if sharing.is_empty() {
            sharing.clone_from(&seats);
        }
        let until = |seat: &Seat| seat.health.state().ejection.map(|ejection| ejection.until);
        let (mut out, mut due, mut left) = (Vec::new(), None, Vec::with_capacity(sharing.len()));
        for seat in &sharing {
            match until(seat) {
                None => left.push(seat.clone()),
                Some(until) => {
                    out.push(seat.clone());
                    due = Some(due.map_or(until, |due: Instant| due.min(until)));
                }
            }
        }
        if left.is_empty() || out.len() * 100 > sharing.len() * usize::from(max_ejected) {
            (out, due, left) = (Vec::new(), None, sharing.clone());
        }
        Self { is_even: lot::is_even(&sharing), lot: Lot::new(left), seats, out, due }
    }

    /// All that may be chosen but for ejections, by age.
    pub(crate) fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// Those to choose from now.
    pub(crate) fn lot(&self) -> &Lot {
        &self.lot
    }

    /// An ejected host that is to be probed now.
    pub(crate) fn probe(&self, rules: &Rules) -> Option<(&Arc<Seat>, Ticket)> {
        let now = self.due_now()?;
        self.out.iter().find_map(|seat| Some((seat, seat.health.probe(now, rules)?)))
    }

    /// The host that a key belongs to, of those left and of those that are to be probed now.
    pub(crate) fn owner(&self, key: &[u8], rules: &Rules) -> Option<(&Arc<Seat>, Ticket)> {
        let (score, seat) = lot::owner(self.lot.seats(), key, self.is_even)?;
        let probe = self.due_now().and_then(|now| {
            let due = self.out.iter().filter(|seat| seat.health.is_due(now));
            let (higher, probed) = lot::owner(due, key, self.is_even)?;
            Some((probed, (higher > score).then(|| probed.health.probe(now, rules))??))
        });
        Some(probe.unwrap_or_else(|| (seat, seat.health.ticket())))
    }

    /// The time, if one of the ejected is to be probed. As long as none is ejected it is not asked for.
    fn due_now(&self) -> Option<Instant> {
        let due = self.due?;
        Some(pace::now()).filter(|now| due <= *now)
    }
}
