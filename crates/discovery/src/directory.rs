//! Where services are looked up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sereno_core::{Client, KeyError};

use crate::directory_options::DirectoryOptions;
use crate::error::{Error, Result};
use crate::followed::{Handle, Phase};
use crate::keys::Keys;
use crate::lookup::Lookup;
use crate::query::Query;
use crate::view::View;

/// Where services and their hosts are looked up and followed.
///
/// Making one does nothing, and it needs no session. Clones are the same directory: they share the services that are
/// followed.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    options: DirectoryOptions,
    keys: Result<Keys, KeyError>,
    followed: Mutex<HashMap<String, Weak<Handle>>>,
}

impl Directory {
    /// The directory of that client's etcd, with default options. No I/O.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self::with_options(client, DirectoryOptions::default())
    }

    /// As [`Directory::new`], with options. No I/O.
    #[must_use]
    pub fn with_options(client: &Client, options: DirectoryOptions) -> Self {
        let keys = Keys::new(&options.root);
        Self { inner: Arc::new(Inner { client: client.clone(), options, keys, followed: Mutex::default() }) }
    }

    /// A service, to be looked up. No I/O: whether it is there shows when it is asked for something.
    #[must_use]
    pub fn service(&self, name: impl Into<String>) -> Lookup {
        Lookup::new(self.clone(), Query { service: name.into(), shard: None })
    }

    /// Follows a service: reads it and keeps what is read up to date, until the last [`View`] and the last stream of it are
    /// dropped. Whoever else follows it here meanwhile shares that, and so do the lookups of
    /// [`Directory::service`], which then need no RPC. One RPC, and one per 1,000 hosts; none when it is followed already.
    /// All watches of a client share a stream.
    ///
    /// When etcd cannot be read within the client's deadline and there is a file of
    /// [`DirectoryOptions::cache_dir`] that is young enough, the view begins with that.
    ///
    /// # Errors
    /// As any read of the core; [`Error::InvalidOption`]. A service that is not there is no error.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn follow(&self, service: impl Into<String>) -> Result<View> {
        let query = Query { service: service.into(), shard: None };
        let handle = self.handle(&query.service)?;
        let mut phase = handle.followed.phase();
        let loaded = phase.wait_for(|phase| !matches!(phase, Phase::Loading)).await;
        match loaded.as_deref() {
            Ok(Phase::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(View::new(handle, query)),
            Err(_) => Err(Error::Core(sereno_core::Error::Stopped)),
        }
    }

    /// The service if it is followed already and was read. No I/O.
    pub(crate) fn followed(&self, query: &Query) -> Option<View> {
        let handle = self.known().get(&query.service)?.upgrade()?;
        handle.followed.is_loaded().then(|| View::new(handle, query.clone()))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn keys(&self) -> Result<&Keys> {
        let keys = self.inner.keys.as_ref();
        keys.map_err(|error| Error::Core(sereno_core::Error::InvalidKey(error.clone())))
    }

    pub(crate) fn options(&self) -> &DirectoryOptions {
        &self.inner.options
    }

    /// What follows the service, begun if nothing does.
    fn handle(&self, service: &str) -> Result<Arc<Handle>> {
        self.inner.options.check()?;
        let keys = self.keys()?;
        let mut known = self.known();
        let working = |handle: &Arc<Handle>| !handle.followed.has_failed();
        if let Some(handle) = known.get(service).and_then(Weak::upgrade).filter(working) {
            return Ok(handle);
        }
        let handle = Arc::new(Handle::follow(&self.inner.client, keys, &self.inner.options, service)?);
        known.retain(|_, handle| handle.strong_count() > 0);
        known.insert(service.to_owned(), Arc::downgrade(&handle));
        Ok(handle)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Handle>>> {
        self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("client", &self.inner.client)
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
