//! A directory of a fake world.

use std::sync::Arc;

use async_trait::async_trait;

use super::FakeWorld;
use super::changes::FakeChanges;
use crate::balancer::Balancer;
use crate::balancer_options::BalancerOptions;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::query::{Contents, Query};
use crate::roster::Roster;
use crate::service::Service;
use crate::source::{self, Source};
use crate::traits::{ChangeStream, ServiceDirectory};

/// A [`ServiceDirectory`] without etcd: see [`FakeWorld`]. Clones are the same.
#[derive(Clone, Debug)]
pub struct FakeDirectory {
    world: FakeWorld,
}

impl FakeDirectory {
    pub(super) fn new(world: FakeWorld) -> Self {
        Self { world }
    }

    async fn ask<T>(
        &self,
        service: &str,
        shard: &str,
        answer: impl FnOnce(&Query, &Contents) -> Result<T> + Send,
    ) -> Result<T> {
        self.world.call().await?;
        super::key(service, "any")?;
        let query = query(service, shard);
        answer(&query, &self.world.lock().known(service).contents)
    }
}

fn query(service: &str, shard: &str) -> Query {
    Query { service: service.to_owned(), shard: None }.narrow(shard)
}

#[async_trait]
impl ServiceDirectory for FakeDirectory {
    async fn get(&self, service: &str) -> Result<Arc<Service>> {
        self.ask(service, "", Query::service).await
    }

    async fn all(&self, service: &str, shard: &str) -> Result<Vec<Arc<Host>>> {
        self.ask(service, shard, Query::all).await
    }

    async fn first(&self, service: &str, shard: &str) -> Result<Arc<Host>> {
        self.ask(service, shard, Query::first).await
    }

    async fn one(&self, service: &str, shard: &str) -> Result<Arc<Host>> {
        self.ask(service, shard, Query::one).await
    }

    async fn url(&self, service: &str, shard: &str, scheme: &str, path: &str) -> Result<String> {
        self.ask(service, shard, |query, contents| query.url(contents, scheme, path)).await
    }

    async fn watch(&self, service: &str, shard: &str) -> Result<ChangeStream> {
        self.ask(service, shard, |_, _| Ok(())).await?;
        Ok(Box::pin(FakeChanges::new(self.world.clone(), &query(service, shard))))
    }

    async fn balancer(&self, service: &str, options: BalancerOptions) -> Result<Balancer> {
        self.ask(service, "", |_, _| Ok(())).await?;
        let hosts = Hosts { world: self.world.clone(), service: service.to_owned() };
        Ok(Balancer::over(hosts, options))
    }
}

/// The hosts of a service, for a balancer.
struct Hosts {
    world: FakeWorld,
    service: String,
}

impl Source for Hosts {
    fn version(&self) -> Result<u64> {
        Ok(self.world.lock().known(&self.service).contents.roster.version())
    }

    fn see(&self, look: &mut dyn FnMut(u64, &Roster)) {
        let mut world = self.world.lock();
        let roster = &world.known(&self.service).contents.roster;
        look(roster.version(), roster);
    }

    fn nobody(&self, shard: &str) -> Error {
        let mut world = self.world.lock();
        source::nobody(&query(&self.service, shard), &world.known(&self.service).contents)
    }
}
