//! The stream of a counter's values.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use sereno_core::{Cells, Watcher};

use crate::counter::value;
use crate::error::Result;

/// So many changes are skipped at once when the consumer is behind, before others get their turn.
const SKIPPED: usize = 1024;

/// The values of a counter: the present one, then each new one that differs from the one before.
///
/// Values that were overtaken by the time they are asked for are skipped, so whoever is slow sees fewer values, never old
/// ones. It outlives reconnects and compactions, ends with an error that cannot be mended, and counts as a user of the
/// counter. Dropping it ends the watch.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Changes {
    cells: Cells,
    watcher: Watcher,
    last: Option<i64>,
    /// The view has changed since it was looked at.
    due: bool,
}

impl Changes {
    pub(crate) fn new(cells: Cells, watcher: Watcher) -> Self {
        Self { cells, watcher, last: None, due: true }
    }

    /// The next value; `None` after an error that ended the stream.
    ///
    /// # Errors
    /// [`Malformed`](sereno_core::Error::Malformed) for as long as something else is stored there, and errors of reading
    /// again after a compaction: the stream goes on after both. Refusals end it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<i64>> {
        std::future::poll_fn(|cx| self.poll_value(cx)).await
    }

    fn poll_value(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<i64>>> {
        loop {
            for _ in 0..SKIPPED {
                match Pin::new(&mut self.watcher).poll_next(cx) {
                    Poll::Ready(Some(Ok(_))) => self.due = true,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Ready(None) | Poll::Pending if self.due => break,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.due = false;
            let tally = self.cells.tally(self.watcher.view()).map_err(Into::into);
            let value = match tally.and_then(|tally| value(&self.cells, &tally)) {
                Ok(value) => value,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if self.last.replace(value) != Some(value) {
                return Poll::Ready(Some(Ok(value)));
            }
        }
    }
}

impl Stream for Changes {
    type Item = Result<i64>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_value(cx)
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("last", &self.last).finish_non_exhaustive()
    }
}
