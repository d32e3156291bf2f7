//! Where a balancer's hosts come from.

use std::sync::Arc;

use sereno_core::{Namespace, spread};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::query::{Contents, Query};
use crate::roster::Roster;
use crate::service::Service;
use crate::view::View;

/// The hosts of one service, as they are known at any time.
pub(crate) trait Source: Send + Sync {
    /// A number that changes whenever the hosts do. It is asked for at each pick, so it must cost next to nothing.
    ///
    /// # Errors
    /// What is known of the hosts must not be served, being too old for instance.
    fn version(&self) -> Result<u64>;

    /// Shows the hosts, once, and the version they are of. `look` calls nothing of the source.
    fn see(&self, look: &mut dyn FnMut(u64, &Roster));

    /// Why there is no host to choose in `shard`; an empty one is all.
    fn nobody(&self, shard: &str) -> Error;
}

impl Source for View {
    fn version(&self) -> Result<u64> {
        self.read(|_, contents| Ok(contents.roster.version()))
    }

    /// Shows nothing when it must not be served: then the next to ask for the version hears why.
    fn see(&self, look: &mut dyn FnMut(u64, &Roster)) {
        let shown = self.read(|_, contents| {
            look(contents.roster.version(), &contents.roster);
            Ok(())
        });
        drop(shown);
    }

    fn nobody(&self, shard: &str) -> Error {
        self.read(|query, contents| Ok(nobody(&query.narrow(shard), contents))).unwrap_or_else(|stale| stale)
    }
}

/// Hosts that never change.
#[derive(Debug)]
pub(crate) struct Fixed {
    query: Query,
    contents: Contents,
}

impl Fixed {
    pub(crate) fn new(hosts: impl IntoIterator<Item = Host>) -> Self {
        let hosts: Vec<Host> = hosts.into_iter().collect();
        let service = hosts.first().map(|host| host.service_name.clone()).unwrap_or_default();
        let record = Some(Arc::new(Service::new(&service)));
        let mut contents = Contents { record, ..Contents::default() };
        for entry in (1..).zip(hosts).filter_map(|(age, host)| entry(age, host)) {
            contents.roster.put(entry);
        }
        Self { query: Query { service, shard: None }, contents }
    }
}

/// Keys go by place, so that of equal hosts each counts; what belongs to a host goes by what it is, wherever it is listed.
/// It is always one: a number is a name.
fn entry(age: i64, host: Host) -> Option<Entry> {
    let identity = format!("{} {} {:?} {}", host.uuid, host.hostname, host.ports, host.private_hostname);
    Some(Entry {
        key: Namespace::default().root().key(age.to_string()).ok()?,
        id: spread::hash(identity.as_bytes()),
        host: Arc::new(host),
        created: age,
        revision: age,
    })
}

impl Source for Fixed {
    fn version(&self) -> Result<u64> {
        Ok(0)
    }

    fn see(&self, look: &mut dyn FnMut(u64, &Roster)) {
        look(0, &self.contents.roster);
    }

    fn nobody(&self, shard: &str) -> Error {
        nobody(&self.query.narrow(shard), &self.contents)
    }
}

/// Why there is no host to choose.
pub(crate) fn nobody(query: &Query, contents: &Contents) -> Error {
    match query.one(contents) {
        Err(error) => error,
        // One has come meanwhile.
        Ok(_) => Error::NoHostFound { service: query.service.clone() },
    }
}
