//! Registry and directory as traits, for code that is to be tested without etcd.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::Stream;

use crate::balancer::Balancer;
use crate::balancer_options::BalancerOptions;
use crate::changes::Change;
use crate::directory::Directory;
use crate::error::Result;
use crate::host::Host;
use crate::news::Credentials;
use crate::registration::Registration;
use crate::registry::Registry;
use crate::service::Service;

/// The changes of a service: [`Changes`](crate::Changes), or another stream that keeps its rules.
pub type ChangeStream = Pin<Box<dyn Stream<Item = Result<Change>> + Send>>;

/// Where hosts are registered: [`Registry`] or, in tests, [`FakeRegistry`](crate::FakeRegistry).
#[async_trait]
pub trait ServiceRegistry: fmt::Debug + Send + Sync {
    /// As [`Registry::register`].
    ///
    /// # Errors
    /// As [`Registry::register`].
    fn register(&self, service: &str, host: Host) -> Result<Box<dyn ServiceRegistration>>;

    /// As [`Registry::close`].
    ///
    /// # Errors
    /// As [`Registry::close`].
    ///
    /// # Cancel safety
    /// As [`Registry::close`].
    async fn close(&self) -> Result<()>;
}

/// A registered host: [`Registration`] or, in tests, one of [`FakeRegistry`](crate::FakeRegistry). Dropping it takes the
/// host away.
#[async_trait]
pub trait ServiceRegistration: fmt::Debug + Send + Sync {
    /// The service's name.
    fn service(&self) -> &str;

    /// As [`Registration::uuid`].
    fn uuid(&self) -> &str;

    /// As [`Registration::host`].
    fn host(&self) -> Host;

    /// As [`Registration::is_ready`].
    fn is_ready(&self) -> bool;

    /// As [`Registration::credentials`].
    ///
    /// # Errors
    /// As [`Registration::credentials`].
    fn credentials(&self) -> Result<Credentials>;

    /// As [`Registration::ready`].
    ///
    /// # Errors
    /// As [`Registration::ready`].
    ///
    /// # Cancel safety
    /// As [`Registration::ready`].
    async fn ready(&self) -> Result<()>;

    /// As [`Registration::update`].
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// As [`Registration::update`].
    async fn update(&self, host: Host) -> Result<()>;

    /// As [`Registration::drain`].
    ///
    /// # Errors
    /// As [`Registration::drain`].
    ///
    /// # Cancel safety
    /// As [`Registration::drain`].
    async fn drain(&self) -> Result<()>;

    /// As [`Registration::resume`].
    ///
    /// # Errors
    /// As [`Registration::resume`].
    ///
    /// # Cancel safety
    /// As [`Registration::resume`].
    async fn resume(&self) -> Result<()>;

    /// As [`Registration::stop`].
    ///
    /// # Errors
    /// As [`Registration::stop`].
    ///
    /// # Cancel safety
    /// As [`Registration::stop`].
    async fn stop(&self) -> Result<()>;
}

/// Where services are looked up: [`Directory`] or, in tests, [`FakeDirectory`](crate::FakeDirectory). An empty `shard` is
/// all of them.
#[async_trait]
pub trait ServiceDirectory: fmt::Debug + Send + Sync {
    /// As [`Lookup::get`](crate::Lookup::get).
    ///
    /// # Errors
    /// As [`Lookup::get`](crate::Lookup::get).
    ///
    /// # Cancel safety
    /// As [`Lookup::get`](crate::Lookup::get).
    async fn get(&self, service: &str) -> Result<Arc<Service>>;

    /// As [`Lookup::all`](crate::Lookup::all).
    ///
    /// # Errors
    /// As [`Lookup::all`](crate::Lookup::all).
    ///
    /// # Cancel safety
    /// As [`Lookup::all`](crate::Lookup::all).
    async fn all(&self, service: &str, shard: &str) -> Result<Vec<Arc<Host>>>;

