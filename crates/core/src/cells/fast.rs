//! Additions that cannot get in each other's way.

use std::time::Duration;

use tokio::time::Instant;

use super::books::{Books, Cell, Found, encode};
use super::layout::Mine;
use super::queue::{Request, What};
use super::settle::{Fate, late, put};
use super::tally::Sum;
use super::worker::Worker;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::txn::Op;

/// The most that one transaction may add without checking. Every writer checks the value after each of its own, so 4,096
/// of them can together go at most 2^60 beyond [`FAR`] before all have seen it.
pub(super) const STEP: u64 = 1 << 48;
/// From here on, either way from zero, every addition is checked.
pub(super) const FAR: u128 = 1 << 62;
/// Back here it is enough again to look afterwards.
pub(super) const NEAR: u128 = 1 << 61;

impl Books {
    /// Whether every addition must be checked before it is applied.
    pub(super) fn is_exact(&self) -> bool {
        self.base.exact || self.value().unsigned_abs() >= FAR
    }
}

/// The longest beginning of a batch that may take the fast path together.
pub(super) fn fast_len(batch: &[Request]) -> usize {
    let mut sum = 0u64;
    let fits = |request: &&Request| match &request.what {
        What::Add { n, .. } => {
            sum = sum.saturating_add(n.unsigned_abs());
            sum <= STEP
        }
        _ => false,
    };
    batch.iter().take_while(fits).count()
}

impl Worker {
    /// Applies a batch of additions in one transaction, and again until its fate is known. Gives back what must take the
    /// exact path.
    pub(super) async fn fast(&mut self, mut batch: Vec<Request>) -> Vec<Request> {
        let mut why = late(self.client.deadline());
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        let mut conflicts = 0u32;
        loop {
            let Some(mine) = self.enter(&mut batch, &mut why).await else { return Vec::new() };
            if self.books.as_ref().is_none_or(Books::is_exact) {
                return batch;
            }
            let (first, last) = deadlines(&batch);
            let sum: i128 = batch.iter().map(addend).sum();
            match self.add(&mine, sum, first, last).await {
                Ok(Some((value, revision))) => {
                    answer(batch, value - sum, revision);
                    return Vec::new();
                }
                Ok(None) => {
                    // The first conflict is most often a folding somewhere; a second in a row is contention.
                    conflicts += 1;
                    why = Error::Contended { deadline: self.client.deadline() };
                    if conflicts > 1 {
                        backoff.wait(first).await;
                    }
                }
                Err(error) => {
                    batch.into_iter().for_each(|request| request.fail(error.clone()));
                    return Vec::new();
                }
            }
        }
    }

    /// Adds to the own cell once. Gives the value after it and the revision; `None` if something was in the way.
    async fn add(
        &mut self,
        mine: &Mine,
        sum: i128,
        first: Instant,
        last: Instant,
    ) -> Result<Option<(i128, i64)>> {
        let base = self.base(first).await?;
        self.seq += 1;
        let seq = self.seq;
        let Some(books) = &self.books else { return Ok(None) };
        let total = books.share(&mine.name) + sum;
        let cell = Cell { total, seq, generation: base.generation };
        let mut txn = self.conditions(mine, books);
        if books.begins() {
            txn = txn.then(put(&base, &self.layout.base, encode(&base)?));
        }
        txn = txn.then(put(&base, &mine.cell, encode(&cell)?));
        let range = txn.then_len();
        txn = txn.then(Op::range(&self.layout.cells));
        match self.settle(mine, &txn, seq, last.saturating_duration_since(Instant::now())).await {
            Fate::Applied(reply) => {
                self.began(&base, reply.revision);
                let Some(books) = &mut self.books else { return Ok(None) };
                if let Err(error) = books.renew_cells(&self.layout, reply.revision, reply.entries(range)) {
                    // It was applied; the next call will be told what is wrong there.
                    tracing::warn!(%error, "reading the cells after an addition");
                    self.books = None;
                    return Err(Error::ValueUnknown { revision: reply.revision });
                }
                Ok(Some((books.value(), reply.revision)))
            }
            Fate::AppliedBefore(revision) => {
                tracing::debug!(revision, "an addition whose answer was lost had been applied");
                self.owed(revision, last).await.map(|value| Some((value, revision)))
            }
            Fate::NotApplied => Ok(None),
            Fate::Failed(error) => Err(error),
        }
    }

