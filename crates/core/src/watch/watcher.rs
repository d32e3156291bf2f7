//! A view that follows etcd.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::queue::Overflow;
use super::tail::{Tail, TailItem};
use super::view::View;
use crate::client::{Client, Range};
use crate::error::{Error, Result};
use crate::kv::KeyValue;

/// One change of a [`View`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a key is there or not")]
pub enum Change {
    /// A key was created (`old` is `None`) or written.
    Put {
        /// What it was before.
        old: Option<KeyValue>,
        /// What it is now.
        new: KeyValue,
    },
    /// A key was deleted, or its lease ended.
    Deleted {
        /// What it was before.
        old: KeyValue,
    },
}

impl Change {
    /// The revision of the new value, or of the old one for a deletion.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Self::Put { new, .. } => new.mod_revision,
            Self::Deleted { old } => old.mod_revision,
        }
    }
}

/// What a [`Watcher`] yields: the view has moved to `revision` by `changes`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Update {
    /// The view's revision now.
    pub revision: i64,
    /// What changed: one transaction, or after a resync the whole difference.
    pub changes: Vec<Change>,
    /// Whether history had been compacted, so that the range was read again: intermediate values were not seen, the
    /// state is right.
    pub resync: bool,
}

type Reading = Pin<Box<dyn Future<Output = Result<(crate::kv::Snapshot, Tail)>> + Send>>;

/// A view of a range that follows etcd: the state at a revision, then every change, for as long as it is kept.
///
/// Dropping it ends the watch.
#[must_use = "a watcher that is dropped ends its watch"]
pub struct Watcher {
    client: Client,
    range: Range,
    view: View,
    tail: Tail,
    reading: Option<Reading>,
    ended: bool,
}

impl Client {
    /// Reads a range and follows it. When this returns, [`Watcher::view`] is the state, and every later change will be
    /// seen. One RPC per 1,000 keys; no stream of its own.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self, range: impl Into<Range>) -> Result<Watcher> {
        let range = range.into();
        let (snapshot, tail) = self.as_one(read(self.clone(), range.clone())).await?;
        let view = View::new(snapshot);
        Ok(Watcher { client: self.clone(), range, view, tail, reading: None, ended: false })
    }
}

async fn read(client: Client, range: Range) -> Result<(crate::kv::Snapshot, Tail)> {
    let snapshot = client.range(range.clone()).await?;
    let tail = client.tail(range, snapshot.revision.saturating_add(1), Overflow::Pause).await?;
    Ok((snapshot, tail))
}

impl Watcher {
    /// The state as of the last update.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Waits for the next change of the view; `None` after an error that ended it.
    ///
    /// # Errors
    /// Errors of reading the range again after a compaction are told and tried again at the next call;
    /// [`Error::StoreRolledBack`], [`Error::PermissionDenied`] and [`Error::Stopped`] end it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Update>> {
        std::future::poll_fn(|cx| self.poll_update(cx)).await
    }

    /// Waits until `condition` gives something, beginning with the present view.
    ///
    /// # Errors
    /// As [`Watcher::next`], except that failed readings are tried again without end: wrap it into a timeout.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait<T>(&mut self, mut condition: impl FnMut(&View) -> Option<T>) -> Result<T> {
        loop {
            if let Some(found) = condition(&self.view) {
                return Ok(found);
            }
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) if error.is_retryable() => {
                    tracing::debug!(%error, "reading a watched range again")
                }
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Stopped),
            }
        }
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = std::task::ready!(reading.as_mut().poll(cx));
                self.reading = None;
                match read {
                    Ok((snapshot, tail)) => {
                        self.tail = tail;
                        let revision = snapshot.revision;
                        let changes = self.view.replace(snapshot);
                        tracing::debug!(revision, changes = changes.len(), "a watched range was read again");
                        return Poll::Ready(Some(Ok(Update { revision, changes, resync: true })));
                    }
                    Err(error) => {
                        if error.is_retryable() {
                            self.reading =
                                Some(Box::pin(read_again(self.client.clone(), self.range.clone())));
                        } else {
                            self.ended = true;
                        }
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.tail.poll_item(cx)) {
                Some(Ok(TailItem::Changes(changes))) => {
                    let revision = changes.revision;
                    let changes = self.view.apply(changes);
                    return Poll::Ready(Some(Ok(Update { revision, changes, resync: false })));
                }
                Some(Ok(TailItem::Compacted { .. } | TailItem::Missed(_))) => {
                    self.reading = Some(Box::pin(read(self.client.clone(), self.range.clone())));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// After a failed reading: not at once.
async fn read_again(client: Client, range: Range) -> Result<(crate::kv::Snapshot, Tail)> {
    tokio::time::sleep(crate::backoff::jitter(std::time::Duration::from_millis(500))).await;
    read(client, range).await
}

impl Stream for Watcher {
    type Item = Result<Update>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_update(cx)
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("revision", &self.view.revision())
            .field("keys", &self.view.len())
            .finish_non_exhaustive()
    }
}
