//! The handle of some cells.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::books::Books;
use super::layout::Layout;
use super::queue::{Exact, Queue, Request, What};
use super::settle::late;
use super::tally::{Sum, SumOverflow, Tally, Verdict};
use super::worker::Worker;
use crate::error::{Cause, Error, LostReason, Result};
use crate::key::{KeyError, Prefix};
use crate::session::Session;
use crate::watch::{View, Watcher};

/// How much longer than its deadline a call waits for the word of the worker, which keeps the same deadline.
const GRACE: Duration = Duration::from_millis(100);

/// Options of [`Cells::new`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CellsOptions {
    /// How long everything below the prefix outlives its last user. Default: for ever.
    ///
    /// A prefix has one such time: the first user who wants one sets it, and all others follow. In whole seconds
    /// (rounded up); etcd grants no less than one and a half of its election timeouts.
    pub ttl: Option<Duration>,
    /// How long a session keeps a cell of its own after its last write. Default: 5 s. Then it is counted into the base,
    /// because everyone's writes cost the more the more cells there are.
    pub idle: Duration,
}

impl Default for CellsOptions {
    fn default() -> Self {
        Self { ttl: None, idle: Duration::from_secs(5) }
    }
}

impl CellsOptions {
    /// Sets [`CellsOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`CellsOptions::idle`].
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }
}

/// A sum that many sessions count at without getting in each other's way: each writes a key of its own, and one
/// transaction writes that and reads all.
///
/// All handles of one session for one prefix work as one; the options are those of the first. Nothing below the prefix may
/// be written but through this type and the `ops` of [`Cells::exact`].
#[derive(Clone)]
pub struct Cells {
    session: Session,
    prefix: Prefix,
    part: Result<Arc<Part>, KeyError>,
}

/// What the handles of one session share. The worker holds only the queue, so that it notices when the handles are gone.
pub(super) struct Part {
    queue: Arc<Queue>,
    layout: Arc<Layout>,
    options: CellsOptions,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Cells {
    /// The cells below `prefix`. No I/O; a prefix too long for keys below it is reported by the verbs.
    #[must_use]
    pub fn new(session: &Session, prefix: &Prefix, options: CellsOptions) -> Self {
        let part = Layout::new(session.client(), prefix).map(|layout| {
            session.shared(prefix, || {
                Arc::new(Part { queue: Arc::default(), layout: Arc::new(layout), options })
            })
        });
        Self { session: session.clone(), prefix: prefix.clone(), part }
    }

    /// Where they are.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The session they are used from.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Counts `n` onto the value, exactly once, and gives the value right after. Calls that are under way at the same time
    /// share one transaction: at most one RPC, often a small fraction of one; a few more after a fault.
    ///
    /// # Errors
    /// The inner error is the refusal of a result outside `i64`. The outer one as any write, in particular:
    /// [`Error::ValueUnknown`] when it was applied, but its answer was lost together with the history;
    /// [`Error::OutcomeUnknown`] when the deadline passed after it was sent; after all others but
    /// [`Error::ValueUnknown`], nothing was applied. [`Error::Malformed`] when something else is stored there.
    ///
    /// # Cancel safety
    /// A future that is dropped before its operation was sent takes it back; after that it is applied or not, and never
    /// twice.
    pub async fn add(&self, n: i64) -> Result<Result<Sum, SumOverflow>> {
        self.call(|reply| What::Add { n, reply }).await
    }

    /// Makes the value `value` whatever it was, and begins the next generation. One RPC: additions of others do not
    /// hinder it.
    ///
    /// # Errors
    /// As [`Cells::add`].
    ///
    /// # Cancel safety
    /// As [`Cells::add`].
    pub async fn set(&self, value: i64) -> Result<Sum> {
        self.call(|reply| What::Set { value, reply }).await
    }

    /// Reads everything, linearizably. One RPC per 1,000 keys.
    ///
    /// # Errors
    /// As any read; [`Error::Malformed`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn read(&self) -> Result<Tally> {
        let part = self.part()?;
        self.keep(part)?;
        // On the heap: a call of the client is large, and a caller may hold many.
        let read = Box::pin(self.session.client().range(&self.prefix)).await?;
        Ok(Books::read(&part.layout, read.revision, &read.entries)?.tally())
    }

