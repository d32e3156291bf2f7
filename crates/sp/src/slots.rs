//! The room of a queue.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, TryAcquireError};

use crate::error::{Error, Result};
use crate::options::Queue;

/// How much a queue still takes, counted so that both its bounds hold: see [`Queue`].
#[derive(Debug)]
pub(crate) struct Slots {
    free: Semaphore,
    all: usize,
    unit: usize,
    /// Taken without having been free.
    owed: AtomicUsize,
}

impl Slots {
    pub(crate) fn new(queue: Queue) -> Self {
        let all = queue.messages.clamp(1, u32::MAX as usize / 2);
        Self { free: Semaphore::new(all), all, unit: (queue.bytes / all).max(1), owed: AtomicUsize::new(0) }
    }

    /// How many slots a message of this size takes.
    pub(crate) fn cost(&self, size: usize) -> usize {
        size.div_ceil(self.unit).clamp(1, self.all)
    }

    /// How many of these messages may be put in at once, so that several connections have their turns, and what they
    /// take together.
    pub(crate) fn turn(&self, sizes: impl Iterator<Item = usize>) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        for size in sizes {
            let cost = self.cost(size);
            if count > 0 && total + cost > self.all.div_ceil(2) {
                break;
            }
            count += 1;
            total += cost;
        }
        (count, total)
    }

    /// Takes slots, after those who asked before. Cancelled: takes none.
    pub(crate) async fn take(&self, slots: usize) -> Result<()> {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        self.free.acquire_many(slots).await.map_err(|_| Error::Closed)?.forget();
        Ok(())
    }

    /// Takes slots if they are free and nobody waits for them.
    pub(crate) fn try_take(&self, slots: usize) -> Result<()> {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        match self.free.try_acquire_many(slots) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Err(Error::Full),
            Err(TryAcquireError::Closed) => return Err(Error::Closed),
        }
        Ok(())
    }

    /// Takes slots over what there is: they are missing when others come back.
    pub(crate) fn owe(&self, slots: usize) {
        let taken = self.free.forget_permits(slots);
        self.owed.fetch_add(slots - taken, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, slots: usize) {
        let mut slots = slots;
        if self.owed.load(Ordering::Relaxed) > 0 {
            let paid = self
                .owed
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(slots)));
            slots -= paid.unwrap_or_default().min(slots);
        }
        self.free.add_permits(slots);
    }

    /// From now on nobody gets any.
    pub(crate) fn close(&self) {
        self.free.close();
    }
}
