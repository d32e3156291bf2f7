//! How to generate.

use std::time::Duration;

use sereno_core::Error;

use crate::clock::Clock;

/// The most worker ids one generator can have.
pub const MAX_WORKERS: usize = 64;

/// Options of [`IdGenerator::open_with`](crate::IdGenerator::open_with).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IdOptions {
    /// How many worker ids to claim, 1 to [`MAX_WORKERS`]. Each gives 256 ids per 10 ms, that is 25,600 ids/s. Default: 1.
    pub workers: usize,
    /// How far ahead of the clock ids are reserved in etcd, 1 s to 1 h. One write per half of it while ids are made; and
    /// for so long ids go on while etcd cannot be reached, if the session lasts. Default: 30 s, twice the default time
    /// to live of a session.
    pub ahead: Duration,
    /// How far the time of ids may be ahead of the wall clock after that was set back, 100 ms to 1 h. Within it ids go
    /// on, still ascending; beyond it they end with [`Error::ClockBehind`](crate::Error::ClockBehind). Default: 10 s.
    pub max_lead: Duration,
    /// The wall clock. Default: the system's.
    pub clock: Clock,
}

impl Default for IdOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            ahead: Duration::from_secs(30),
            max_lead: Duration::from_secs(10),
            clock: Clock::system(),
        }
    }
}

impl IdOptions {
    /// Sets [`IdOptions::workers`].
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets [`IdOptions::ahead`].
    #[must_use]
    pub fn ahead(mut self, ahead: Duration) -> Self {
        self.ahead = ahead;
        self
    }

    /// Sets [`IdOptions::max_lead`].
    #[must_use]
    pub fn max_lead(mut self, max_lead: Duration) -> Self {
        self.max_lead = max_lead;
        self
    }

    /// Sets [`IdOptions::clock`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        const HOUR: Duration = Duration::from_secs(3600);
        let invalid = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return invalid("workers", "1 to 64 worker ids");
        }
        if !(Duration::from_secs(1)..=HOUR).contains(&self.ahead) {
            return invalid("ahead", "1 s to 1 h");
        }
        if !(Duration::from_millis(100)..=HOUR).contains(&self.max_lead) {
            return invalid("max_lead", "100 ms to 1 h");
        }
        Ok(())
    }
}
