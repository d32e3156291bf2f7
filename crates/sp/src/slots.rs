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

    /// Takes slots, after those who asked before. Cancelled: takes none.
    pub(crate) async fn take(&self, slots: usize) -> Result<()> {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        self.free.acquire_many(slots).await.map_err(|_| Error::Closed)?.forget();
        Ok(())
    }

    /// Takes slots for one of these messages, after those who asked before, and for as many more as are free, up to half of all,
    /// so that others have their turns. Returns for how many messages, and the slots. Cancelled: takes none.
    pub(crate) async fn take_turn(
        &self,
        sizes: impl Iterator<Item = usize> + Send,
    ) -> Result<(usize, usize)> {
        let mut costs = sizes.map(|size| self.cost(size));
        let Some(first) = costs.next() else { return Ok((0, 0)) };
        self.take(first).await?;
        let most = self.free.available_permits().min((self.all / 2).saturating_sub(first));
        let (mut count, mut more) = (0, 0);
        for cost in costs {
            if more + cost > most {
                break;
            }
            count += 1;
            more += cost;
        }
        match self.try_take(more) {
            Ok(()) => Ok((1 + count, first + more)),
            // Somebody else took them; what was taken is good, also when the socket is being closed.
            Err(_) => Ok((1, first)),
        }
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
