//! A host that is registered in a fake world.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sereno_core::{CancellationToken, Key};

use super::FakeWorld;
use crate::defaults;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::news::Credentials;
use crate::traits::ServiceRegistration;

/// Dropping it takes the host away.
#[derive(Debug)]
pub(super) struct FakeRegistration {
    world: FakeWorld,
    key: Key,
    service: String,
    uuid: String,
    /// As it was registered or updated last.
    host: Mutex<Host>,
    /// It was stopped, or its registry closed.
    over: CancellationToken,
}

impl FakeRegistration {
    /// `host` is complete.
    pub(super) fn new(world: FakeWorld, key: Key, host: Host, over: CancellationToken) -> Self {
        world.lock().register(&key, &host);
        let (service, uuid) = (host.service_name.clone(), host.uuid.clone());
        Self { world, key, service, uuid, host: Mutex::new(host), over }
    }

    fn check(&self) -> Result<()> {
        if self.over.is_cancelled() { Err(Error::Deregistered) } else { Ok(()) }
    }

    async fn change(&self, change: impl FnOnce(Host) -> Result<Host> + Send) -> Result<()> {
        self.world.call().await?;
        self.check()?;
        let host = change(self.host())?;
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&host);
        self.world.lock().register(&self.key, &host);
        Ok(())
    }

    fn end(&self) {
        if !self.over.is_cancelled() {
            self.over.cancel();
            self.world.lock().deregister(&self.service, &self.key);
        }
    }
}

#[async_trait]
impl ServiceRegistration for FakeRegistration {
    fn service(&self) -> &str {
        &self.service
    }

    fn uuid(&self) -> &str {
        &self.uuid
    }

    fn host(&self) -> Host {
        let stored = self.world.lock().host(&self.service, &self.key);
        stored.unwrap_or_else(|| self.host.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn is_ready(&self) -> bool {
        !self.over.is_cancelled()
    }

    fn credentials(&self) -> Result<Credentials> {
        self.world.fail()?;
        self.check()?;
        let host = self.host();
        if !host.public {
            return Ok(Credentials::default());
        }
        Ok(Credentials { user: host.user, password: host.password })
    }

    async fn ready(&self) -> Result<()> {
        self.world.call().await?;
        self.check()
    }

    async fn update(&self, host: Host) -> Result<()> {
        self.change(|old| {
            let host = defaults::complete(host, &self.service, defaults::machine)?;
            let host = Host { uuid: self.uuid.clone(), draining: old.draining, ..host };
            defaults::check(&host).map(|()| host)
        })
        .await
    }

    async fn drain(&self) -> Result<()> {
        self.change(|old| Ok(Host { draining: true, ..old })).await
    }

    async fn resume(&self) -> Result<()> {
        self.change(|old| Ok(Host { draining: false, ..old })).await
    }

    async fn stop(&self) -> Result<()> {
        self.world.call().await?;
        self.end();
        Ok(())
    }
}

impl Drop for FakeRegistration {
    fn drop(&mut self) {
        self.end();
    }
}