    /// As [`Lookup::first`](crate::Lookup::first).
    ///
    /// # Errors
    /// As [`Lookup::first`](crate::Lookup::first).
    ///
    /// # Cancel safety
    /// As [`Lookup::first`](crate::Lookup::first).
    async fn first(&self, service: &str, shard: &str) -> Result<Arc<Host>>;

    /// As [`Lookup::one`](crate::Lookup::one).
    ///
    /// # Errors
    /// As [`Lookup::one`](crate::Lookup::one).
    ///
    /// # Cancel safety
    /// As [`Lookup::one`](crate::Lookup::one).
    async fn one(&self, service: &str, shard: &str) -> Result<Arc<Host>>;

    /// As [`Lookup::url`](crate::Lookup::url).
    ///
    /// # Errors
    /// As [`Lookup::url`](crate::Lookup::url).
    ///
    /// # Cancel safety
    /// As [`Lookup::url`](crate::Lookup::url).
    async fn url(&self, service: &str, shard: &str, scheme: &str, path: &str) -> Result<String>;

    /// As [`Lookup::watch`](crate::Lookup::watch).
    ///
    /// # Errors
    /// As [`Lookup::watch`](crate::Lookup::watch).
    ///
    /// # Cancel safety
    /// As [`Lookup::watch`](crate::Lookup::watch).
    async fn watch(&self, service: &str, shard: &str) -> Result<ChangeStream>;

    /// Follows a service and chooses among its hosts, with [`BalancerOptions::shard`] among those of a shard.
    ///
    /// # Errors
    /// As [`Directory::follow`].
    ///
    /// # Cancel safety
    /// As [`Directory::follow`].
    async fn balancer(&self, service: &str, options: BalancerOptions) -> Result<Balancer>;
}

#[async_trait]
impl ServiceRegistry for Registry {
    fn register(&self, service: &str, host: Host) -> Result<Box<dyn ServiceRegistration>> {
        Ok(Box::new(Registry::register(self, service, host)?))
    }

    async fn close(&self) -> Result<()> {
        Registry::close(self).await
    }
}

#[async_trait]
impl ServiceRegistration for Registration {
    fn service(&self) -> &str {
        Registration::service(self)
    }

    fn uuid(&self) -> &str {
        Registration::uuid(self)
    }

    fn host(&self) -> Host {
        Registration::host(self)
    }

    fn is_ready(&self) -> bool {
        Registration::is_ready(self)
    }

    fn credentials(&self) -> Result<Credentials> {
        Registration::credentials(self)
    }

    async fn ready(&self) -> Result<()> {
        Registration::ready(self).await
    }

    async fn update(&self, host: Host) -> Result<()> {
        Registration::update(self, host).await
    }

    async fn drain(&self) -> Result<()> {
        Registration::drain(self).await
    }

    async fn resume(&self) -> Result<()> {
        Registration::resume(self).await
    }

    async fn stop(&self) -> Result<()> {
        Registration::stop(self).await
    }
}

#[async_trait]
impl ServiceDirectory for Directory {
    async fn get(&self, service: &str) -> Result<Arc<Service>> {
        self.service(service).get().await
    }

    async fn all(&self, service: &str, shard: &str) -> Result<Vec<Arc<Host>>> {
        self.service(service).shard(shard).all().await
    }

    async fn first(&self, service: &str, shard: &str) -> Result<Arc<Host>> {
        self.service(service).shard(shard).first().await
    }

    async fn one(&self, service: &str, shard: &str) -> Result<Arc<Host>> {
        self.service(service).shard(shard).one().await
    }

    async fn url(&self, service: &str, shard: &str, scheme: &str, path: &str) -> Result<String> {
        self.service(service).shard(shard).url(scheme, path).await
    }

    async fn watch(&self, service: &str, shard: &str) -> Result<ChangeStream> {
        Ok(Box::pin(self.service(service).shard(shard).watch().await?))
    }

    async fn balancer(&self, service: &str, options: BalancerOptions) -> Result<Balancer> {
        Ok(Balancer::new(&self.follow(service).await?, options))
    }
}
