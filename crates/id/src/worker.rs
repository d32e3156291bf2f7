//! The task behind a generator: claims worker ids, reserves time for their ids ahead of use, gives them back.
//!
//! What makes an id unique, whatever clocks and processes do: a worker id's clock key can only be moved on by the
//! transaction that also sees the worker key it was claimed with, and whoever claims the worker id next begins where
//! the clock key says. So even a process that was stopped in the middle of giving out an id, and that finds out
//! much later, gave it out below a mark that nobody else goes below.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sereno_core::{
    CancellationToken, Client, Compare, Epoch, Error as CoreError, Key, LostReason, Op, Step, Txn, chance,
    pace,
};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::keys::{self, Keys};
use crate::layout;
use crate::options::IdOptions;
use crate::slots::{Limits, Slots};

/// How many free worker ids are looked at beyond those that are needed, before the clock is found to be behind.
const SPARE: usize = 64;

pub(crate) enum Command {
    /// A later mark is needed; whoever waits for it is answered.
    Extend(Option<oneshot::Sender<Result<()>>>),
    Close(oneshot::Sender<Result<()>>),
}

/// What the task and the generator's handles share.
pub(crate) type Shared = Arc<Mutex<Slots>>;

/// A claimed worker id.
#[derive(Debug)]
struct Lane {
    worker: u16,
    key: Key,
    clock: Key,
    /// The revision of the claim.
    created: i64,
    /// The revision at which its clock was last written.
    written: i64,
    mark: u64,
}

enum Claim {
    Ours(Lane),
    Taken,
    /// Others may have given out ids of a time that is so far away.
    Behind(Duration),
}

pub(crate) struct Task {
    pub(crate) client: Client,
    pub(crate) epoch: Epoch,
    pub(crate) options: IdOptions,
    pub(crate) inbox: mpsc::Receiver<Command>,
    /// The first tick wanted, so that ids ascend.
    pub(crate) floor: u64,
}