    /// Decides about the value on a complete reading, and applies the decision in one transaction, on condition that nothing
    /// below the prefix has changed since; if something has, `decide` is asked again. A refusal, and anything else that
    /// writes nothing, is decided on a reading made after the call. One RPC where the last reading still holds, one more for
    /// a new reading and for each conflict. `decide` runs on the session's task: it must neither block nor panic.
    ///
    /// # Errors
    /// As [`Cells::add`]; [`Error::Contended`] when others were faster each time until the deadline;
    /// [`Error::TooLarge`] for too many `ops` and [`Error::InvalidOption`] for a value outside `i64`.
    ///
    /// # Cancel safety
    /// As [`Cells::add`].
    pub async fn exact<T: Send + 'static>(
        &self,
        decide: impl FnMut(&Tally) -> Verdict<T> + Send + 'static,
    ) -> Result<T> {
        self.call(|reply| What::Exact(Box::new(Exact { decide, folds: false, result: None, reply }))).await
    }

    /// As [`Cells::exact`], after the cells of dead sessions have been folded: the epochs that the tally names are those of
    /// sessions that live, or did a moment ago. Two RPCs more, one per further 100 cells, and two per 40 of the dead.
    ///
    /// # Errors
    /// As [`Cells::exact`].
    ///
    /// # Cancel safety
    /// As [`Cells::add`].
    pub async fn exact_after_folding<T: Send + 'static>(
        &self,
        decide: impl FnMut(&Tally) -> Verdict<T> + Send + 'static,
    ) -> Result<T> {
        self.call(|reply| What::Exact(Box::new(Exact { decide, folds: true, result: None, reply }))).await
    }

    /// Follows everything below the prefix; [`Cells::tally`] makes sense of the view. One RPC per 1,000 keys, then none.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self) -> Result<Watcher> {
        self.keep(self.part()?)?;
        Box::pin(self.session.client().watch(&self.prefix)).await
    }

    /// What the view of [`Cells::watch`] comes to.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn tally(&self, view: &View) -> Result<Tally> {
        Ok(Books::read(&self.part()?.layout, view.revision(), view.iter())?.tally())
    }

    fn part(&self) -> Result<&Arc<Part>> {
        self.part.as_ref().map_err(|error| Error::InvalidKey(error.clone()))
    }

    /// A reader is a user too: a prefix with a time to live is kept by the worker.
    fn keep(&self, part: &Part) -> Result<()> {
        if part.options.ttl.is_some() && !self.session.is_closed() {
            self.start(part, part.queue.start());
        }
        Ok(())
    }

    fn start(&self, part: &Part, wanted: bool) {
        if wanted {
            let worker = Worker::new(
                self.session.downgrade(),
                part.queue.clone(),
                part.layout.clone(),
                part.options.clone(),
            );
            self.session.spawn(|closing| worker.run(closing));
        }
    }

    async fn call<T>(&self, what: impl FnOnce(oneshot::Sender<Result<T>>) -> What) -> Result<T> {
        let part = self.part()?;
        if self.session.is_closed() {
            let epoch = self.session.epoch().number();
            return Err(Error::SessionLost { epoch, reason: LostReason::Closed });
        }
        let deadline = self.session.client().deadline();
        let (reply, answer) = oneshot::channel();
        let request = Request { what: what(reply), deadline: Instant::now() + deadline };
        let (mut ticket, wanted) = part.queue.push(request)?;
        self.start(part, wanted);
        let answer = tokio::time::timeout(deadline + GRACE, answer).await;
        let cause = match answer {
            Ok(Ok(answer)) => {
                ticket.answered();
                return answer;
            }
            Ok(Err(_)) => Cause::new("the task that sent it has ended"),
            Err(_) => Cause::new("no answer in time"),
        };
        Err(if ticket.withdraw() { late(deadline) } else { Error::OutcomeUnknown { cause } })
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
