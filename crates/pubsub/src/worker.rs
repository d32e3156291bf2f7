//! The one task per session and topic that publishes: one batch after the other, each exactly once.
//!
//! ```text
//! IF   the epoch is alive  AND  version(head) = publishes so far  AND  the batch is absent
//! THEN put head = seq, put batch, put tail, get tail
//! ELSE get head, get batch, get the epoch's key
//! ```
//! The head has this task as its only writer and dies with the epoch, so of all copies of this transaction one lands at
//! most: a late one finds a larger version, or no epoch. The other branch tells what became of an earlier copy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sereno_core::{
    CancellationToken, Client, Compare, Epoch, Error as CoreError, Key, Op, Session, Settled, Step, Txn,
    WeakSession,
};

use crate::error::Error;
use crate::keys::{self, BatchName, Keys};
use crate::options::TopicOptions;
use crate::queue::{Batch, Landed, Queue};
use crate::retention::{Buckets, Gauge, Trimmer};

/// What all handles of a session share for a topic. Its end is the end of the worker, once everything queued is sent.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Arc<Queue>,
}

impl Lane {
    pub(crate) fn of(session: &Session, keys: &Keys, options: &TopicOptions) -> Arc<Self> {
        session.shared(&keys.topic, || {
            let number = session.serial();
            let deadline = session.client().deadline();
            let queue = Arc::new(Queue::new(options.batch_bytes, options.queue_bytes, deadline));
            let gauge = Arc::new(Gauge::new(&options.retention));
            let worker = Worker {
                session: session.downgrade(),
                keys: keys.clone(),
                queue: queue.clone(),
                number,
                buckets: Buckets::new(options.retention.age),
                gauge: gauge.clone(),
                head: Mutex::default(),
            };
            session.spawn(|closing| async move {
                let queue = worker.queue.clone();
                let run = worker.run(closing.clone());
                tokio::pin!(run);
                tokio::select! {
                    biased;
                    () = &mut run => return,
                    () = closing.cancelled() => queue.close(),
                }
                run.await;
            });
            if let Some(trimmer) =
                Trimmer::new(session.downgrade(), keys.clone(), options.retention.clone(), gauge)
            {
                session.spawn(|closing| async move {
                    closing.run_until_cancelled_owned(trimmer.run()).await;
                });
            }
            Arc::new(Self { queue })
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Worker {
    session: WeakSession,
    keys: Keys,
    queue: Arc<Queue>,
    number: u64,
    buckets: Buckets,
    gauge: Arc<Gauge>,
    head: Mutex<Head>,
}

/// What this worker knows about its head.
#[derive(Debug, Default)]
struct Head {
    /// The number of the epoch it belongs to.
    epoch: u64,
    /// Its version as far as is known: how many publishes have landed.
    version: i64,
    /// A revision from before anything that may still be under way.
    revision: i64,
    /// Counts batches; never given twice.
    seq: u64,
    /// Whether a copy of some transaction may still be on its way.
    stray: bool,
}

/// What was sent, and where it would be.
struct Attempt<'a> {
    epoch: &'a Epoch,
    seq: u64,
    hint: i64,
    head: Key,
    batch: Key,
}

impl Worker {
    async fn run(self, closing: CancellationToken) {
        while let Some(batch) = self.queue.next().await {
            match self.publish(&batch).await {
                Ok(landed) => {
                    self.queue.landed(&batch, landed);
                    self.gauge.note(landed.ordinal, batch.count, batch.value.len());
                }
                Err(error) => {
                    tracing::warn!(topic = %self.keys.topic, messages = batch.count, %error, "publish failed");
                    let behind = behind(&error, self.session.client());
                    self.queue.failed(&batch, error, &behind);
                }
            }
        }
        if !closing.is_cancelled() {
            self.retire().await;
        }
    }

    async fn publish(&self, batch: &Batch) -> Result<Landed, Error> {
        let seq = {
            let mut head = self.lock();
            head.seq += 1;
            head.seq
        };
        let landed = self.session.client().optimistic(|| self.round(batch, seq)).await??;
        let mut head = self.lock();
        head.version += 1;
        head.revision = head.revision.max(landed.revision);
        Ok(landed)
    }

    /// Sends the transaction and finds out what became of it. `Conflict`: it has not landed and never will in this form.
    async fn round(&self, batch: &Batch, seq: u64) -> Result<Step<Result<Landed, Error>>, CoreError> {
        let client = self.session.client();
        let epoch = self.session.live_epoch().await?;
        let timer = self.buckets.timer(client).await?;
        let (version, hint) = self.begin(&epoch);
        let publisher = keys::publisher(&epoch, self.number);
        let head = self.keys.head(&publisher)?;
        let bytes = batch.value.len() as u64;
        let name = BatchName { hint: hint.unsigned_abs(), publisher, seq, count: batch.count, bytes };
        let key = self.keys.batch(&name)?;
        let value = batch.value.clone();
        let put = match &timer {
            Some(timer) => Op::put_timed(&key, value, timer),
            None => Op::put(&key, value),
        };
        let txn = Txn::new()
            .when(epoch.fence())
            .when(Compare::version(&head, version))
            .when(Compare::absent(&key))
            .then(Op::put_leased(&head, seq.to_string(), &epoch))
            .then(put)
            .then(Op::put(&self.keys.tail, ""))
            .then(Op::get(&self.keys.tail))
            .otherwise(Op::get(&head))
            .otherwise(Op::get(&key))
            .otherwise(Op::get(epoch.key()));
        let settled = match client.settle(&txn).await {
            Ok(settled) => settled,
            // Of the two leases only this one can be gone where the fence held. Nothing was applied.
            Err(CoreError::LeaseGone) => {
                self.buckets.forget();
                return Ok(Step::Conflict);
            }
            Err(error) => {
                self.lock().stray |= error.is_outcome_unknown();
                return Err(error);
            }
        };
        self.lock().stray |= settled.resent;
        if settled.reply.succeeded {
            let ordinal = settled.reply.entry(3).and_then(|tail| tail.version.try_into().ok());
            return Ok(Step::Done(Ok(Landed { revision: settled.reply.revision, ordinal })));
        }
        self.resolve(&settled, &Attempt { epoch: &epoch, seq, hint, head, batch: key }).await
    }

    /// The conditions did not hold: because an earlier copy has landed, or for another reason?
    async fn resolve(
        &self,
        settled: &Settled,
        attempt: &Attempt<'_>,
    ) -> Result<Step<Result<Landed, Error>>, CoreError> {
        let reply = &settled.reply;
        let client = self.session.client();
        if let Some(batch) = reply.entry(1) {
            return Ok(Step::Done(Ok(self.find_ordinal(client, batch.create_revision).await)));
        }
        let head = reply.entry(0);
        if let Some(head) = head.filter(|head| head.value == attempt.seq.to_string().as_bytes()) {
            // It has landed, and retention has taken it already.
            return Ok(Step::Done(Ok(self.find_ordinal(client, head.mod_revision).await)));
        }
        if reply.entry(2).is_some_and(|session| session.create_revision == attempt.epoch.token()) {
            // A copy of the batch before, given up as unknown, has landed after all.
            tracing::debug!(head = %attempt.head, "the head is further than was known");
            self.lock().version = head.map_or(0, |head| head.version);
            return Ok(Step::Conflict);
        }
        // The epoch has ended: no copy can land any more. Has one landed before, and been trimmed meanwhile?
        if settled.resent && !self.surely_absent(client, attempt).await? {
            let error = attempt.epoch.check().err().unwrap_or(CoreError::LeaseGone);
            tracing::warn!(batch = %attempt.batch, %error, "cannot tell whether a publish was applied");
            return Ok(Step::Done(Err(Error::OutcomeUnknown { cause: error })));
        }
        Ok(Step::Conflict)
    }

    /// Whether a batch that is not there, and cannot come any more, never was there.
    async fn surely_absent(&self, client: &Client, attempt: &Attempt<'_>) -> Result<bool, CoreError> {
        match client.get(&self.keys.tail).await? {
            Some(tail) if tail.mod_revision > attempt.hint => {}
            // Nobody has published since.
            _ => return Ok(true),
        }
        // Count and size take the oldest first: as long as an older one is there they have not come so far.
        let oldest = client.oldest(&self.keys.batches).await?;
        let untrimmed = oldest.is_some_and(|oldest| oldest.create_revision <= attempt.hint);
        Ok(untrimmed && self.buckets.is_alive())
    }

    /// A publish whose answer was lost: which one of the topic's was it?
    async fn find_ordinal(&self, client: &Client, revision: i64) -> Landed {
        let then = client.range_at(&self.keys.tail, revision).await;
        let tail = then.ok().and_then(|then| then.entries.into_iter().next());
        Landed { revision, ordinal: tail.and_then(|tail| tail.version.try_into().ok()) }
    }

    /// The version of the head to be expected, and a revision from before the batch: the same in every round of an epoch.
    fn begin(&self, epoch: &Epoch) -> (i64, i64) {
        let mut head = self.lock();
        if head.epoch != epoch.number() {
            head.epoch = epoch.number();
            head.version = 0;
            head.revision = head.revision.max(epoch.token());
            head.stray = false;
        }
        (head.version, head.revision)
    }

    /// Takes the head away, unless a copy may still be under way that it has to stop.
    async fn retire(&self) {
        let epoch = self.session.epoch();
        let gone = {
            let head = self.lock();
            head.stray || head.version == 0 || head.epoch != epoch.number()
        };
        let publisher = keys::publisher(&epoch, self.number);
        if gone || !epoch.is_valid() {
            return;
        }
        if let Ok(head) = self.keys.head(&publisher) {
            let txn = Txn::new().when(epoch.fence()).then(Op::delete(&head));
            // It is leased: what is not deleted now goes with the epoch.
            let _ = self.session.client().commit(&txn).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.abandon(&CoreError::Stopped.into());
        self.gauge.close();
    }
}

/// What to tell those who were queued behind a failed batch: theirs was certainly not sent.
fn behind(error: &Error, client: &Client) -> Error {
    match error {
        Error::Core(CoreError::OutcomeUnknown { cause }) => {
            CoreError::Unavailable { deadline: client.deadline(), cause: cause.clone() }.into()
        }
        other => other.clone(),
    }
}
