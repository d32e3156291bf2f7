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
    /// Whether anyone is told no.
    refuses: bool,
    /// The value is removed.
    removes: bool,
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
    /// Decides in order, each on what those before have left. It ends after a removal, and after a decision with operations
    /// of its own, whose effect on the entries is not foreseen here.
    fn make(books: &Books, mine: &str, base: Base, batch: &mut [Request]) -> Self {
        let mut tally = books.tally();
        tally.generation = base.generation;
        // The own cell moves into the base; those of others stay where they are.
        let mut others = tally.value - books.base.value - books.share(mine);
        let mut plan = Self {
            base,
            ops: Vec::new(),
            told: Vec::new(),
            writes: false,
            depends: false,
            refuses: false,
            removes: false,
        };
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
                            plan.refuses = true;
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
                        plan.refuses = true;
                        plan.told.push(Told::Decided);
                        continue;
                    };
                    if let Some(problem) = problem(tally.value, change, &ops) {
                        plan.refuses = true;
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
                TallyChange::Remove => {
                    plan.removes = true;
                    others = 0;
                    tally.value = 0;
                    tally.generation = tally.generation.saturating_add(1);
                }
            }
            if plan.removes || !ops.is_empty() {
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
            if needs_whole(&batch) && self.books.as_ref().is_some_and(|books| !books.whole) {
                self.books = None;
            }
            fresh |= self.books.is_none();
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
            let mut plan = Plan::make(books, &mine.name, base, &mut batch);
            if !fresh && (plan.refuses || !plan.writes) {
                // What is applied is conditional on nothing having changed since. Any other answer must be true of a time
                // after the call.
                self.books = None;
                continue;
            }
            if plan.removes {
                match self.removal(first).await {
                    Ok(lease) => plan.base.removed = Some(lease),
                    Err(error) => {
                        batch.into_iter().for_each(|request| request.fail(error.clone()));
                        return Vec::new();
                    }
                }
                plan.base.ttl = None;
                plan.base.removals = plan.base.removals.saturating_add(1);
            }
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
                    // The books are those of the answer now.
                    fresh = true;
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
                    // Nothing below the prefix had changed, and nothing but this has now.
                    books.whole &= plan.depends && plan.ops.is_empty();
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

/// Whether anyone decides about the entries as well.
fn needs_whole(batch: &[Request]) -> bool {
    batch.iter().any(|request| matches!(request.what, What::Exact(_)))
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::books::tests::{base, books, layout};
    use super::super::queue::Exact;
    use super::super::tally::{Tally, Verdict};
    use super::*;

    const MINE: &str = "me-1";

    fn request(what: What) -> Request {
        Request { what, deadline: Instant::now() }
    }

    fn add(n: i64) -> Request {
        request(What::Add { n, reply: oneshot::channel().0 })
    }

    fn set(value: i64) -> Request {
        request(What::Set { value, reply: oneshot::channel().0 })
    }

    fn exact(decide: impl FnMut(&Tally) -> Verdict<()> + Send + 'static) -> Request {
        request(What::Exact(Box::new(Exact {
            decide,
            folds: false,
            result: None,
            reply: oneshot::channel().0,
        })))
    }

    fn change(change: TallyChange) -> Request {
        exact(move |_| Verdict::Apply { change, ops: Vec::new(), result: () })
    }

    fn plan(books: &Books, mut batch: Vec<Request>) -> Plan {
        Plan::make(books, MINE, books.base, &mut batch)
    }

    #[test]
    fn each_decides_on_what_those_before_have_left() {
        let books = books(Some(base(10, 3)), &[(MINE, 5, 3), ("b-1", 7, 3)]);
        let expect = |value: i128, generation: u64| {
            exact(move |tally| {
                assert_eq!((tally.value, tally.generation), (value, generation));
                Verdict::Apply { change: TallyChange::Add(1), ops: Vec::new(), result: () }
            })
        };
        let batch = vec![expect(22, 3), add(2), expect(25, 3), set(100), expect(100, 4), add(-1)];
        let plan = plan(&books, batch);
        use Told::{Decided, Value};
        assert_eq!(plan.told, [Decided, Value(24 + 1), Decided, Value(100), Decided, Value(100)]);
        assert_eq!((plan.base.value, plan.base.generation), (100, 4), "cells of before count no more");
        assert!(plan.writes && plan.depends);
    }

    #[test]
    fn the_own_cell_moves_into_the_base_and_those_of_others_stay() {
        let books = books(Some(base(10, 3)), &[(MINE, 5, 3), ("b-1", 7, 3), ("c-1", 9, 2)]);
        let plan = plan(&books, vec![add(1)]);
        assert_eq!(plan.told, [Told::Value(23)]);
        assert_eq!((plan.base.value, plan.base.generation), (16, 3));
        assert_eq!(plan.base.value + 7, 23, "with the cell that stays");
    }

    #[test]
    fn an_addition_that_does_not_fit_is_refused_and_the_others_are_not() {
        let books = books(Some(base(i128::from(i64::MAX) - 2, 1)), &[("b-1", 1, 1)]);
        let plan = plan(&books, vec![add(2), add(1), add(1), add(-1), add(i64::MIN)]);
        let overflow = |value, by| Told::Overflow(SumOverflow { value, by });
        let told = [
            overflow(i64::MAX - 1, 2),
            Told::Value(i64::MAX),
            overflow(i64::MAX, 1),
            Told::Value(i64::MAX - 1),
            Told::Value(-2),
        ];
        assert_eq!(plan.told, told);
        assert_eq!(plan.base.value, -3);
    }

    #[test]
    fn refusals_alone_write_nothing() {
        let full = books(Some(base(i64::MAX.into(), 1)), &[]);
        let batch = vec![
            add(1),
            exact(|_| Verdict::Refuse(())),
            change(TallyChange::Keep),
            change(TallyChange::Add(1)),
        ];
        let plan = plan(&full, batch);
        assert!(!plan.writes);
        assert!(matches!(plan.told[3], Told::Failed(Problem::Outside(_))), "{:?}", plan.told);
        assert_eq!(plan.base.value, i128::from(i64::MAX));
    }

    #[test]
    fn a_removal_ends_the_plan_and_what_was_counted_before_counts_no_more() {
        let books = books(Some(base(10, 3)), &[(MINE, 5, 3), ("b-1", 7, 3)]);
        let plan = plan(&books, vec![add(1), change(TallyChange::Remove), add(1)]);
        assert_eq!(plan.told, [Told::Value(23), Told::Decided]);
        assert!(plan.removes && plan.writes && plan.depends);
        assert_eq!((plan.base.value, plan.base.generation), (0, 4));
    }

    #[test]
    fn a_set_alone_depends_on_nobody_else() {
        let books = books(Some(base(10, 3)), &[(MINE, 5, 3), ("b-1", 7, 3)]);
        assert!(!plan(&books, vec![set(1), add(1), add(i64::MAX - 2)]).depends);
        assert!(plan(&books, vec![add(1), set(1)]).depends);
        assert!(plan(&books, vec![set(1), exact(|_| Verdict::Refuse(()))]).depends);
        assert!(!needs_whole(&[set(1), add(1)]));
        assert!(needs_whole(&[set(1), change(TallyChange::Keep)]));
    }

    #[test]
    fn whoever_is_told_no_is_counted_as_such() {
        let books = books(Some(base(10, 3)), &[]);
        assert!(!plan(&books, vec![add(1), set(1), change(TallyChange::Add(2))]).refuses);
        assert!(plan(&books, vec![add(i64::MAX)]).refuses);
        assert!(plan(&books, vec![exact(|_| Verdict::Refuse(()))]).refuses);
        assert!(plan(&books, vec![change(TallyChange::Add(i64::MAX))]).refuses);
    }

    #[test]
    fn operations_of_ones_own_end_the_batch() {
        let books = books(None, &[]);
        let key = layout().prefix.key("own").unwrap();
        let own = |count: usize| {
            let ops = vec![Op::put(&key, "x"); count];
            exact(move |_| Verdict::Apply { change: TallyChange::Keep, ops: ops.clone(), result: () })
        };
        let cut = plan(&books, vec![add(1), own(2), add(1), own(1)]);
        assert_eq!(cut.told, [Told::Value(1), Told::Decided]);
        assert_eq!((cut.ops.len(), cut.base.value, cut.writes), (2, 1, true));
        let many = plan(&books, vec![own(MAX_APPLY_OPS + 1), own(MAX_APPLY_OPS)]);
        assert_eq!(many.told, [Told::Failed(Problem::Ops(MAX_APPLY_OPS + 1)), Told::Decided]);
        let large = Op::put(&key, vec![0; crate::txn::MAX_REQUEST]);
        let large = exact(move |_| Verdict::Apply {
            change: TallyChange::Add(1),
            ops: vec![large.clone()],
            result: (),
        });
        let large = plan(&books, vec![large, add(1)]);
        assert!(matches!(large.told[0], Told::Failed(Problem::Size(..))));
        assert_eq!(large.told[1], Told::Value(1), "of what failed nothing is applied");
    }

    #[test]
    fn checking_begins_far_out_and_ends_nearer() {
        let far = i128::from(i64::MAX) / 2 + 1;
        assert_eq!(far.unsigned_abs(), FAR);
        let exact_after = |value: i128, exact: bool, n: i64| {
            let books = books(Some(Base { exact, ..base(value, 1) }), &[]);
            plan(&books, vec![add(n)]).base.exact
        };
        assert!(!exact_after(far - 2, false, 1));
        assert!(exact_after(far - 1, false, 1));
        assert!(exact_after(far, true, -1), "not to and fro");
        assert!(exact_after(far / 2 + 1, true, -1));
        assert!(!exact_after(far / 2, true, -1));
        assert!(exact_after(-far, false, -1));
        assert!(books(Some(base(far - 1, 1)), &[("b-1", 1, 1)]).is_exact());
        assert!(books(Some(Base { exact: true, ..base(0, 1) }), &[]).is_exact());
        assert!(!books(Some(base(far - 1, 1)), &[("b-1", 1, 0)]).is_exact());
    }
}
