//! A service in memory.

use std::fmt;
use std::sync::Arc;

use sereno_core::pace;
use tokio::sync::watch;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::followed::{Handle, Phase};
use crate::host::Host;
use crate::query::{Contents, Query};
use crate::service::Service;
use crate::subscription::Subscription;
use crate::view_status::{Malformed, Source, ViewStatus};

/// A service as it is known here, kept up by a watch: see [`Directory::follow`](crate::Directory::follow).
///
/// Lookups are answered from memory, in the order of registration, and never wait for etcd. While etcd is away they are
/// answered from what was last known, for
/// [`DirectoryOptions::serve_stale_for`](crate::DirectoryOptions::serve_stale_for); then they fail with [`Error::Stale`].
/// They never say that there is nothing because nothing is known.
///
/// Clones are the same view. Dropping the last view and the last stream of a service ends its watch.
#[derive(Clone)]
pub struct View {
    handle: Arc<Handle>,
    query: Query,
    changes: watch::Receiver<u64>,
}

impl View {
    pub(crate) fn new(handle: Arc<Handle>, query: Query) -> Self {
        let changes = handle.followed.changes();
        Self { handle, query, changes }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.query.service
    }

    /// The shard it shows; empty for all.
    pub(crate) fn shard_name(&self) -> &str {
        self.query.shard().unwrap_or_default()
    }

    /// A view of one shard; of all when the name is empty.
    #[must_use]
    pub fn shard(&self, shard: impl Into<String>) -> Self {
        Self { query: self.query.narrow(shard), ..self.clone() }
    }

    /// All hosts, oldest registration first. No RPC.
    ///
    /// # Errors
    /// [`Error::NoServiceFound`], [`Error::NoHostFound`], [`Error::NoHostFoundOnShard`]: there is none.
    /// [`Error::NoReadableHost`]: there are entries, and all of them are malformed.
    /// [`Error::Stale`].
    pub fn all(&self) -> Result<Vec<Arc<Host>>> {
        self.read(|query, contents| query.all(contents))
    }

    /// The host that registered first. No RPC.
    ///
    /// # Errors
    /// As [`View::all`].
    pub fn first(&self) -> Result<Arc<Host>> {
        self.read(|query, contents| query.first(contents))
    }

    /// A random host of those that are not draining, each as likely as any other. No RPC.
    ///
    /// # Errors
    /// As [`View::all`], also when there are hosts but all of them are draining.
    pub fn one(&self) -> Result<Arc<Host>> {
        self.read(|query, contents| query.one(contents))
    }

    /// The service's record; when there is none but there are hosts, one that says nothing but the name. No RPC.
    ///
    /// # Errors
    /// [`Error::NoServiceFound`], [`Error::Stale`].
    pub fn get(&self) -> Result<Arc<Service>> {
        self.read(|query, contents| query.service(contents))
    }

    /// The URL of the service when it is public, else (and in a shard) of [`View::one`]. No RPC.
    ///
    /// # Errors
    /// As [`View::one`] and [`Host::url`].
    pub fn url(&self, scheme: &str, path: &str) -> Result<String> {
        self.read(|query, contents| query.url(contents, scheme, path))
    }

    /// How many hosts there are. No RPC.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn len(&self) -> Result<usize> {
        self.read(|query, contents| Ok(contents.roster.all(query.shard()).len()))
    }

    /// Whether there is no host. No RPC.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// The hosts whose keys are gone and that the guard holds back. No RPC.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn held(&self) -> Result<Vec<Arc<Host>>> {
        let state = self.handle.followed.fresh()?;
        let hosts = state.contents.roster.all(self.query.shard()).iter();
        Ok(hosts.filter(|entry| state.guard.is_held(&entry.key)).map(|entry| entry.host.clone()).collect())
    }

    /// Whether the guard holds that host, by its [`Host::uuid`]. No RPC.
    #[must_use]
    pub fn is_held(&self, uuid: &str) -> bool {
        let followed = &self.handle.followed;
        followed.hosts.key(uuid).is_ok_and(|key| followed.read().guard.is_held(&key))
    }

    /// How fresh and how whole it is. No RPC.
    #[must_use]
    pub fn status(&self) -> ViewStatus {
        let followed = &self.handle.followed;
        let (heard, now) = (followed.client.last_watch_activity(), pace::now());
        let state = followed.read();
        let source = match &state.freshness {
            fresh if !fresh.was_live() => Source::Disk,
            fresh if fresh.is_current(heard, now) => Source::Live,
            _ => Source::Stale,
        };
        let malformed = |(key, reason): (&sereno_core::Key, &str)| Malformed {
            key: key.to_string(),
            reason: reason.into(),
        };
        ViewStatus {
            source,
            age: state.freshness.age(heard, now),
            revision: state.revision,
            hosts: state.contents.roster.len(),
            held: state.guard.held(),
            malformed: state.bad(),
            recent_malformed: state.recent().map(malformed).collect(),
            untaken: state.untaken(),
            resyncs: state.resyncs,
            error: state.error.clone(),
            cache_error: state.cache_error.clone(),
        }
    }

    /// Waits until it has been read from etcd; at once unless it comes from a file.
    ///
    /// # Errors
    /// What stands in the way for good. Otherwise it waits for etcd without a deadline of its own.
    ///
    /// # Cancel safety
    /// Nothing happens when the future is dropped.
    pub async fn ready(&self) -> Result<()> {
        let mut phase = self.handle.followed.phase();
        let done = phase.wait_for(|phase| !matches!(phase, Phase::Loading | Phase::Stored)).await;
        match done.as_deref() {
            Ok(Phase::Void(error) | Phase::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Core(sereno_core::Error::Stopped)),
        }
    }

    /// Waits until the view has changed since the last call, or since it was made: hosts, the record, the guard, entries
    /// that cannot be read. Several changes may be one. Hosts that are written again as they were are no change.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Not before the view itself is gone.
            std::future::pending::<()>().await;
        }
    }

    /// What becomes of the service from here on, beginning with its hosts as they are. No RPC.
    pub fn watch(&self) -> Changes {
        Changes::new(self.handle.clone(), self.query.clone())
    }

    /// Hosts as they join from here on. No RPC.
    pub fn subscribe_new(&self) -> Subscription {
        Subscription::joins(self.watch())
    }

    /// Hosts as they leave from here on. No RPC.
    pub fn subscribe_down(&self) -> Subscription {
        Subscription::departures(self.watch())
    }

    /// Looks at what is known, if it is fresh enough. For moments only: the lock is held.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Query, &Contents) -> Result<T>) -> Result<T> {
        look(&self.query, &self.handle.followed.fresh()?.contents)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("query", &self.query).field("status", &self.status()).finish()
    }
}