impl Task {
    pub(crate) async fn run(mut self, closing: CancellationToken, first: oneshot::Sender<Result<Shared>>) {
        let lanes = match self.claim().await {
            Ok(lanes) => lanes,
            Err(error) => {
                // Nobody is waiting when the caller's future was dropped.
                let _ = first.send(Err(error));
                return;
            }
        };
        let slots = self.slots(&lanes);
        // When nobody is waiting any more, nobody has the other end of the inbox either.
        let _ = first.send(Ok(slots.clone()));
        let revisions = Mutex::new(lanes.iter().map(|lane| lane.written).collect());
        let close = loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => {
                    lock(&slots).end(self.lost(LostReason::Closed));
                    break None;
                }
                // The claims are gone with the epoch.
                reason = self.epoch.lost() => return lock(&slots).end(self.lost(reason)),
                command = self.inbox.recv() => match command {
                    Some(Command::Extend(reply)) => {
                        let extended = self.extend(&lanes, &revisions, &slots).await;
                        let over = matches!(extended, Err(Error::WorkerLost { .. }));
                        if let Some(close) = self.answer(reply, extended) {
                            break Some(close);
                        }
                        if over {
                            break None;
                        }
                    }
                    Some(Command::Close(reply)) => break Some(reply),
                    None => break None,
                },
            }
        };
        lock(&slots).end(Error::Closed);
        let released = self.release(&lanes, &revisions, &slots).await;
        if let Some(reply) = close {
            let _ = reply.send(released);
        }
    }

    /// Answers whoever waited for a mark, also those who came while it was being written: with etcd gone, each would
    /// wait for a deadline of its own.
    fn answer(
        &mut self,
        reply: Option<oneshot::Sender<Result<()>>>,
        extended: Result<()>,
    ) -> Option<oneshot::Sender<Result<()>>> {
        let mut waiting = reply;
        loop {
            if let Some(reply) = waiting.take() {
                let _ = reply.send(extended.clone());
            }
            match self.inbox.try_recv() {
                Ok(Command::Extend(reply)) => waiting = reply,
                Ok(Command::Close(reply)) => return Some(reply),
                Err(_) => return None,
            }
        }
    }

    fn lost(&self, reason: LostReason) -> Error {
        CoreError::SessionLost { epoch: self.epoch.number(), reason }.into()
    }

    fn slots(&self, lanes: &[Lane]) -> Shared {
        let clock = layout::tick(self.options.clock.now());
        let limits = Limits {
            ahead: layout::ticks(self.options.ahead),
            max_lead: layout::ticks(self.options.max_lead),
        };
        // Not before any of the claims: each was made at a time when its worker id's clock had passed.
        let claimed = lanes.iter().map(|lane| lane.mark.saturating_sub(limits.ahead)).max().unwrap_or(clock);
        let tick = claimed.max(clock);
        // Ids shall ascend from one life of a generator to the next, unless a wrong clock forbids it.
        let floor = if self.floor.saturating_sub(tick) <= limits.max_lead { self.floor } else { 0 };
        let mark = lanes.iter().map(|lane| lane.mark).min().unwrap_or(0);
        let workers = lanes.iter().map(|lane| lane.worker).collect();
        Arc::new(Mutex::new(Slots::new(workers, tick.max(floor), mark, pace::now(), limits)))
    }

    /// Claims as many worker ids as wanted: the free ones after a random one.
    async fn claim(&self) -> Result<Vec<Lane>> {
        if let Some(behind) = layout::EPOCH.checked_sub(self.options.clock.now()).filter(|by| !by.is_zero()) {
            return Err(Error::ClockBehind { behind });
        }
        let keys = Keys::new(&self.client)?;
        // In one piece (5 MB when all are taken): etcd looks at the whole range again for each page.
        let listed = self.client.settle(&Txn::new().then(Op::range_keys(keys.workers()))).await?.reply;
        let taken: BTreeSet<u16> =
            listed.entries(0).iter().filter_map(|kv| keys.parse_worker(&kv.key)).collect();
        let start = u16::try_from(chance::below(1 << 16)).unwrap_or_default();
        let free =
            (0..=u16::MAX).map(|offset| start.wrapping_add(offset)).filter(|worker| !taken.contains(worker));
        let mut lanes = Vec::new();
        let mut behind: Option<Duration> = None;
        for worker in free.take(self.options.workers + SPARE) {
            match self.claim_one(&keys, worker).await {
                Ok(Claim::Ours(lane)) => lanes.push(lane),
                Ok(Claim::Taken) => {}
                Ok(Claim::Behind(by)) => behind = Some(behind.map_or(by, |least| least.min(by))),
                Err(error) => {
                    self.give_back(&lanes).await;
                    return Err(error);
                }
            }
            if lanes.len() == self.options.workers {
                return Ok(lanes);
            }
        }
        self.give_back(&lanes).await;
        Err(behind.map_or(Error::Exhausted, |behind| Error::ClockBehind { behind }))
    }

    async fn claim_one(&self, keys: &Keys, worker: u16) -> Result<Claim> {
        let (key, clock) = (keys.worker(worker)?, keys.clock(worker)?);
        // Both at one moment: the clock of a worker id in use is ahead of everybody's.
        let read = self.client.settle(&Txn::new().then(Op::get(&key)).then(Op::get(&clock))).await?.reply;
        if read.entry(0).is_some() {
            return Ok(Claim::Taken);
        }
        let reserved = read.entry(1);
        let now = layout::tick(self.options.clock.now());
        let passed = reserved.map_or(Ok(0), keys::parse_clock)?;
        if passed > now {
            return Ok(Claim::Behind(layout::span(passed - now)));
        }
        let mark = now.saturating_add(layout::ticks(self.options.ahead));
        // Tells our own claim, come back to us, from another one.
        let owner = format!("pid {} {} {:016x}", std::process::id(), self.epoch.id(), chance::number());
        let txn = Txn::new()
            .when(self.epoch.fence())
            .when(Compare::absent(&key))
            .when(Compare::modified_at(&clock, reserved.map_or(0, |kv| kv.mod_revision)))
            .then(Op::put_leased(&key, owner.clone(), &self.epoch))
            .then(Op::put(&clock, keys::clock_value(mark)))
            .otherwise(Op::get(&key))
            .otherwise(Op::get(&clock))
            .otherwise(Op::get(self.epoch.key()));
        let reply = self.client.settle(&txn).await?.reply;
        if reply.succeeded {
            let (created, written) = (reply.revision, reply.revision);
            return Ok(Claim::Ours(Lane { worker, key, clock, created, written, mark }));
        }
        if let Some(found) = reply.entry(0).filter(|kv| kv.value == owner.as_bytes()) {
            let (created, written) = (found.create_revision, found.create_revision);
            return Ok(Claim::Ours(Lane { worker, key, clock, created, written, mark }));
        }
        if reply.entry(2).is_none_or(|kv| kv.create_revision != self.epoch.token()) {
            return Err(self.lost(LostReason::Expired));
        }
        Ok(Claim::Taken)
    }

    /// Gives back claims under which no id was given out. What cannot be given back goes with the session.
    async fn give_back(&self, lanes: &[Lane]) {
        if lanes.is_empty() {
            return;
        }
        let mark = lanes.iter().map(|lane| lane.mark).max().unwrap_or(0);
        let revisions = Mutex::new(lanes.iter().map(|lane| lane.written).collect());
        let _ =
            self.write(lanes, &revisions, mark.saturating_sub(layout::ticks(self.options.ahead)), true).await;
    }

    async fn extend(&self, lanes: &[Lane], revisions: &Mutex<Vec<i64>>, slots: &Shared) -> Result<()> {
        let mark = lock(slots).wanted_mark(self.options.clock.now());
        let written = self.write(lanes, revisions, mark, false).await;
        let mut slots = lock(slots);
        slots.asked(written.is_ok().then_some(mark));
        if let Err(error @ Error::WorkerLost { .. }) = &written {
            slots.end(error.clone());
        }
        written
    }

    async fn release(&self, lanes: &[Lane], revisions: &Mutex<Vec<i64>>, slots: &Shared) -> Result<()> {
        let mark = lock(slots).least_mark();
        self.write(lanes, revisions, mark, true).await
    }

    /// Sets all clocks, if all worker ids are still ours; with `release`, gives these up in the same transaction.
    async fn write(
        &self,
        lanes: &[Lane],
        revisions: &Mutex<Vec<i64>>,
        mark: u64,
        release: bool,
    ) -> Result<()> {
        let value = keys::clock_value(mark);
        let round = || async {
            let known = lock(revisions).clone();
            let mut txn = Txn::new();
            for (lane, written) in lanes.iter().zip(known) {
                txn = txn
                    .when(Compare::created_at(&lane.key, lane.created))
                    .when(Compare::modified_at(&lane.clock, written))
                    .then(Op::put(&lane.clock, value.clone()))
                    .otherwise(Op::get(&lane.key))
                    .otherwise(Op::get(&lane.clock));
                if release {
                    txn = txn.then(Op::delete(&lane.key));
                }
            }
            let reply = self.client.settle(&txn).await?.reply;
            if reply.succeeded {
                lock(revisions).fill(reply.revision);
                return Ok(Step::Done(None));
            }
            // An earlier copy was applied, or a claim of ours is gone, or somebody wrote a clock underneath.
            let owned = |(at, lane): (usize, &Lane)| {
                reply.entry(2 * at).is_some_and(|kv| kv.create_revision == lane.created)
            };
            if let Some(lane) = lanes.iter().enumerate().find_map(|pair| (!owned(pair)).then_some(pair.1)) {
                return Ok(Step::Done(Some(lane.worker)));
            }
            let clocks: Vec<_> = (0..lanes.len()).map(|at| reply.entry(2 * at + 1)).collect();
            *lock(revisions) = clocks.iter().map(|kv| kv.map_or(0, |kv| kv.mod_revision)).collect();
            let applied = clocks.iter().all(|kv| kv.is_some_and(|kv| kv.value == value.as_bytes()));
            Ok(if applied && !release { Step::Done(None) } else { Step::Conflict })
        };
        match self.client.optimistic(round).await? {
            // Given up is given up.
            Some(_) if release => Ok(()),
            // The end of a session takes the claims with it.
            Some(_) if !self.epoch.is_valid() => {
                Err(self.lost(self.epoch.ended().unwrap_or(LostReason::Deadline)))
            }
            Some(worker) => Err(Error::WorkerLost { worker }),
            None => Ok(()),
        }
    }
}

/// No lock of this crate is held while anything can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
