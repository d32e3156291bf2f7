//! One service, to be asked for its hosts.

use std::fmt;
use std::sync::Arc;

use crate::changes::Changes;
use crate::directory::Directory;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::query::{Contents, Query};
use crate::service::Service;
use crate::subscription::Subscription;
use crate::view::View;

/// A service, or one shard of it: see [`Directory::service`].
///
/// While the service is followed in the same directory, answers come from memory, without an RPC. Otherwise each is a
/// linearizable read; entries that cannot be read are passed over, with a word in the log.
#[derive(Clone)]
pub struct Lookup {
    directory: Directory,
    query: Query,
}

impl Lookup {
    pub(crate) fn new(directory: Directory, query: Query) -> Self {
        Self { directory, query }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.query.service
    }

    /// Only the hosts of that shard; all when the name is empty. No I/O.
    #[must_use]
    pub fn shard(&self, shard: impl Into<String>) -> Self {
        Self { directory: self.directory.clone(), query: self.query.narrow(shard) }
    }

    /// The service's record. When there is none but there are hosts, as with very old registrants, it is one that says
    /// nothing but the name. One RPC, a second one when there is no record; none when it is followed.
    ///
    /// # Errors
    /// [`Error::NoServiceFound`]; [`Error::Malformed`] when the record cannot be read; [`Error::Stale`] when it is
    /// followed; as any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn get(&self) -> Result<Arc<Service>> {
        if let Some(view) = self.followed() {
            return view.get();
        }
        match self.record().await? {
            Some(record) => Ok(record),
            None => self.query.service(&self.hosts(None).await?),
        }
    }

    /// All hosts, oldest registration first, as of one moment. One RPC per 1,000 hosts, one more when there is none; none
    /// when it is followed.
    ///
    /// # Errors
    /// [`Error::NoServiceFound`], [`Error::NoHostFound`], [`Error::NoHostFoundOnShard`]: there is none.
    /// [`Error::NoReadableHost`]: there are entries, and all of them are malformed.
    /// [`Error::Stale`] when it is followed; as any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn all(&self) -> Result<Vec<Arc<Host>>> {
        match self.followed() {
            Some(view) => view.all(),
            None => self.query.all(&self.contents().await?),
        }
    }

    /// The host that registered first. Costs as [`Lookup::all`].
    ///
    /// # Errors
    /// As [`Lookup::all`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn first(&self) -> Result<Arc<Host>> {
        match self.followed() {
            Some(view) => view.first(),
            None => self.query.first(&self.contents().await?),
        }
    }

    /// A random host of those that are not draining, each as likely as any other. Costs as [`Lookup::all`].
    ///
    /// # Errors
    /// As [`Lookup::all`], also when there are hosts but all of them are draining.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn one(&self) -> Result<Arc<Host>> {
        match self.followed() {
            Some(view) => view.one(),
            None => self.query.one(&self.contents().await?),
        }
    }

    /// The URL of the service when it is public, else (and in a shard) of [`Lookup::one`]. One RPC for the record unless a
    /// shard is asked for, then as [`Lookup::all`] unless it was public; none when it is followed.
    ///
    /// # Errors
    /// As [`Lookup::one`] and [`Host::url`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn url(&self, scheme: &str, path: &str) -> Result<String> {
        if let Some(view) = self.followed() {
            return view.url(scheme, path);
        }
        if self.query.shard().is_some() {
            return self.query.url(&self.contents().await?, scheme, path);
        }
        let record = self.record().await?;
        match self.query.public(record.as_deref()) {
            Some(service) => service.url(scheme, path),
            None => self.query.url(&self.hosts(record).await?, scheme, path),
        }
    }

    /// Follows the service: see [`Directory::follow`].
    ///
    /// # Errors
    /// As [`Directory::follow`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn follow(&self) -> Result<View> {
        let view = self.directory.follow(&self.query.service).await?;
        Ok(view.shard(self.query.shard().unwrap_or_default()))
    }

    /// What becomes of the service from here on, beginning with its hosts as they are. When this returns, everything that
    /// happens after it will be seen. Costs as [`Directory::follow`].
    ///
    /// # Errors
    /// As [`Directory::follow`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self) -> Result<Changes> {
        Ok(self.follow().await?.watch())
    }

    /// Hosts as they join from here on. When this returns, all that come after it will be seen. Costs as
    /// [`Directory::follow`].
    ///
    /// # Errors
    /// As [`Directory::follow`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn subscribe_new(&self) -> Result<Subscription> {
        Ok(self.follow().await?.subscribe_new())
    }

    /// Hosts as they leave from here on, each as it was at last. Costs as [`Directory::follow`].
    ///
    /// # Errors
    /// As [`Directory::follow`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn subscribe_down(&self) -> Result<Subscription> {
        Ok(self.follow().await?.subscribe_down())
    }

    fn followed(&self) -> Option<View> {
        self.directory.followed(&self.query)
    }

    /// The hosts; what is said of the service as well, when there is none.
    async fn contents(&self) -> Result<Contents> {
        let contents = self.hosts(None).await?;
        if contents.roster.len() > 0 {
            return Ok(contents);
        }
        // One that cannot be read says at least that the service is known.
        let record = match self.record().await {
            Err(Error::Malformed { .. }) => Some(Arc::new(Service::new(&self.query.service))),
            record => record?,
        };
        Ok(Contents { record, ..contents })
    }

    async fn record(&self) -> Result<Option<Arc<Service>>> {
        let key = self.directory.keys()?.info(&self.query.service)?;
        let Some(kv) = self.directory.client().get(&key).await? else { return Ok(None) };
        let record = Service::from_json(&self.query.service, &kv.value);
        let record = record.map_err(|reason| Error::Malformed { key: key.to_string(), reason })?;
        Ok(Some(Arc::new(record)))
    }

    async fn hosts(&self, record: Option<Arc<Service>>) -> Result<Contents> {
        let prefix = self.directory.keys()?.hosts(&self.query.service)?;
        let mut read = self.directory.client().range(&prefix).await?.entries;
        read.sort_by_key(|kv| kv.create_revision);
        let mut contents = Contents { record, ..Contents::default() };
        for kv in &read {
            match Entry::below(&prefix, kv) {
                Ok(_) if contents.roster.len() >= self.directory.options().max_hosts => {
                    let service = &self.query.service;
                    tracing::warn!(service, keys = read.len(), "more hosts than are taken");
                    break;
                }
                Ok(entry) => drop(contents.roster.put(entry)),
                Err(reason) => {
                    tracing::warn!(key = %kv.key, reason, "passed over an entry of a service");
                    contents.malformed.insert(kv.key.clone(), reason.into());
                }
            }
        }
        Ok(contents)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("query", &self.query).finish_non_exhaustive()
    }
}
