//! The handle: ids on demand.

use std::fmt;
use std::sync::{Arc, Mutex};

use sereno_core::{Epoch, Error as CoreError, LostReason, Session, pace};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::options::IdOptions;
use crate::slots::Need;
use crate::worker::{Command, Shared, Task, lock};

/// Room made at once for a batch; larger ones grow.
const ROOM: usize = 1 << 16;

/// Generates ids under worker ids that no other live process has.
///
/// Clones are the same generator. When the last one is dropped its worker ids are given back in the background;
/// [`IdGenerator::close`] does so in order.
/// At the end of `main` nothing goes on in the background: see [`Session`](sereno_core::Session#the-end-of-a-process).
#[derive(Clone)]
pub struct IdGenerator {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    options: IdOptions,
    /// Callers are served in the order they came, and one alone waits for the next tick.
    turn: tokio::sync::Mutex<()>,
    post: Mutex<Post>,
}

/// One life of a generator: under one epoch, with its worker ids.
#[derive(Clone)]
struct Post {
    epoch: Epoch,
    slots: Shared,
    commands: mpsc::Sender<Command>,
}

impl IdGenerator {
    /// Opens a generator with default options: see [`IdGenerator::open_with`].
    ///
    /// # Errors
    /// As [`IdGenerator::open_with`].
    pub async fn open(session: &Session) -> Result<Self> {
        Self::open_with(session, IdOptions::default()).await
    }

    /// Claims worker ids under the session's present epoch. Three RPCs for the first one and two for each further one;
    /// more where many are taken.
    ///
    /// # Errors
    /// [`Error::Exhausted`]; [`Error::ClockBehind`] when 64 free worker ids in a row may have given out ids of a time
    /// that this machine's clock has not reached; an invalid option; as any call of the core.
    ///
    /// # Cancel safety
    /// When the future is dropped the worker ids are given back.
    pub async fn open_with(session: &Session, options: IdOptions) -> Result<Self> {
        options.check()?;
        let post = Mutex::new(Post::begin(session, &options, 0).await?);
        let turn = tokio::sync::Mutex::new(());
        Ok(Self { inner: Arc::new(Inner { session: session.clone(), options, turn, post }) })
    }

    /// The next id: greater than all that this generator gave out before. No RPC, save one after an idle time.
    ///
    /// When the 256 ids of these 10 ms (times the number of worker ids) are used up it waits for the next, without
    /// holding a thread. Callers are served in order.
    ///
    /// # Errors
    /// [`Error::Core`] with a lost session as soon as the epoch cannot be relied on, before the worker id can be given to
    /// anybody else; [`Error::ClockBehind`], [`Error::TimeOver`], [`Error::WorkerLost`], [`Error::Closed`]; as any write
    /// when the reserved time is used up and etcd cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future wastes at most the ids it had taken.
    pub async fn next_id(&self) -> Result<u64> {
        let ids = self.next_ids(1).await?;
        ids.first().copied().ok_or(Error::Closed)
    }

    /// The next `count` ids, ascending. As [`IdGenerator::next_id`], at once as far as these 10 ms go, and at the rate
    /// of ids from then on. While it waits, other callers wait behind it.
    ///
    /// # Errors
    /// As [`IdGenerator::next_id`]: all ids or none.
    ///
    /// # Cancel safety
    /// As [`IdGenerator::next_id`].
    pub async fn next_ids(&self, count: usize) -> Result<Vec<u64>> {
        let mut ids = Vec::with_capacity(count.min(ROOM));
        let _turn = self.inner.turn.lock().await;
        let post = self.inner.post();
        while ids.len() < count {
            match post.take(&self.inner.options, &mut ids, count)? {
                Need::Nothing => {}
                Need::Moment(moment) => pace::until(moment).await,
                Need::Mark => post.extend().await?,
            }
        }
        Ok(ids)
    }

    /// The worker ids it has now, ascending. No RPC.
    #[must_use]
    pub fn workers(&self) -> Vec<u16> {
        lock(&self.inner.post().slots).workers().to_vec()
    }

    /// Makes a generator that has ended (session lost, clock behind, worker id lost, closed) work again, with new worker
    /// ids under the session's present epoch, for all its clones. Nothing when it works. RPCs as to open it.
    ///
    /// Ids still ascend, unless the clock was set back by more than [`IdOptions::max_lead`].
    ///
    /// # Errors
    /// As [`IdGenerator::open_with`]: then it stays as it was.
    ///
    /// # Cancel safety
    /// When the future is dropped it stays as it was.
    pub async fn reopen(&self) -> Result<()> {
        let inner = &self.inner;
        let _turn = inner.turn.lock().await;
        let old = inner.post();
        let floor = {
            let slots = lock(&old.slots);
            if old.epoch.is_valid() && slots.serves(inner.options.clock.now()) {
                return Ok(());
            }
            slots.next_tick()
        };
        // The task of the old one gives back what it has when its inbox is closed.
        let new = Post::begin(&inner.session, &inner.options, floor).await?;
        *lock(&inner.post) = new;
        Ok(())
    }

    /// Ends the generator for all its clones and gives its worker ids back. One write.
    ///
    /// # Errors
    /// As any call, within [`Session::time_to_close`]: then the worker ids go with the session.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn close(&self) -> Result<()> {
        let post = self.inner.post();
        // Before anything else: from here on no id is given out.
        lock(&post.slots).end(Error::Closed);
        let (reply, answer) = oneshot::channel();
        if post.commands.send(Command::Close(reply)).await.is_err() {
            return Ok(()); // It had ended before.
        }
        let closed = async { Ok(answer.await.unwrap_or(Ok(()))) };
        self.inner.session.within_time_to_close(closed).await?
    }
}

impl Inner {
    fn post(&self) -> Post {
        lock(&self.post).clone()
    }
}

impl Post {
    async fn begin(session: &Session, options: &IdOptions, floor: u64) -> Result<Self> {
        let epoch = session.live_epoch().await?;
        let (commands, inbox) = mpsc::channel(8);
        let (first, claimed) = oneshot::channel();
        let client = session.client().clone();
        let task = Task { client, epoch: epoch.clone(), options: options.clone(), inbox, floor };
        session.spawn(|closing| task.run(closing, first));
        // Made before waiting: if this future is dropped, so is the inbox's other end, and the task gives back.
        let slots = claimed.await.map_err(|_| CoreError::Stopped)??;
        Ok(Self { epoch, slots, commands })
    }

    fn take(&self, options: &IdOptions, ids: &mut Vec<u64>, count: usize) -> Result<Need> {
        let mut slots = lock(&self.slots);
        self.epoch.check()?;
        let need = slots.take(options.clock.now(), pace::now(), ids, count)?;
        if slots.runs_low() && self.commands.try_send(Command::Extend(None)).is_err() {
            slots.asked(None);
        }
        Ok(need)
    }

    /// Waits for a later mark.
    async fn extend(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Extend(Some(reply))).await.map_err(|_| self.over())?;
        tokio::select! {
            biased;
            extended = answer => extended.map_err(|_| self.over())?,
            reason = self.epoch.lost() => Err(self.lost(reason)),
        }
    }

    /// Why the task is gone.
    fn over(&self) -> Error {
        self.lost(self.epoch.ended().unwrap_or(LostReason::Closed))
    }

    fn lost(&self, reason: LostReason) -> Error {
        CoreError::SessionLost { epoch: self.epoch.number(), reason }.into()
    }
}

impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdGenerator")
            .field("workers", &self.workers())
            .field("epoch", &self.inner.post().epoch)
            .finish_non_exhaustive()
    }
}
