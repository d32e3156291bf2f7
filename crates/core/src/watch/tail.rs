//! The log of a range: every change from a revision on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::event::Changes;
use super::hub::{Add, Signals};
use super::queue::{Item, Overflow, Queue};
use crate::call::until;
use crate::client::{Client, Range};
use crate::error::{Cause, Error, Result};

/// Every change of a range from a revision on, one transaction at a time, in commit order, without gap or duplicate.
///
/// It survives reconnects and changes of member by itself. Dropping it ends the watch.
#[must_use = "a tail that is dropped ends its watch"]
pub struct Tail {
    id: u64,
    queue: Arc<Queue>,
    signals: Arc<Signals>,
    /// Keeps the hub alive.
    _client: Client,
}

/// What a [`Tail`] yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum TailItem {
    /// One transaction's changes.
    Changes(Changes),
    /// So many events were dropped here because the consumer was too slow ([`Overflow::DropOldest`] only).
    Missed(u64),
    /// History up to here has been compacted before it could be delivered. This is the last item: read the range
    /// again and start a new tail after the revision of that reading.
    Compacted {
        /// The oldest revision that can still be watched.
        revision: i64,
    },
}

impl Client {
    /// Watches a range from revision `from` on (inclusive). No RPC of its own: all watches of a client share a stream.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the hub is held up for the client's deadline, [`Error::Stopped`] after the runtime's end.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn tail(&self, range: impl Into<Range>, from: i64, overflow: Overflow) -> Result<Tail> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.inner.rolled_back()?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue::new(overflow));
        let add = Add { id, range: range.into(), from, queue: queue.clone() };
        let deadline = self.deadline();
        let added = tokio::time::timeout_at(until(deadline), self.hub().add(add)).await;
        let signals = added
            .map_err(|_| Error::Timeout { deadline, cause: Cause::new("the watch hub is held up") })??;
        Ok(Tail { id, queue, signals, _client: self.clone() })
    }
}

impl Tail {
    /// The next item; `None` after the last one.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], [`Error::StoreRolledBack`], [`Error::Stopped`]: the last item.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<TailItem>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TailItem>>> {
        let popped = ready!(self.queue.poll_pop(cx));
        if popped.resume {
            self.signals.resume(self.id);
        }
        Poll::Ready(popped.item.map(|item| {
            Ok(match item? {
                Item::Changes(changes) => TailItem::Changes(changes),
                Item::Missed(count) => TailItem::Missed(count),
                Item::Compacted(revision) => TailItem::Compacted { revision },
            })
        }))
    }
}

impl Stream for Tail {
    type Item = Result<TailItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.signals.remove(self.id);
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("id", &self.id).finish_non_exhaustive()
    }
}
