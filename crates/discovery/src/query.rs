//! What is asked of a service, and what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use sereno_core::{Key, chance};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::roster::Roster;
use crate::service::Service;

/// A service, or one shard of it.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) service: String,
    pub(crate) shard: Option<String>,
}

/// What is known of a service.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) roster: Roster,
    pub(crate) record: Option<Arc<Service>>,
    /// The entries among the hosts that cannot be read, and why.
    pub(crate) malformed: BTreeMap<Key, Arc<str>>,
}

impl Query {
    /// An empty shard name is none.
    pub(crate) fn narrow(&self, shard: impl Into<String>) -> Self {
        let shard = Some(shard.into()).filter(|shard| !shard.is_empty());
        Self { service: self.service.clone(), shard }
    }

    pub(crate) fn shard(&self) -> Option<&str> {
        self.shard.as_deref()
    }

    pub(crate) fn all(&self, contents: &Contents) -> Result<Vec<Arc<Host>>> {
        let hosts = contents.roster.all(self.shard());
        if hosts.is_empty() {
            return Err(self.nothing(contents));
        }
        Ok(hosts.iter().map(|entry| entry.host.clone()).collect())
    }

    pub(crate) fn first(&self, contents: &Contents) -> Result<Arc<Host>> {
        let first = contents.roster.all(self.shard()).first();
        first.map(|entry| entry.host.clone()).ok_or_else(|| self.nothing(contents))
    }

    pub(crate) fn one(&self, contents: &Contents) -> Result<Arc<Host>> {
        let hosts = contents.roster.choosable(self.shard());
        let one = hosts.get(chance::below(hosts.len()));
        one.map(|entry| entry.host.clone()).ok_or_else(|| self.nothing(contents))
    }

    pub(crate) fn service(&self, contents: &Contents) -> Result<Arc<Service>> {
        match &contents.record {
            Some(record) => Ok(record.clone()),
            None if contents.roster.len() > 0 => Ok(Arc::new(Service::new(&self.service))),
            None => Err(self.nothing(contents)),
        }
    }

    pub(crate) fn url(&self, contents: &Contents, scheme: &str, path: &str) -> Result<String> {
        match self.public(contents.record.as_deref()) {
            Some(service) => service.url(scheme, path),
            None => self.one(contents)?.url(scheme, path),
        }
    }

    /// The service, if its own URL is the answer to this query.
    pub(crate) fn public<'a>(&self, record: Option<&'a Service>) -> Option<&'a Service> {
        record.filter(|record| record.public && self.shard.is_none())
    }

    /// Why there is nothing.
    fn nothing(&self, contents: &Contents) -> Error {
        let service = self.service.clone();
        if let (0, Some((key, reason))) = (contents.roster.len(), contents.malformed.first_key_value()) {
            let (key, reason) = (key.to_string(), reason.to_string());
            return Error::NoReadableHost { service, malformed: contents.malformed.len(), key, reason };
        }
        match &self.shard {
            _ if contents.roster.len() == 0 && contents.record.is_none() => Error::NoServiceFound { service },
            Some(shard) if contents.roster.len() > 0 => {
                Error::NoHostFoundOnShard { service, shard: shard.clone() }
            }
            _ => Error::NoHostFound { service },
        }
    }
}
