//! Hosts as they join, or as they leave.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::changes::{Change, Changes};
use crate::error::Result;
use crate::host::Host;

/// Hosts as they join (`subscribe_new`) or leave (`subscribe_down`): the ancestor's two subscriptions. Unlike there, none is
/// missed from the moment on at which it is made, no error of the wire ends it, and who leaves is told as a whole.
///
/// Dropping it is as dropping [`Changes`].
#[derive(Debug)]
#[must_use = "a subscription that is dropped ends"]
pub struct Subscription {
    changes: Changes,
    pick: fn(Change) -> Option<Arc<Host>>,
}

impl Subscription {
    pub(crate) fn joins(changes: Changes) -> Self {
        let pick = |change| match change {
            Change::Added(host) => Some(host),
            _ => None,
        };
        Self { changes, pick }
    }

    pub(crate) fn departures(changes: Changes) -> Self {
        let pick = |change| match change {
            Change::Removed(host) => Some(host),
            _ => None,
        };
        Self { changes, pick }
    }

    /// The next host; `None` after an error.
    ///
    /// # Errors
    /// As [`Changes::next`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Arc<Host>>> {
        std::future::poll_fn(|cx| self.poll_host(cx)).await
    }

    fn poll_host(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Host>>>> {
        loop {
            match ready!(Pin::new(&mut self.changes).poll_next(cx)) {
                Some(Ok(change)) => {
                    if let Some(host) = (self.pick)(change) {
                        return Poll::Ready(Some(Ok(host)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Arc<Host>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_host(cx)
    }
}
