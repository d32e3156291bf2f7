//! Operations that stand on the whole value: sets, decisions, and additions near the end of `i64`.

use std::time::Duration;

use tokio::time::Instant;

use super::books::{Base, Books, Cell, encode};
use super::fast::{FAR, NEAR, deadlines};
use super::layout::Mine;
use super::queue::{Judged, Request, What};
use super::settle::{Fate, late, put};
use super::tally::{MAX_APPLY_OPS, Sum, SumOverflow, TallyChange};
use super::worker::Worker;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::txn::{Compare, Op, Txn};

/// What one transaction is to do for the first `told.len()` requests of a batch.
struct Plan {
    base: Base,
    ops: Vec<Op>,
    told: Vec<Told>,
    /// Whether there is anything to write.
    writes: bool,
    /// Whether any answer depends on the cells of others.
    depends: bool,
}

/// What a request is told when the plan has been carried out.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Value(i64),
    Overflow(SumOverflow),
    Decided,
    Failed(Problem),
}

#[derive(Debug, Clone, PartialEq)]
enum Problem {
    Outside(i128),
    Ops(usize),
    Size(usize, usize),
}

impl Problem {
    fn error(self) -> Error {
        match self {
            Self::Outside(value) => {
                Error::InvalidOption { option: "change", reason: format!("{value} is outside of i64") }
            }
            Self::Ops(size) => Error::TooLarge { what: "transaction", size, limit: MAX_APPLY_OPS },
            Self::Size(size, limit) => Error::TooLarge { what: "request", size, limit },
        }
    }
}

