//! Registry and directory without etcd, for the tests of a user's code.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sereno_core::{Key, pace, spread};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::keys::Keys;
use crate::notice::Notice;

mod changes;
mod directory;
mod known;
mod registration;
mod registry;

use known::Known;

pub use directory::FakeDirectory;
pub use registry::FakeRegistry;

/// What a [`FakeRegistry`] and a [`FakeDirectory`] share instead of an etcd: what is registered with the one is seen in the
/// other, at once and in order. Clones are the same world.
///
/// Names are checked, hosts completed and credentials shared by the code of the real ones. Time is tokio's: it can be paused.
///
/// ```
/// use sereno_discovery::{Error, FakeWorld, Host, ServiceDirectory, ServiceRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let world = FakeWorld::new();
/// let (registry, directory) = (world.registry(), world.directory());
///
/// let registration = registry.register("api", Host::new("api-1").port("http", 80))?;
/// registration.ready().await?;
/// assert_eq!(directory.url("api", "", "http", "/").await?, "http://api-1:80/");
///
/// world.fail_next(Error::NotReady);
/// assert!(matches!(directory.one("api", "").await, Err(Error::NotReady)));
///
/// registration.stop().await?;
/// assert!(matches!(directory.one("api", "").await, Err(Error::NoHostFound { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct FakeWorld {
    shared: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    services: BTreeMap<String, Known>,
    revision: i64,
    failures: VecDeque<Error>,
    delay: Duration,
}

impl FakeWorld {
    /// A world without any service.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A registry in this world.
    #[must_use]
    pub fn registry(&self) -> FakeRegistry {
        FakeRegistry::new(self.clone())
    }

    /// A directory of this world.
    #[must_use]
    pub fn directory(&self) -> FakeDirectory {
        FakeDirectory::new(self.clone())
    }

    /// The next call of a registry, a registration or a directory of this world fails with this error instead of doing
    /// anything. Of several, each is the answer to one call, in this order.
    pub fn fail_next(&self, error: Error) {
        self.lock().failures.push_back(error);
    }

    /// From now on every asynchronous call takes so long before it does anything. Default: no time.
    pub fn set_delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Takes a host away as if its lease had ended. Whether it was there.
    /// Unlike a real one, its registration does not restore it until it is updated.
    pub fn expire(&self, service: &str, uuid: &str) -> bool {
        let Ok(key) = key(service, uuid) else { return false };
        self.lock().known(service).remove(&key)
    }

    /// Takes all hosts of all services away, and what is said of the services.
    pub fn clear(&self) {
        self.lock().services.values_mut().for_each(Known::clear);
    }

    /// Streams of changes tell a [`Change::Resync`](crate::Change::Resync), as when history was compacted underneath.
    pub fn resync(&self, service: &str) {
        self.lock().known(service).tell(Notice::Resync);
    }

    /// Ends all streams of changes of a service with an error.
    pub fn end_streams(&self, service: &str, error: &Error) {
        self.lock().known(service).end(error);
    }

    /// What every asynchronous call begins with.
    async fn call(&self) -> Result<()> {
        let delay = self.lock().delay;
        if !delay.is_zero() {
            pace::until(pace::now() + delay).await;
        }
        self.fail()
    }

    fn fail(&self) -> Result<()> {
        self.lock().failures.pop_front().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn known(&mut self, service: &str) -> &mut Known {
        self.services.entry(service.to_owned()).or_default()
    }

    /// Stores a host, and what it says of its service. `host` is complete.
    fn register(&mut self, key: &Key, host: &Host) {
        // The record first, as the real one does: so the host has the credentials that it itself has set.
        let differing = self.known(&host.service_name).publish(host);
        let others = differing.into_iter().filter(|(other, _)| other != key);
        for (key, host) in others.chain([(key.clone(), host.clone())]) {
            self.put(key, host);
        }
    }

    fn put(&mut self, key: Key, host: Host) {
        self.revision += 1;
        let revision = self.revision;
        let known = self.known(&host.service_name);
        let created = known.contents.roster.get(&key).map_or(revision, |entry| entry.created);
        let id = spread::hash(key.as_bytes());
        known.put(Entry { id, key, host: Arc::new(host), created, revision });
    }

    /// Takes a host away in order: it is draining first.
    fn deregister(&mut self, service: &str, key: &Key) {
        if let Some(host) = self.host(service, key) {
            if !host.draining {
                self.put(key.clone(), Host { draining: true, ..host });
            }
            self.known(service).remove(key);
        }
    }

    fn host(&mut self, service: &str, key: &Key) -> Option<Host> {
        Some(Host::clone(&self.known(service).contents.roster.get(key)?.host))
    }
}

fn key(service: &str, uuid: &str) -> Result<Key> {
    let keys = Keys::new("/").map_err(sereno_core::Error::from)?;
    Ok(keys.host(service, uuid)?)
}

impl fmt::Debug for FakeWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.lock();
        f.debug_struct("FakeWorld")
            .field("services", &world.services.keys().collect::<Vec<_>>())
            .field("delay", &world.delay)
            .finish_non_exhaustive()
    }
}
