//! The stream of joins, changes and departures.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use sereno_core::{Change, KeyValue, Prefix, Update, Watcher};

use crate::error::Result;
use crate::group::{self, Node};

/// What [`Members`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Who was there when the watch began, by name. Always the first item.
    Snapshot(Vec<Node>),
    /// A node joined, or was restored after it had left.
    Joined(Node),
    /// A node's value was updated, or another session took the name over.
    Changed {
        /// As it was.
        old: Node,
        /// As it is.
        new: Node,
    },
    /// A node left, its session ended, or its key was deleted underneath.
    Left(Node),
    /// History was compacted before it could be read, so the group was read again. The next items are the difference
    /// between what had been told and what is there: what came and went in between was not seen, the state is right.
    Resync,
}

/// A group as it is, and every change to it: see [`Group::watch`](crate::Group::watch).
///
/// Heartbeats are invisible. It survives reconnects and changes of member by itself, without gap or duplicate. Dropping
/// it ends the watch.
#[must_use = "members that are dropped end their watch"]
pub struct Members {
    watcher: Watcher,
    group: Prefix,
    ready: VecDeque<Event>,
}

impl Members {
    pub(crate) fn new(watcher: Watcher, group: Prefix) -> Self {
        let snapshot = Event::Snapshot(group::nodes(&group, watcher.view()));
        Self { watcher, group, ready: VecDeque::from([snapshot]) }
    }

    /// Who is there, by name, as far as this watch has heard: never behind what [`Members::next`] has yielded.
    #[must_use]
    pub fn alive(&self) -> Vec<Node> {
        group::nodes(&self.group, self.watcher.view())
    }

    /// The next event; `None` after an error that ended the watch.
    ///
    /// # Errors
    /// A group that could not be read again after a compaction is told, and read again at the next call. A client that
    /// is void (its store was replaced), lost permission or a runtime that was shut down end the watch.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(Pin::new(&mut self.watcher).poll_next(cx)) {
                Some(Ok(update)) => self.take(update),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn take(&mut self, update: Update) {
        if update.resync {
            self.ready.push_back(Event::Resync);
        }
        let events = update.changes.into_iter().filter_map(|change| event(&self.group, change));
        self.ready.extend(events);
    }
}

/// `None` for keys that no announcement wrote.
fn event(group: &Prefix, change: Change) -> Option<Event> {
    let node = |kv: KeyValue| Node::from_entry(group, &kv);
    Some(match change {
        Change::Put { old: Some(old), new } => Event::Changed { old: node(old)?, new: node(new)? },
        Change::Put { old: None, new } => Event::Joined(node(new)?),
        Change::Deleted { old } => Event::Left(node(old)?),
    })
}

impl Stream for Members {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("group", &self.group)
            .field("watcher", &self.watcher)
            .finish_non_exhaustive()
    }
}
