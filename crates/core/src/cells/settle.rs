//! Sending one transaction of a worker and learning what became of it, whatever happened on the way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::books::{Base, Books};
use super::layout::Mine;
use super::queue::Request;
use super::worker::Worker;
use crate::error::{Cause, Error, Result};
use crate::key::Key;
use crate::lease::Timer;
use crate::txn::{Compare, Op, Reply, Txn};

/// What became of a transaction.
pub(super) enum Fate {
    /// The answer says so.
    Applied(Reply),
    /// The answer was lost, but it was applied, at this revision.
    AppliedBefore(i64),
    /// It was not, and no copy of it ever will be: some condition has failed for good.
    NotApplied,
    /// It was not ([`Error::OutcomeUnknown`]: or it was), and sending another one now would not help.
    Failed(Error),
}

impl Worker {
    /// Makes sure that there is a live epoch and a reading to stand on, for as long as somebody in the batch waits. `why`
    /// is what those are told whose time is over. `None` when nobody is left.
    pub(super) async fn enter(&mut self, batch: &mut Vec<Request>, why: &mut Error) -> Option<Arc<Mine>> {
        loop {
            prune(batch, why);
            let until = batch.iter().map(|request| request.deadline).min()?;
            let entered = match self.epoch(until).await {
                Ok(Some(mine)) if self.books.is_some() => return Some(mine),
                Ok(Some(mine)) => {
                    self.load(&mine, until.saturating_duration_since(Instant::now())).await.map(|_| ())
                }
                Ok(None) => {
                    let deadline = self.client.deadline();
                    *why = Error::Timeout { deadline, cause: Cause::new("no session epoch began") };
                    continue;
                }
                Err(error) => Err(error),
            };
            match entered {
                Ok(()) => {}
                Err(error @ (Error::Unavailable { .. } | Error::Timeout { .. })) => {
                    *why = error;
                    // Nothing else can be done before that.
                    tokio::time::sleep_until(until).await;
                }
                Err(error) => {
                    batch.drain(..).for_each(|request| request.fail(error.clone()));
                    return None;
                }
            }
        }
    }

    /// The cell to write under the present epoch; `None` when there is no epoch until then.
    pub(super) async fn epoch(&mut self, until: Instant) -> Result<Option<Arc<Mine>>> {
        if let Some(mine) = &self.mine
            && mine.epoch.is_valid()
        {
            return Ok(Some(mine.clone()));
        }
        let next = tokio::time::timeout_at(until, self.session.next_epoch(self.dead)).await;
        let Ok(epoch) = next else { return Ok(None) };
        let mine = Arc::new(Mine::new(&self.layout, epoch?, self.number)?);
        self.mine = Some(mine.clone());
        Ok(Some(mine))
    }

    /// Reads everything. One RPC.
    pub(super) async fn load(&mut self, mine: &Mine, within: Duration) -> Result<bool> {
        let read = Txn::new().then(Op::get(mine.epoch.key())).then(Op::range(&self.layout.prefix));
        let settled = self.client.settle_within(&read, within).await?;
        self.take_in(mine, &settled.reply)
    }

    /// Takes in what [`Worker::load`] and the `otherwise` branch of [`Worker::conditions`] read. Gives whether the epoch is
    /// alive.
    pub(super) fn take_in(&mut self, mine: &Mine, reply: &Reply) -> Result<bool> {
        let alive = reply.entry(0).is_some_and(|kv| kv.create_revision == mine.epoch.token());
        if !alive {
            // Its own task will notice too; nothing more is to be sent under it.
            self.dead = self.dead.max(mine.epoch.number());
            self.mine = None;
        }
        self.books = None;
        self.books = Some(Books::read(&self.layout, reply.revision, reply.entries(1))?);
        Ok(alive)
    }

    /// What every write of this worker stands on, and what it reads if that does not hold.
    pub(super) fn conditions(&self, mine: &Mine, books: &Books) -> Txn {
        let own = books.cell(&mine.name).map_or(0, |found| found.modified);
        Txn::new()
            .when(mine.epoch.fence())
            .when(Compare::modified_at(&mine.cell, own))
            .when(Compare::modified_at(&self.layout.base, books.base_modified))
            .otherwise(Op::get(mine.epoch.key()))
            .otherwise(Op::range(&self.layout.prefix))
    }

