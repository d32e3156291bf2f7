//! Housekeeping: counting cells into the base, and keeping what has a time to live.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::books::{Base, Found, Receipt, Ttl, encode};
use super::layout::Mine;
use super::settle::put;
use super::worker::Worker;
use crate::backoff::{Backoff, jitter};
use crate::chance;
use crate::error::{Cause, Error, Result};
use crate::lease::Timer;
use crate::txn::{Compare, Op, Txn};

/// How often an active session looks for cells of dead ones, at most.
const SWEEP: Duration = Duration::from_secs(4);
/// How many sessions it asks after each time.
const ASKED: usize = 100;
/// How many cells it folds at once.
const FOLDED: usize = 40;
/// How long a receipt is kept: far longer than any retry.
const KEPT: Duration = Duration::from_secs(600);

impl Worker {
    /// Counts the own cell into the base and deletes it.
    pub(super) async fn fold_own(&mut self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        // Each round that fails has seen somebody else's folding; more than a few in a row are no use to anyone.
        for _ in 0..8 {
            let (Some(mine), Some(books)) = (self.mine.clone(), &self.books) else { return Ok(()) };
            if books.cell(&mine.name).is_none() {
                return Ok(());
            }
            let base = Base { value: books.base.value + books.share(&mine.name), ..books.base };
            let txn = self
                .conditions(&mine, books)
                .then(put(&base, &self.layout.base, encode(&base)?))
                .then(Op::delete(&mine.cell));
            let left = until.saturating_duration_since(Instant::now());
            match self.client.settle_within(&txn, left).await {
                Ok(settled) if settled.reply.succeeded => {
                    if let Some(books) = &mut self.books {
                        books.base = base;
                        books.base_modified = settled.reply.revision;
                        // Not the revision: others may have written since the one of this reading.
                        books.cells.retain(|found| found.name != mine.name);
                    }
                    return Ok(());
                }
                // Whether or not an earlier copy did it, the reading tells whether there is anything left to do.
                Ok(settled) => drop(self.take_in(&mine, &settled.reply)?),
                Err(error) => {
                    self.books = None;
                    return Err(error);
                }
            }
        }
        Err(Error::Contended { deadline: within })
    }

    /// Counts in the cells of all sessions that are dead now.
    pub(super) async fn sweep_whole(&mut self, until: Instant) -> Result<()> {
        let within = || until.saturating_duration_since(Instant::now());
        let Some(mine) = self.epoch(until).await? else {
            return Err(Error::Timeout {
                deadline: self.client.deadline(),
                cause: Cause::new("no session epoch"),
            });
        };
        self.load(&mine, within()).await?;
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        loop {
            match self.fold_dead_among(&mine, self.others(&mine)).await {
                // Somebody else was faster; what is left to do shows in the reading that came with the refusal.
                Err(Error::Contended { .. }) if Instant::now() < until => backoff.wait(until).await,
                folded => return folded,
            }
        }
    }

    /// The cells of other workers, as far as is known.
    fn others(&self, mine: &Mine) -> Vec<Found> {
        let cells = self.books.iter().flat_map(|books| &books.cells);
        cells.filter(|found| found.name != mine.name).cloned().collect()
    }

    /// Counts in those of these cells whose sessions are dead.
    async fn fold_dead_among(&mut self, mine: &Arc<Mine>, cells: Vec<Found>) -> Result<()> {
        for some in cells.chunks(ASKED) {
            for dead in self.dead_among(some.to_vec()).await?.chunks(FOLDED) {
                self.fold_dead(mine, dead).await?;
            }
        }
        Ok(())
    }

    /// Looks for cells of dead sessions and counts them in. Whatever gets in the way is left for the next time.
    pub(super) async fn sweep(&mut self) {
        self.sweep_at = Instant::now() + SWEEP + jitter(SWEEP / 2);
        let Some(mine) = self.mine.clone() else { return };
        let mut others = self.others(&mine);
        chance::shuffle(&mut others);
        others.truncate(ASKED);
        if let Err(error) = self.fold_dead_among(&mine, others).await {
            tracing::debug!(%error, "folding cells of dead sessions");
        }
    }

    async fn dead_among(&self, cells: Vec<Found>) -> Result<Vec<Found>> {
        let mut ask = Txn::new();
        for found in &cells {
            if let Some(owner) = self.layout.owner(&found.name) {
                ask = ask.then(Op::get(&owner));
            }
        }
        let answer = self.client.settle_within(&ask, self.patience()).await?.reply;
        let dead = cells.into_iter().enumerate().filter(|(at, _)| answer.entry(*at).is_none());
        Ok(dead.map(|(_, found)| found).collect())
    }