impl Plan {
    /// Decides in order, each on what those before have left. It ends after a decision with operations of its own, whose
    /// effect on the entries is not foreseen here.
    fn make(books: &Books, mine: &str, base: Base, batch: &mut [Request]) -> Self {
        let mut tally = books.tally();
        tally.generation = base.generation;
        // The own cell moves into the base; those of others stay where they are.
        let mut others = tally.value - books.base.value - books.share(mine);
        let mut plan = Self { base, ops: Vec::new(), told: Vec::new(), writes: false, depends: false };
        let mut set = false;
        for request in batch {
            let (change, ops) = match &mut request.what {
                What::Add { n, .. } => {
                    plan.depends |= !set;
                    match i64::try_from(tally.value + i128::from(*n)) {
                        Ok(value) => {
                            plan.told.push(Told::Value(value));
                            (TallyChange::Add(*n), Vec::new())
                        }
                        Err(_) => {
                            let value = clamp(tally.value);
                            plan.told.push(Told::Overflow(SumOverflow { value, by: *n }));
                            continue;
                        }
                    }
                }
                What::Set { value, .. } => {
                    plan.told.push(Told::Value(*value));
                    (TallyChange::Set(*value), Vec::new())
                }
                What::Exact(decision) => {
                    plan.depends = true;
                    let Judged::Apply { change, ops } = decision.decide(&tally) else {
                        plan.told.push(Told::Decided);
                        continue;
                    };
                    if let Some(problem) = problem(tally.value, change, &ops) {
                        plan.told.push(Told::Failed(problem));
                        continue;
                    }
                    plan.told.push(Told::Decided);
                    (change, ops)
                }
            };
            plan.writes |= change != TallyChange::Keep || !ops.is_empty();
            match change {
                TallyChange::Add(n) => tally.value += i128::from(n),
                TallyChange::Set(value) => {
                    set = true;
                    others = 0;
                    tally.value = i128::from(value);
                    tally.generation = tally.generation.saturating_add(1);
                }
                TallyChange::Keep => {}
            }
            if !ops.is_empty() {
                plan.ops = ops;
                break;
            }
        }
        plan.base.value = tally.value - others;
        plan.base.generation = tally.generation;
        plan.base.exact = match tally.value.unsigned_abs() {
            FAR.. => true,
            NEAR..FAR => base.exact,
            _ => false,
        };
        plan
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// What is wrong with a decision.
fn problem(value: i128, change: TallyChange, ops: &[Op]) -> Option<Problem> {
    if let TallyChange::Add(n) = change
        && i64::try_from(value + i128::from(n)).is_err()
    {
        return Some(Problem::Outside(value + i128::from(n)));
    }
    if ops.len() > MAX_APPLY_OPS {
        return Some(Problem::Ops(ops.len()));
    }
    match ops.iter().cloned().fold(Txn::new(), Txn::then).check() {
        Err(Error::TooLarge { size, limit, .. }) => Some(Problem::Size(size, limit)),
        _ => None,
    }
}

impl Worker {
    /// Applies the beginning of a batch in one transaction, and again until its fate is known. Gives back the rest.
    pub(super) async fn exact(&mut self, mut batch: Vec<Request>) -> Vec<Request> {
        let mut why = late(self.client.deadline());
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        let mut fresh = false;
        loop {
            if !fresh && needs_reading(&batch) {
                // A refusal must be true of a time after the call.
                self.books = None;
                fresh = true;
            }
            let Some(mine) = self.enter(&mut batch, &mut why).await else { return Vec::new() };
            let (first, last) = deadlines(&batch);
            let base = match self.base(first).await {
                Ok(base) => base,
                Err(error) => {
                    batch.into_iter().for_each(|request| request.fail(error.clone()));
                    return Vec::new();
                }
            };
            let Some(books) = &self.books else { continue };
            let revision = books.revision;
            let plan = Plan::make(books, &mine.name, base, &mut batch);
            let done =
                if plan.writes { self.carry_out(&mine, &plan, last).await } else { Ok(Some(revision)) };
            match done {
                Ok(Some(revision)) => {
                    let rest = batch.split_off(plan.told.len());
                    batch
                        .into_iter()
                        .zip(plan.told)
                        .for_each(|(request, told)| tell(request, told, revision));
                    return rest;
                }
                Ok(None) => {
                    why = Error::Contended { deadline: self.client.deadline() };
                    backoff.wait(first).await;
                }
                Err(error) => {
                    let rest = batch.split_off(plan.told.len());
                    batch.into_iter().for_each(|request| request.fail(error.clone()));
                    return rest;
                }
            }
        }
    }

    /// Sends a plan once. Gives its revision; `None` if something was in the way.
    async fn carry_out(&mut self, mine: &Mine, plan: &Plan, until: Instant) -> Result<Option<i64>> {
        self.seq += 1;
        let cell = Cell { total: 0, seq: self.seq, generation: plan.base.generation };
        let Some(books) = &self.books else { return Ok(None) };
        let mut txn = self.conditions(mine, books);
        if plan.depends {
            txn = txn.when(Compare::unchanged_since(&self.layout.prefix, books.revision));
        }
        // The base is written in any case: what deletes keys must show in it.
        txn = txn.then(put(&plan.base, &self.layout.base, encode(&plan.base)?));
        txn = txn.then(put(&plan.base, &mine.cell, encode(&cell)?));
        txn = plan.ops.iter().cloned().fold(txn, Txn::then);
        let within = until.saturating_duration_since(Instant::now());
        match self.settle(mine, &txn, self.seq, within).await {
            Fate::Applied(reply) => {
                self.began(&plan.base, reply.revision);
                if let Some(books) = &mut self.books {
                    books.base = plan.base;
                    books.base_modified = reply.revision;
                    books.revision = reply.revision;
                    books.note(mine, cell, reply.revision);
                }
                Ok(Some(reply.revision))
            }
            Fate::AppliedBefore(revision) => {
                self.schedule_renewal();
                Ok(Some(revision))
            }
            Fate::NotApplied => Ok(None),
            Fate::Failed(error) => Err(error),
        }
    }
}

/// Whether any answer will depend on what is there.
fn needs_reading(batch: &[Request]) -> bool {
    !matches!(batch.first(), Some(Request { what: What::Set { .. }, .. }))
        || batch.iter().any(|request| matches!(request.what, What::Exact(_)))
}

fn tell(request: Request, told: Told, revision: i64) {
    match (request.what, told) {
        (What::Add { reply, .. }, Told::Value(value)) => drop(reply.send(Ok(Ok(Sum { value, revision })))),
        (What::Add { reply, .. }, Told::Overflow(overflow)) => drop(reply.send(Ok(Err(overflow)))),
        (What::Set { reply, .. }, Told::Value(value)) => drop(reply.send(Ok(Sum { value, revision }))),
        (What::Exact(decision), Told::Decided) => decision.finish(Ok(())),
        (What::Exact(decision), Told::Failed(problem)) => decision.finish(Err(problem.error())),
        // What was planned for one kind of request is told to that kind.
        (what, _) => Request { what, deadline: request.deadline }.fail(Error::Stopped),
    }
}
