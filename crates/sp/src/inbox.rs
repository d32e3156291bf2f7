//! What came and waits to be received.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::options::Queue;
use crate::slots::Slots;
use crate::sync::lock;

/// A bounded queue from many connections to many receivers.
///
/// Connections put in many messages at once, and a receiver takes over all that has come at once, so that the two
/// rarely touch the same lock.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    /// What the receivers have taken over. Locked before `arrived`, where both are.
    taken: Mutex<VecDeque<T>>,
    arrived: Mutex<Arrived<T>>,
    slots: Slots,
    /// How many receivers wait. Changed under the lock of `arrived`, save when a receiver goes.
    waiting: AtomicUsize,
    wake: Notify,
}

#[derive(Debug)]
struct Arrived<T> {
    queue: VecDeque<T>,
    slots: usize,
    closed: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            taken: Mutex::default(),
            arrived: Mutex::new(Arrived { queue: VecDeque::new(), slots: 0, closed: false }),
            slots: Slots::new(queue),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
        }
    }

    /// The room that must be taken before anything is put in.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Puts in what `slots` have been taken for.
    pub(crate) fn put(&self, items: impl Iterator<Item = T>, slots: usize) {
        let mut arrived = lock(&self.arrived);
        if arrived.closed {
            return;
        }
        let before = arrived.queue.len();
        arrived.queue.extend(items);
        let count = arrived.queue.len() - before;
        if arrived.queue.is_empty() {
            // Nothing of it was wanted, and nobody would take it over to give the room back.
            drop(arrived);
            return self.slots.give_back(slots);
        }
        arrived.slots += slots;
        let waiting = self.waiting.load(Ordering::Relaxed);
        drop(arrived);
        for _ in 0..count.min(waiting) {
            self.wake.notify_one();
        }
    }

    /// The next item that is there already.
    pub(crate) fn try_next(&self) -> Result<Option<T>> {
        let mut taken = lock(&self.taken);
        if taken.is_empty() {
            self.take_over(&mut taken, false)?;
        }
        Ok(taken.pop_front())
    }

    /// Appends up to `most` items that are there already, at least one unless there is none.
    fn try_many(&self, to: &mut Vec<T>, most: usize) -> Result<usize> {
        let mut taken = lock(&self.taken);
        if taken.is_empty() {
            self.take_over(&mut taken, false)?;
        }
        let count = taken.len().min(most);
        to.extend(taken.drain(..count));
        Ok(count)
    }

    /// Takes over what has arrived. With `wait`, a receiver that finds nothing counts as waiting from here on.
    fn take_over(&self, taken: &mut VecDeque<T>, wait: bool) -> Result<()> {
        let mut arrived = lock(&self.arrived);
        if !arrived.queue.is_empty() {
            std::mem::swap(taken, &mut arrived.queue);
            let slots = std::mem::take(&mut arrived.slots);
            drop(arrived);
            self.slots.give_back(slots);
            return Ok(());
        }
        if arrived.closed {
            return Err(Error::Closed);
        }
        if wait {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until there may be something.
    async fn arrival(&self) -> Result<()> {
        let notified = self.wake.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        {
            let mut taken = lock(&self.taken);
            if !taken.is_empty() {
                return Ok(());
            }
            self.take_over(&mut taken, true)?;
            if !taken.is_empty() {
                return Ok(());
            }
        }
        let _waiting = Waiting(&self.waiting);
        notified.await;
        Ok(())
    }

    /// The next item. Once closed, what is there still comes, then the error. Cancel safe.
    pub(crate) async fn next(&self) -> Result<T> {
        tokio::task::consume_budget().await;
        loop {
            if let Some(item) = self.try_next()? {
                return Ok(item);
            }
            self.arrival().await?;
        }
    }

    /// Appends what is there, at least one item and at most `most`. Cancel safe.
    pub(crate) async fn many(&self, to: &mut Vec<T>, most: usize) -> Result<usize> {
        tokio::task::consume_budget().await;
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.try_many(to, most)? {
                0 => self.arrival().await?,
                count => return Ok(count),
            }
        }
    }

    /// Drops what no longer matters.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        let mut taken = lock(&self.taken);
        taken.retain(&mut keep);
        // Their slots come back with those of the others, when they are taken over.
        let mut arrived = lock(&self.arrived);
        arrived.queue.retain(&mut keep);
        if arrived.queue.is_empty() {
            let slots = std::mem::take(&mut arrived.slots);
            drop(arrived);
            self.slots.give_back(slots);
        }
    }

    /// Nothing is put in any more.
    pub(crate) fn close(&self) {
        lock(&self.arrived).closed = true;
        self.slots.close();
        self.wake.notify_waiters();
    }
}

/// A receiver that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
