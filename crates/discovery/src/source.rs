//! Where a balancer's hosts come from.

use std::fmt;
use std::sync::Arc;

use sereno_core::{Namespace, spread};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::roster::Roster;

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

/// Hosts that never change.
pub(crate) struct Fixed {
    service: String,
    roster: Roster,
}

impl Fixed {
    pub(crate) fn new(hosts: impl IntoIterator<Item = Host>) -> Self {
        let hosts: Vec<Host> = hosts.into_iter().collect();
        let service = hosts.first().map(|host| host.service_name.clone()).unwrap_or_default();
        let mut roster = Roster::default();
        for (age, host) in (1..).zip(hosts) {
            if let Some(entry) = entry(age, host) {
                roster.put(entry);
            }
        }
        Self { service, roster }
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
        look(0, &self.roster);
    }

    fn nobody(&self, shard: &str) -> Error {
        nobody(&self.roster, &self.service, shard)
    }
}

/// Why there is no host to choose among those of a service that is known.
pub(crate) fn nobody(roster: &Roster, service: &str, shard: &str) -> Error {
    let service = service.to_owned();
    if shard.is_empty() || roster.choosable(None).is_empty() {
        return Error::NoHostFound { service };
    }
    Error::NoHostFoundOnShard { service, shard: shard.to_owned() }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed").field("service", &self.service).field("hosts", &self.roster.len()).finish()
    }
}
