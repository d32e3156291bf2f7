//! What becomes of a service, as a stream.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use sereno_core::Key;

use crate::error::Result;
use crate::followed::{Handle, Picture};
use crate::host::Host;
use crate::mailbox::{Mail, Mailbox};
use crate::notice::Notice;
use crate::query::Query;
use crate::service::Service;
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
    /// The number of the last notice that is in what was told.
    seen: u64,
    /// The hosts as this stream has told them.
    told: BTreeMap<Key, Arc<Host>>,
    record: Option<Arc<Service>>,
    ready: VecDeque<Change>,
}

impl Changes {
    pub(crate) fn new(handle: Arc<Handle>, query: Query) -> Self {
        // In this order, so that nothing falls in between.
        let mailbox = handle.followed.subscribe();
        let Picture { seq, mut hosts, record } = handle.followed.picture();
        hosts.retain(|(_, host)| concerns(&query, host));
        let snapshot = Change::Snapshot(hosts.iter().map(|(_, host)| host.clone()).collect());
        let told = hosts.into_iter().collect();
        Self { handle, query, mailbox, seen: seq, told, record, ready: VecDeque::from([snapshot]) }
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
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(self.mailbox.poll(cx)) {
                Mail::Notice(seq, _) if seq <= self.seen => {}
                Mail::Notice(_, notice) => self.take(notice),
                Mail::Overflow => self.resync(),
                Mail::End(error) => return Poll::Ready(error.map(Err)),
            }
        }
    }

    fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Put { key, host } => self.put(key, host),
            Notice::Gone { key } => self.remove(&key),
            Notice::Record(record) => self.take_record(Some(record)),
            Notice::Malformed { key, reason } => self.ready.push_back(Change::Malformed { key, reason }),
            Notice::Resync => self.ready.push_back(Change::Resync),
            Notice::Guarded { held } => self.ready.push_back(Change::Guarded { held }),
            Notice::Released => self.ready.push_back(Change::Released),
        }
    }

    fn put(&mut self, key: Key, host: Arc<Host>) {
        if !concerns(&self.query, &host) {
            return self.remove(&key);
        }
        match self.told.insert(key, host.clone()) {
            None => self.ready.push_back(Change::Added(host)),
            Some(old) if old == host => {}
            Some(old) => self.ready.push_back(Change::Updated { old, new: host }),
        }
    }

    fn remove(&mut self, key: &Key) {
        self.ready.extend(self.told.remove(key).map(Change::Removed));
    }

    fn take_record(&mut self, record: Option<Arc<Service>>) {
        if self.record != record {
            let told = record.clone().unwrap_or_else(|| Arc::new(Service::new(&self.query.service)));
            self.record = record;
            self.ready.push_back(Change::ServiceChanged(told));
        }
    }

    /// Tells the difference between what was told and what is.
    fn resync(&mut self) {
        let Picture { seq, hosts, record } = self.handle.followed.picture();
        self.seen = seq;
        self.ready.push_back(Change::Resync);
        let there: BTreeMap<Key, ()> = hosts.iter().map(|(key, _)| (key.clone(), ())).collect();
        hosts.into_iter().for_each(|(key, host)| self.put(key, host));
        let gone: Vec<Key> = self.told.keys().filter(|key| !there.contains_key(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        self.take_record(record);
    }
}

fn concerns(query: &Query, host: &Host) -> bool {
    query.shard().is_none_or(|shard| host.shard == shard)
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
            .field("hosts", &self.told.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sereno_core::{Client, ConnectOptions};

    use super::*;
    use crate::directory_options::DirectoryOptions;
    use crate::keys::Keys;

    #[tokio::test]
    async fn what_is_in_the_picture_already_is_not_told_again() {
        let client = Client::lazy(["127.0.0.1:1"], ConnectOptions::default()).unwrap();
        let keys = Keys::new("/").unwrap();
        let handle = Handle::follow(&client, &keys, &DirectoryOptions::default(), "api").unwrap();
        let key = keys.host("api", "a").unwrap();
        let put = |name: &str| Notice::Put { key: key.clone(), host: Arc::new(Host::new(name)) };
        let query = Query { service: "api".into(), shard: None };
        let mut changes = Changes::new(Arc::new(handle), query);
        assert!(matches!(changes.next().await, Some(Ok(Change::Snapshot(hosts))) if hosts.is_empty()));
        changes.put(key.clone(), Arc::new(Host::new("second")));
        changes.seen = 2;
        for (seq, name) in [(1, "first"), (2, "second"), (3, "third")] {
            changes.mailbox.push(seq, put(name));
        }
        assert!(matches!(changes.next().await, Some(Ok(Change::Added(host))) if host.hostname == "second"));
        let Some(Ok(Change::Updated { old, new })) = changes.next().await else { panic!("the third") };
        assert_eq!((old.hostname.as_str(), new.hostname.as_str()), ("second", "third"));
    }
}
