//! What becomes of a service, as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::error::Result;
use crate::followed::Handle;
use crate::host::Host;
use crate::mailbox::Mailbox;
use crate::query::Query;
use crate::service::Service;
use crate::telling::Telling;
use crate::view::View;

/// What [`Changes`] yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// The hosts when the stream began, oldest registration first. Always the first item.
    Snapshot(Vec<Arc<Host>>),
    /// A host was registered, or came into the shard.
    Added(Arc<Host>),
    /// A host is not what it was.
    Updated {
        /// As it was.
        old: Arc<Host>,
        /// As it is.
        new: Arc<Host>,
    },
    /// A host was deregistered, its lease ended, or it left the shard; as it was at last.
    Removed(Arc<Host>),
    /// The record of the service changed. When it is gone, this says nothing but the name.
    ServiceChanged(Arc<Service>),
    /// An entry cannot be read. What it said before stays until it is deleted.
    Malformed {
        /// Its key, escaped for display.
        key: String,
        /// What is wrong with it; nothing of the value itself.
        reason: String,
    },
    /// What comes next is the difference between what this stream has told and what is: history had been compacted, or the
    /// stream was not read for so long that more than
    /// [`DirectoryOptions::backlog`](crate::DirectoryOptions::backlog) events came. What was in between is not told.
    Resync,
    /// The keys of many hosts went at once: so many hosts, in all shards, are held back now, and are not told as removed
    /// yet.
    Guarded {
        /// How many.
        held: usize,
    },
    /// No host is held any more: each is registered again, or was told as removed.
    Released,
}

/// Every change of a service, in order, beginning with its hosts as they are.
///
/// It ends only with an error. It survives anything of which etcd recovers, without gap or duplicate; a rewrite that
/// changes nothing is no event. A stream that is not read holds up nobody. Dropping it, when there is no view and no other
/// stream of that service, ends the watch.
#[must_use = "a stream that is dropped ends"]
pub struct Changes {
    handle: Arc<Handle>,
    query: Query,
    mailbox: Arc<Mailbox>,
    telling: Telling,
}

impl Changes {
    pub(crate) fn new(handle: Arc<Handle>, query: Query) -> Self {
        // In this order, so that nothing falls in between.
        let mailbox = handle.followed.subscribe();
        let telling = Telling::new(&query, handle.followed.picture());
        Self { handle, query, mailbox, telling }
    }

    /// The view behind it: never behind what [`Changes::next`] has yielded.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.handle.clone(), self.query.clone())
    }

    /// The next change; `None` after an error.
    ///
    /// # Errors
    /// [`StoreRolledBack`](sereno_core::Error::StoreRolledBack), [`Stopped`](sereno_core::Error::Stopped): nothing will
    /// come from this client any more. Nothing else is told here: see [`View::status`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        std::future::poll_fn(|cx| self.poll_change(cx)).await
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Change>>> {
        self.telling.poll(&self.mailbox, || self.handle.followed.picture(), cx)
    }
}

impl Stream for Changes {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(cx)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("query", &self.query)
            .field("hosts", &self.telling.hosts())
            .finish_non_exhaustive()
    }
}
