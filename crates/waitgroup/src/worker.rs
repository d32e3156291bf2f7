//! A worker's guard, and the task behind it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sereno_core::{CancellationToken, Epoch, LostReason, Session};
use tokio::sync::{mpsc, oneshot};

use crate::door::Seat;
use crate::error::Result;
use crate::group::Group;

/// One who has entered a [`WaitGroup`](crate::WaitGroup) and is not done.
///
/// Dropping it without [`Worker::done`] says that the work was not finished (a panic, an early return): the worker
/// counts as dead at once, and waiters are told. The same happens by itself when the session ends, because the process
/// crashed, was stopped for longer than its time to live, or closed the session.
#[must_use = "a worker that is dropped without `done` counts as dead"]
pub struct Worker {
    label: String,
    seat: Seat,
    orders: mpsc::Sender<oneshot::Sender<Result<()>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether `enter` was still waited for when it succeeded.
    claimed: AtomicBool,
    finished: AtomicBool,
    /// Whether it may have left: the answer to an attempt never came.
    uncertain: AtomicBool,
}

/// In a task of its own, so that nothing is left half done, and nobody enters unnoticed, when the caller goes away.
pub(crate) async fn enter(session: &Session, group: Group, label: String) -> Result<Worker> {
    let epoch = session.live_epoch().await?;
    let seat = group.seat(epoch, session.serial())?;
    let (reply, answer) = oneshot::channel();
    session.spawn(move |closing| async move {
        let (orders, inbox) = mpsc::channel(1);
        let shared = Arc::<Shared>::default();
        let keeper = Keeper { group, seat: seat.clone(), inbox, shared: shared.clone(), closing };
        match keeper.group.enter(&seat, &label).await {
            Ok(()) => {
                // When nobody waits for it any more it is dropped here and now, unclaimed.
                let _ = reply.send(Ok(Worker { label, seat, orders, shared }));
                keeper.run().await;
            }
            Err(error) => {
                let unknown = error.is_outcome_unknown();
                let _ = reply.send(Err(error));
                if unknown {
                    keeper.insist(|| keeper.group.withdraw(&keeper.seat)).await;
                }
            }
        }
    });
    let worker: Worker = answer.await.map_err(|_| sereno_core::Error::Stopped)??;
    worker.shared.claimed.store(true, Ordering::Release);
    Ok(worker)
}

impl Worker {
    /// Its id, as in [`Member`](crate::Member) and [`Died`](crate::Died).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.seat.id
    }

    /// What it called itself.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The epoch of the session on which it is alive: with its token and fence, effects of a worker that is only thought
    /// alive can be refused.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.seat.epoch
    }

    /// Leaves the group: the work is done. If nothing else is outstanding, this releases the group. May be called again
    /// after an error; once it has succeeded it does nothing more. Two RPCs; workers that leave do not hinder each other.
    ///
    /// # Errors
    /// [`core::Error::SessionLost`](sereno_core::Error::SessionLost) when the session's epoch has ended: the worker died
    /// and waiters are told so, whatever it has done. [`Error::Dismissed`](crate::Error::Dismissed); [`Error::Core`](crate::Error::Core) as any write.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped.
    pub async fn done(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(reply).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // The keeper has ended: it was done before, or has lost its epoch.
        if self.shared.finished.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.seat.lost(LostReason::Closed).into())
    }

    /// Waits until the worker has died of the end of its session's epoch. It never comes back to life: whoever wants to
    /// go on enters again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn lost(&self) -> LostReason {
        self.seat.epoch.lost().await
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.seat.id)
            .field("label", &self.label)
            .field("done", &self.shared.finished.load(Ordering::Acquire))
            .finish_non_exhaustive()
    }
}

/// Does what the guard says, and what its drop says. Lives as long as the guard and the epoch, at most.
struct Keeper {
    group: Group,
    seat: Seat,
    inbox: mpsc::Receiver<oneshot::Sender<Result<()>>>,
    shared: Arc<Shared>,
    closing: CancellationToken,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                order = self.inbox.recv() => match order {
                    Some(reply) => {
                        let left = self.leave().await;
                        let _ = reply.send(left);
                    }
                    None if self.shared.finished.load(Ordering::Acquire) => return,
                    None if self.shared.claimed.load(Ordering::Acquire) => {
                        return self.insist(|| self.group.die(&self.seat)).await;
                    }
                    None => return self.insist(|| self.leave()).await,
                },
                // Its sign of life goes with the lease.
                () = self.closing.cancelled() => return,
                _ = self.seat.epoch.lost() => return,
            }
        }
    }

    async fn leave(&self) -> Result<()> {
        if self.shared.finished.load(Ordering::Acquire) {
            return Ok(());
        }
        let left = self.group.leave(&self.seat, self.shared.uncertain.load(Ordering::Acquire)).await;
        match &left {
            Ok(()) => self.shared.finished.store(true, Ordering::Release),
            Err(error) if error.is_outcome_unknown() => self.shared.uncertain.store(true, Ordering::Release),
            Err(_) => {}
        }
        left
    }

    /// For what nobody waits for. As long as the epoch lives no one else can say what became of the worker, so this goes on
    /// until it is said, however long etcd is away.
    async fn insist<F: Future<Output = Result<()>>>(&self, say: impl Fn() -> F) {
        let round = || async {
            match Box::pin(say()).await {
                Err(error) if error.is_retryable() || error.is_outcome_unknown() => None,
                said => Some(said),
            }
        };
        let client = self.group.client();
        // When the session closes, what was to be said goes with its lease.
        let said = self.closing.run_until_cancelled(client.persist(&self.seat.epoch, round)).await;
        if let Some(Ok(Err(error))) = said
            && !error.is_session_lost()
        {
            tracing::warn!(%error, id = self.seat.id, "a dropped worker stays until its session ends");
        }
    }
}
