//! A registry of a fake world.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sereno_core::{CancellationToken, Key, LostReason};

use super::registration::FakeRegistration;
use super::{FakeWorld, key};
use crate::defaults;
use crate::error::Result;
use crate::host::Host;
use crate::traits::{ServiceRegistration, ServiceRegistry};

/// A [`ServiceRegistry`] without etcd: see [`FakeWorld`]. A host is there as soon as it is registered. Clones are the same.
#[derive(Clone, Debug)]
pub struct FakeRegistry {
    world: FakeWorld,
    /// What was registered here: service, key, and whether it is over.
    made: Arc<Mutex<Vec<(String, Key, CancellationToken)>>>,
    closed: CancellationToken,
}

impl FakeRegistry {
    pub(super) fn new(world: FakeWorld) -> Self {
        Self { world, made: Arc::default(), closed: CancellationToken::new() }
    }
}

#[async_trait]
impl ServiceRegistry for FakeRegistry {
    fn register(&self, service: &str, host: Host) -> Result<Box<dyn ServiceRegistration>> {
        self.world.fail()?;
        let mut host = defaults::complete(host, service, defaults::machine)?;
        host.uuid = defaults::uuid(&host);
        defaults::check(&host)?;
        let key = key(service, &host.uuid)?;
        // Under the lock, so that closing misses none.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.is_cancelled() {
            return Err(sereno_core::Error::SessionLost { epoch: 0, reason: LostReason::Closed }.into());
        }
        let over = CancellationToken::new();
        made.retain(|(_, _, over)| !over.is_cancelled());
        made.push((service.to_owned(), key.clone(), over.clone()));
        Ok(Box::new(FakeRegistration::new(self.world.clone(), key, host, over)))
    }

    async fn close(&self) -> Result<()> {
        self.world.call().await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.cancel();
        for (service, key, over) in made.drain(..).filter(|(_, _, over)| !over.is_cancelled()) {
            over.cancel();
            self.world.lock().deregister(&service, &key);
        }
        Ok(())
    }
}
