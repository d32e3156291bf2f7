//! Between those who publish and the worker that sends: messages are packed into a batch as they come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::envelope::{self, Packer};
use crate::error::{Error, Result};
use crate::message::{self, Draft};
use crate::position::Position;

/// Added to what a message takes, so that empty ones are bounded too.
const OVERHEAD: usize = 16;

/// Messages waiting to be sent, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Bytes that may still be queued; given back when a batch is done with.
    room: Semaphore,
    work: Notify,
    batch_bytes: usize,
    deadline: std::time::Duration,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    sealed: VecDeque<Batch>,
    closed: bool,
}

#[derive(Debug)]
struct Open {
    packer: Packer,
    cost: usize,
    outcome: Arc<Outcome>,
}

/// A batch ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) value: Bytes,
    pub(crate) count: u32,
    cost: usize,
    outcome: Arc<Outcome>,
}

/// Where a batch landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) revision: i64,
    pub(crate) ordinal: Option<u64>,
}

/// What became of a batch: one for all of its messages.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    result: OnceLock<Result<(Landed, u32)>>,
    done: Notify,
}

/// One message of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) index: u32,
}

impl Queue {
    pub(crate) fn new(batch_bytes: usize, queue_bytes: usize, deadline: std::time::Duration) -> Self {
        Self {
            state: Mutex::default(),
            room: Semaphore::new(queue_bytes),
            work: Notify::new(),
            batch_bytes,
            deadline,
        }
    }

    /// Waits for room and queues a message. `after` is the batch of the same sender's previous message: if that has
    /// failed nothing is queued, so that nobody's messages are published with one missing in between.
    pub(crate) async fn push(&self, draft: &Draft, after: Option<&Outcome>) -> Result<Ticket> {
        draft.check()?;
        let size = envelope::size(draft);
        let cost = size + OVERHEAD;
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = match self.room.try_acquire_many(permits) {
            Ok(room) => room,
            Err(_) => {
                let asked = Instant::now();
                let room = self.room.acquire_many(permits).await.map_err(|_| Error::Closed)?;
                if asked.elapsed() >= self.deadline {
                    return Err(Error::QueueFull { deadline: self.deadline });
                }
                room
            }
        };
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if let Some(Err(error)) = after.and_then(|outcome| outcome.result.get()) {
            return Err(error.clone());
        }
        room.forget();
        if state.open.as_ref().is_some_and(|open| open.packer.len() + size > self.batch_bytes) {
            let full = state.open.take().map(Open::seal);
            state.sealed.extend(full);
        }
        let open = state.open.get_or_insert_with(|| {
            self.work.notify_one();
            Open { packer: Packer::new(message::now()), cost: 0, outcome: Arc::default() }
        });
        open.cost += cost;
        let index = open.packer.push(draft);
        Ok(Ticket { outcome: open.outcome.clone(), index })
    }

    /// The next batch, as full as it is; `None` when the queue is closed and empty.
    ///
    /// Cancel safe: nothing is taken by a future that is dropped.
    pub(crate) async fn next(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.lock();
                if let Some(batch) = state.sealed.pop_front() {
                    return Some(batch);
                }
                if let Some(open) = state.open.take() {
                    return Some(open.seal());
                }
                if state.closed {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }

    /// The batch has landed.
    pub(crate) fn landed(&self, batch: &Batch, landed: Landed) {
        batch.outcome.finish(Ok((landed, batch.count)));
        self.room.add_permits(batch.cost);
    }

    /// The batch has failed with `error`, and so, with `behind`, does everything queued behind it.
    pub(crate) fn failed(&self, batch: &Batch, error: Error, behind: &Error) {
        let mut state = self.lock();
        let queued: Vec<Batch> = state.take_all();
        // While the lock is held: whoever queues next sees what became of their earlier messages.
        batch.outcome.finish(Err(error));
        for batch in &queued {
            batch.outcome.finish(Err(behind.clone()));
        }
        drop(state);
        self.room.add_permits(batch.cost + queued.iter().map(|batch| batch.cost).sum::<usize>());
    }

    /// Takes nothing more; what is queued is still handed out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.work.notify_one();
    }