    /// Sends a transaction that puts `seq` into the own cell, made with [`Worker::conditions`] on the present books. After
    /// [`Fate::AppliedBefore`] and [`Fate::NotApplied`] the books are those of the answer.
    pub(super) async fn settle(&mut self, mine: &Mine, txn: &Txn, seq: u64, within: Duration) -> Fate {
        let (had_cell, base_before) = match &self.books {
            Some(books) => (books.cell(&mine.name).is_some(), books.base_modified),
            None => (false, 0),
        };
        let settled = match self.client.settle_within(txn, within).await {
            Ok(settled) if settled.reply.succeeded => return Fate::Applied(settled.reply),
            Ok(settled) => settled,
            Err(Error::LeaseGone) => {
                // Everything has run out; what comes next begins anew.
                self.books = None;
                self.spare = None;
                return Fate::NotApplied;
            }
            Err(error) => {
                self.books = None;
                return Fate::Failed(error);
            }
        };
        let read =
            self.take_in(mine, &settled.reply).and_then(|alive| self.trace(mine).map(|last| (last, alive)));
        match read {
            Ok((Some((last, revision)), _)) if last == seq => Fate::AppliedBefore(revision),
            // A cell that was there is gone without a trace: deleted by hand, or dead for longer than receipts are kept.
            Ok((None, alive)) if settled.resent && (had_cell || self.lost_track(alive, base_before)) => {
                Fate::Failed(Error::OutcomeUnknown { cause: Cause::new("what it wrote has been deleted") })
            }
            Ok(_) => Fate::NotApplied,
            Err(error) if settled.resent => {
                Fate::Failed(Error::OutcomeUnknown { cause: Cause::new(error.to_string()) })
            }
            Err(error) => Fate::Failed(error),
        }
    }

    /// The last operation that was applied to the own cell, and where: from the cell, or from the receipt for it.
    fn trace(&self, mine: &Mine) -> Result<Option<(u64, i64)>> {
        let Some(books) = &self.books else { return Ok(None) };
        if let Some(found) = books.cell(&mine.name) {
            return Ok(Some((found.cell.seq, found.modified)));
        }
        Ok(books.receipt(&mine.receipt)?.map(|receipt| (receipt.seq, receipt.revision)))
    }

    /// Whether a cell that was made since the base was last written at `base_before` could be gone without a trace. The cell of a
    /// live epoch is deleted by its owner alone; that of a dead one is counted into the base, and the receipt for that can be
    /// gone as well.
    fn lost_track(&self, alive: bool, base_before: i64) -> bool {
        let base = self.books.as_ref().map_or(0, |books| books.base_modified);
        let deleted = base_before != 0 && base == 0;
        deleted || (!alive && base != base_before)
    }

    /// The base to write on: as it is, or the one to begin with, on a lease if it is to have one.
    pub(super) async fn base(&mut self, until: Instant) -> Result<Base> {
        let Some(books) = &self.books else { return Err(Error::Stopped) };
        let mut base = books.base;
        if books.begins() {
            base.removed = None;
            if let Some(ttl) = self.options.ttl {
                base.ttl = Some(self.ttl(ttl, until).await?);
            }
        }
        Ok(base)
    }
}

/// Writes a key on the lease that everything below the prefix is on.
pub(super) fn put(base: &Base, key: &Key, value: impl Into<bytes::Bytes>) -> Op {
    match base.lease() {
        Some(ttl) => Op::put_timed(key, value, &Timer::from_id(ttl.lease, Duration::from_secs(ttl.seconds))),
        None => Op::put(key, value),
    }
}

/// What those are told whose time was over before anything was tried.
pub(super) fn late(within: Duration) -> Error {
    let cause = Cause::new("earlier operations were not answered in time");
    Error::Unavailable { deadline: within, cause }
}

/// Takes those out of the batch who have stopped waiting.
fn prune(batch: &mut Vec<Request>, why: &Error) {
    let now = Instant::now();
    let over = |request: &mut Request| request.deadline <= now || request.is_forgotten();
    batch.extract_if(.., over).for_each(|request| request.fail(why.clone()));
}