    async fn fold_dead(&mut self, mine: &Arc<Mine>, dead: &[Found]) -> Result<()> {
        let Some(books) = &self.books else { return Ok(()) };
        let mut base = books.base;
        let kept = base.lease().map_or(KEPT, |ttl| KEPT.min(Duration::from_secs(ttl.seconds)));
        let timer = self.client.timer(kept).await?;
        let mut txn = Txn::new()
            .when(Compare::modified_at(&self.layout.base, books.base_modified))
            .otherwise(Op::get(mine.epoch.key()))
            .otherwise(Op::range(&self.layout.prefix));
        for found in dead {
            let Some(owner) = self.layout.owner(&found.name) else { continue };
            let cell = found.cell;
            if cell.generation == base.generation {
                base.value += cell.total;
            }
            let receipt = Receipt {
                total: cell.total,
                seq: cell.seq,
                generation: cell.generation,
                revision: found.modified,
            };
            txn = txn
                .when(Compare::absent(&owner))
                .when(Compare::modified_at(&found.key, found.modified))
                .then(Op::delete(&found.key))
                .then(Op::put_timed(&self.layout.folded.key(&found.name)?, encode(&receipt)?, &timer));
        }
        txn = txn.then(put(&base, &self.layout.base, encode(&base)?));
        let settled = match self.client.settle_within(&txn, self.patience()).await {
            Ok(settled) => settled,
            Err(error) => {
                self.books = None;
                return Err(error);
            }
        };
        if !settled.reply.succeeded {
            drop(timer.revoke(&self.client).await);
            self.take_in(mine, &settled.reply)?;
            return Err(Error::Contended { deadline: self.patience() });
        }
        tracing::debug!(cells = dead.len(), "folded the cells of dead sessions");
        if let Some(books) = &mut self.books {
            books.base = base;
            books.base_modified = settled.reply.revision;
            books.cells.retain(|found| dead.iter().all(|gone| gone.name != found.name));
        }
        Ok(())
    }

    /// Housekeeping must not hold up the callers.
    fn patience(&self) -> Duration {
        (self.client.deadline() / 4).min(Duration::from_secs(1))
    }

    /// A lease for a base that refuses late copies and nothing else.
    pub(super) async fn removal(&self, until: Instant) -> Result<Ttl> {
        let timer = self.grant(KEPT, until).await?;
        Ok(Ttl { lease: timer.id(), seconds: timer.ttl().as_secs() })
    }

    async fn grant(&self, ttl: Duration, until: Instant) -> Result<Timer> {
        let deadline = self.client.deadline();
        let granted = tokio::time::timeout_at(until, self.client.timer(ttl)).await;
        let late = || Error::Timeout { deadline, cause: Cause::new("no lease was granted in time") };
        granted.map_err(|_| late())?
    }

    /// A lease for a prefix that has none yet. Kept at hand until it is in use.
    pub(super) async fn ttl(&mut self, ttl: Duration, until: Instant) -> Result<Ttl> {
        let timer = match self.spare {
            Some(timer) => timer,
            None => self.grant(ttl, until).await?,
        };
        self.spare = Some(timer);
        Ok(Ttl { lease: timer.id(), seconds: timer.ttl().as_secs() })
    }

    /// Sees to it that a prefix with a time to live is kept.
    pub(super) fn schedule_renewal(&mut self) {
        let ttl = self.books.as_ref().and_then(|books| books.base.ttl);
        if let (None, Some(ttl)) = (self.renew_at, ttl) {
            self.renew_at = Some(Instant::now() + Duration::from_secs(ttl.seconds) / 3);
        }
    }

    /// Starts the time to live anew, and sets it where there should be one and is none.
    pub(super) async fn renew(&mut self) {
        let next = match self.renewed().await {
            Ok(Some(ttl)) => Some(ttl / 3),
            Ok(None) => self.options.ttl.map(|ttl| ttl / 3),
            Err(error) => {
                tracing::debug!(%error, "renewing a time to live");
                self.books = None;
                Some(Duration::from_millis(250) + jitter(Duration::from_millis(250)))
            }
        };
        self.renew_at = next.map(|next| Instant::now() + next);
    }

    async fn renewed(&mut self) -> Result<Option<Duration>> {
        let Some(mine) = self.epoch(Instant::now() + self.patience()).await? else {
            return Err(Error::Timeout { deadline: self.patience(), cause: Cause::new("no session epoch") });
        };
        // The base may have been written by others, even with another lease.
        let found = self.client.get(&self.layout.base).await?.map_or(0, |kv| kv.mod_revision);
        if self.books.as_ref().is_none_or(|books| books.base_modified != found) {
            self.load(&mine, self.patience()).await?;
        }
        let Some(books) = &self.books else { return Ok(None) };
        match (books.base.ttl, self.options.ttl) {
            (Some(ttl), _) => {
                let ttl = Timer::from_id(ttl.lease, Duration::from_secs(ttl.seconds));
                ttl.renew(&self.client).await.map(|()| Some(ttl.ttl()))
            }
            (None, Some(ttl)) if !books.begins() => self.adopt(&mine, ttl).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Gives a time to live to a prefix that was begun without. Cells follow with their next write or folding; one that
    /// never does is of a generation that no later base will count.
    async fn adopt(&mut self, mine: &Mine, ttl: Duration) -> Result<Duration> {
        let ttl = self.ttl(ttl, Instant::now() + self.patience()).await?;
        let Some(books) = &self.books else { return Err(Error::Stopped) };
        let base = Base { ttl: Some(ttl), ..books.base };
        let txn = Txn::new()
            .when(Compare::modified_at(&self.layout.base, books.base_modified))
            .then(put(&base, &self.layout.base, encode(&base)?))
            .otherwise(Op::get(mine.epoch.key()))
            .otherwise(Op::range(&self.layout.prefix));
        let settled = self.client.settle_within(&txn, self.patience()).await?;
        if !settled.reply.succeeded {
            self.take_in(mine, &settled.reply)?;
            return Err(Error::Contended { deadline: self.patience() });
        }
        self.spare = None;
        if let Some(books) = &mut self.books {
            books.base = base;
            books.base_modified = settled.reply.revision;
        }
        Ok(Duration::from_secs(ttl.seconds))
    }
}