    /// Ends it all: nobody will send any more.
    pub(crate) fn abandon(&self, error: &Error) {
        self.close();
        for batch in self.lock().take_all() {
            batch.outcome.finish(Err(error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_all(&mut self) -> Vec<Batch> {
        self.sealed.drain(..).chain(self.open.take().map(Open::seal)).collect()
    }
}

impl Open {
    fn seal(self) -> Batch {
        let count = self.packer.count();
        Batch { value: self.packer.finish(), count, cost: self.cost, outcome: self.outcome }
    }
}

/// A batch that is dropped without a word (its worker was torn down) must not leave its senders waiting.
impl Drop for Batch {
    fn drop(&mut self) {
        self.outcome.finish(Err(sereno_core::Error::Stopped.into()));
    }
}

impl Outcome {
    fn finish(&self, result: Result<(Landed, u32)>) {
        if self.result.set(result).is_ok() {
            self.done.notify_waiters();
        }
    }

    pub(crate) async fn wait(&self) -> Result<(Landed, u32)> {
        let done = self.done.notified();
        tokio::pin!(done);
        // Before looking: what is notified from now on is not missed.
        done.as_mut().enable();
        if let Some(result) = self.result.get() {
            return result.clone();
        }
        done.await;
        self.result.get().cloned().unwrap_or_else(|| Err(sereno_core::Error::Stopped.into()))
    }
}

impl Ticket {
    pub(crate) async fn position(&self) -> Result<Position> {
        let (landed, count) = self.outcome.wait().await?;
        let remaining = count.saturating_sub(self.index).saturating_sub(1);
        let Landed { revision, ordinal } = landed;
        Ok(Position { revision, index: self.index, ordinal, remaining })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LANDED: Landed = Landed { revision: 9, ordinal: Some(4) };

    fn queue(batch_bytes: usize, queue_bytes: usize) -> Queue {
        Queue::new(batch_bytes, queue_bytes, Duration::from_secs(5))
    }

    fn draft(bytes: usize) -> Draft {
        Draft::new(vec![0; bytes])
    }

    #[tokio::test]
    async fn what_comes_while_nobody_takes_is_packed_together() {
        let queue = queue(1000, 1 << 20);
        let mut tickets = Vec::new();
        for _ in 0..5 {
            tickets.push(queue.push(&draft(10), None).await.unwrap());
        }
        let batch = queue.next().await.unwrap();
        assert_eq!(batch.count, 5);
        queue.landed(&batch, LANDED);
        let last = tickets[4].position().await.unwrap();
        assert_eq!((last.revision, last.index, last.ordinal, last.remaining), (9, 4, Some(4), 0));
    }

    #[tokio::test]
    async fn batches_are_cut_at_their_size_and_a_longer_message_goes_alone() {
        let queue = queue(100, 1 << 20);
        for bytes in [30, 30, 500, 30] {
            queue.push(&draft(bytes), None).await.unwrap();
        }
        let mut counts = Vec::new();
        queue.close();
        while let Some(batch) = queue.next().await {
            counts.push(batch.count);
        }
        assert_eq!(counts, [2, 1, 1]);
        assert!(matches!(queue.push(&draft(1), None).await, Err(Error::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_holds_the_sender_back_until_there_is_room() {
        let queue = queue(1000, 1000);
        queue.push(&draft(800), None).await.unwrap();
        let more = draft(800);
        let more = queue.push(&more, None);
        tokio::pin!(more);
        assert!(tokio::time::timeout(Duration::from_secs(1), more.as_mut()).await.is_err());
        let batch = queue.next().await.unwrap();
        queue.landed(&batch, LANDED);
        more.await.unwrap();
        let late = draft(800);
        let late = queue.push(&late, None);
        tokio::pin!(late);
        assert!(tokio::time::timeout(Duration::from_secs(6), late.as_mut()).await.is_err());
        let batch = queue.next().await.unwrap();
        queue.landed(&batch, LANDED);
        assert!(matches!(late.await, Err(Error::QueueFull { .. })), "its deadline has passed");
    }

    #[tokio::test]
    async fn a_failure_takes_everything_behind_it_and_the_sender_hears_of_it() {
        let queue = queue(1, 1 << 20);
        let first = queue.push(&draft(1), None).await.unwrap();
        let batch = queue.next().await.unwrap();
        let second = queue.push(&draft(1), Some(&first.outcome)).await.unwrap();
        queue.failed(&batch, Error::TooSlow, &Error::Closed);
        assert!(matches!(first.position().await, Err(Error::TooSlow)));
        assert!(matches!(second.position().await, Err(Error::Closed)));
        assert!(matches!(queue.push(&draft(1), Some(&second.outcome)).await, Err(Error::Closed)));
        assert!(queue.push(&draft(1), None).await.is_ok(), "others are not concerned");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_worker_that_is_gone() {
        let queue = queue(1, 1 << 20);
        let sent = queue.push(&draft(1), None).await.unwrap();
        let queued = queue.push(&draft(1), None).await.unwrap();
        drop(queue.next().await);
        queue.abandon(&sereno_core::Error::Stopped.into());
        assert!(sent.position().await.is_err() && queued.position().await.is_err());
    }
}
