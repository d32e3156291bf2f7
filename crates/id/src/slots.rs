//! Giving out ids: a state machine without any I/O, told what time it is.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::layout::{self, SEQUENCES, TICK, TICKS};

/// The slots of the present tick: one for each sequence number of each worker id.
///
/// Ids ascend because slots are used in the order of the ids' bits: tick, sequence, worker.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Ascending.
    workers: Vec<u16>,
    /// The tick ids are given out in.
    tick: u64,
    /// How many of its slots are used.
    used: usize,
    /// When it was entered, on the clock that nobody sets.
    entered: Instant,
    /// The first tick that is not reserved in etcd.
    mark: u64,
    /// Whether a later mark is under way.
    asked: bool,
    ended: Option<Error>,
    limits: Limits,
}

/// In ticks; see [`IdOptions`](crate::IdOptions).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) ahead: u64,
    pub(crate) max_lead: u64,
}

/// What is needed to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: all ids are there.
    Nothing,
    /// A moment: the tick is used up.
    Moment(Instant),
    /// A later mark.
    Mark,
}

impl Slots {
    /// All ticks from `tick` on (inclusive) up to `mark` (exclusive) are ours.
    pub(crate) fn new(mut workers: Vec<u16>, tick: u64, mark: u64, now: Instant, limits: Limits) -> Self {
        workers.sort_unstable();
        Self { workers, tick, used: 0, entered: now, mark, asked: false, ended: None, limits }
    }

    /// Adds ids until there are `count`, as far as this moment allows. `wall` is the time since 1970.
    pub(crate) fn take(
        &mut self,
        wall: Duration,
        now: Instant,
        ids: &mut Vec<u64>,
        count: usize,
    ) -> Result<Need> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let clock = layout::tick(wall);
        let mut tick = self.tick.max(clock);
        if tick == self.tick && self.used >= self.size() && now >= self.entered + TICK {
            // The clock stands still or was set back: the time of ids goes on, no faster than time itself.
            tick += 1;
        }
        self.check_lead(tick, clock)?;
        if tick >= TICKS {
            return Err(Error::TimeOver);
        }
        if tick >= self.mark {
            return Ok(Need::Mark);
        }
        if tick > self.tick {
            (self.tick, self.used, self.entered) = (tick, 0, now);
        }
        while ids.len() < count {
            let Some(id) = self.slot(self.used) else {
                let boundary =
                    TICK.saturating_sub(Duration::from_nanos(u64::from(wall.subsec_nanos()) % 10_000_000));
                return Ok(Need::Moment((now + boundary).min(self.entered + TICK)));
            };
            ids.push(id);
            self.used += 1;
        }
        Ok(Need::Nothing)
    }

    fn check_lead(&self, tick: u64, clock: u64) -> Result<()> {
        let lead = tick.saturating_sub(clock);
        if lead > self.limits.max_lead {
            return Err(Error::ClockBehind { behind: layout::span(lead) });
        }
        Ok(())
    }

    fn slot(&self, index: usize) -> Option<u64> {
        let sequence = u8::try_from(index.checked_div(self.workers.len())?).ok()?;
        let worker = self.workers.get(index.checked_rem(self.workers.len())?)?;
        Some(layout::compose(self.tick, sequence, *worker))
    }

    fn size(&self) -> usize {
        SEQUENCES * self.workers.len()
    }

    /// Whether a later mark should be asked for now, so that nobody has to wait for it. True once per asking.
    pub(crate) fn runs_low(&mut self) -> bool {
        let low = !self.asked && self.mark.saturating_sub(self.tick) <= self.limits.ahead / 2;
        self.asked |= low;
        low
    }

    /// The mark to ask for.
    pub(crate) fn wanted_mark(&self, wall: Duration) -> u64 {
        let tick = self.tick.max(layout::tick(wall));
        tick.saturating_add(1).saturating_add(self.limits.ahead)
    }

    /// The least mark that covers what was given out.
    pub(crate) fn least_mark(&self) -> u64 {
        self.tick.saturating_add(u64::from(self.used > 0))
    }

    /// The asking is over; `mark` is what came of it.
    pub(crate) fn asked(&mut self, mark: Option<u64>) {
        self.asked = false;
        self.mark = self.mark.max(mark.unwrap_or(0));
    }

    /// From now on there is only this error. The first one stays.
    pub(crate) fn end(&mut self, error: Error) {
        self.ended.get_or_insert(error);
    }

    /// Whether [`Slots::take`] could give out an id, now or after a short wait.
    pub(crate) fn serves(&self, wall: Duration) -> bool {
        self.ended.is_none() && self.check_lead(self.tick, layout::tick(wall)).is_ok()
    }

    /// Where another generator must begin for its ids to be greater than these.
    pub(crate) fn next_tick(&self) -> u64 {
        self.tick.saturating_add(1)
    }

    pub(crate) fn workers(&self) -> &[u16] {
        &self.workers
    }
}

#[cfg(test)]
mod tests;