    /// The value right after an earlier write: not the one now, which others have been told.
    async fn owed(&self, revision: i64, until: Instant) -> Result<i128> {
        let unknown = Error::ValueUnknown { revision };
        let mut backoff = Backoff::calls();
        loop {
            let read =
                tokio::time::timeout_at(until, self.client.range_at(&self.layout.prefix, revision)).await;
            match read {
                Ok(Ok(read)) => {
                    let books = Books::read(&self.layout, revision, &read.entries);
                    return books.map(|books| books.value()).map_err(|_| unknown);
                }
                Ok(Err(error)) if error.is_retryable() && Instant::now() < until => {
                    tracing::debug!(%error, "reading a value again");
                    backoff.wait(until).await;
                }
                Ok(Err(_)) | Err(_) => return Err(unknown),
            }
        }
    }

    /// Notes that the base exists, if it was this transaction that began it.
    pub(super) fn began(&mut self, base: &super::books::Base, revision: i64) {
        if let Some(books) = &mut self.books
            && books.begins()
        {
            books.base = *base;
            books.base_modified = revision;
            self.spare = None;
        }
        self.schedule_renewal();
    }
}

impl Books {
    /// Notes the own cell as it was just written.
    pub(super) fn note(&mut self, mine: &Mine, cell: Cell, modified: i64) {
        self.cells.retain(|found| found.name != mine.name);
        self.cells.push(Found { name: mine.name.clone(), key: mine.cell.clone(), cell, modified });
    }
}

fn addend(request: &Request) -> i128 {
    match &request.what {
        What::Add { n, .. } => i128::from(*n),
        _ => 0,
    }
}

/// The first and the last deadline of a batch.
pub(super) fn deadlines(batch: &[Request]) -> (Instant, Instant) {
    let now = Instant::now();
    let all = || batch.iter().map(|request| request.deadline);
    (all().min().unwrap_or(now), all().max().unwrap_or(now))
}

/// Tells each caller of a combined addition the value after its own part.
fn answer(batch: Vec<Request>, before: i128, revision: i64) {
    let mut value = before;
    for request in batch {
        value += addend(&request);
        match (request.what, i64::try_from(value)) {
            (What::Add { reply, .. }, Ok(value)) => drop(reply.send(Ok(Ok(Sum { value, revision })))),
            (what, _) => Request { what, deadline: request.deadline }.fail(Error::ValueUnknown { revision }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::cells::SumOverflow;

    type Answer = oneshot::Receiver<Result<Result<Sum, SumOverflow>>>;

    fn batch(of: &[i64]) -> (Vec<Request>, Vec<Answer>) {
        let one = |n: &i64| {
            let (reply, answer) = oneshot::channel();
            (Request { what: What::Add { n: *n, reply }, deadline: Instant::now() }, answer)
        };
        of.iter().map(one).unzip()
    }

    #[test]
    fn each_caller_is_told_the_value_after_its_own_part() {
        let (batch, answers) = batch(&[1, -3, 0, 10]);
        answer(batch, 100, 7);
        let told: Vec<_> =
            answers.into_iter().map(|mut answer| answer.try_recv().unwrap().unwrap().unwrap()).collect();
        assert_eq!(told.iter().map(|sum| sum.value).collect::<Vec<_>>(), [101, 98, 98, 108]);
        assert!(told.iter().all(|sum| sum.revision == 7));
    }

    #[test]
    fn only_so_much_is_added_without_looking() {
        let step = i64::try_from(STEP).unwrap();
        let len = |of: &[i64]| fast_len(&batch(of).0);
        assert_eq!(len(&[1, 2, 3]), 3);
        assert_eq!(len(&[step]), 1);
        assert_eq!(len(&[step + 1]), 0);
        assert_eq!(len(&[i64::MIN]), 0);
        assert_eq!(len(&[step - 1, -1, 1]), 2, "what cancels out counts all the same");
        assert_eq!(len(&[1, i64::MAX, 1]), 1);
        let (mut mixed, _) = batch(&[1, 1]);
        mixed.insert(
            1,
            Request { what: What::Set { value: 0, reply: oneshot::channel().0 }, deadline: Instant::now() },
        );
        assert_eq!(fast_len(&mixed), 1, "the order is kept");
    }
}
