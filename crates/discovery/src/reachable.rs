//! The hosts of a service that may be sent requests, as they come and go.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::changes::Change;
use crate::host::Host;

/// One stay of one host: another one when it comes back, or is reached otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostKey {
    uuid: Arc<str>,
    number: u64,
}

impl HostKey {
    /// The host's [`Host::uuid`], which says nothing about another stay of it.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uuid)
    }
}

/// What becomes of them.
#[derive(Debug)]
pub(crate) enum Step {
    Insert(HostKey, Arc<Host>),
    Remove(HostKey),
}

/// Who is there. Hosts are told apart by what they are: their `uuid` is what somebody wrote, and two may have the same.
#[derive(Debug, Default)]
pub(crate) struct Reachable {
    stays: HashMap<Arc<str>, Vec<(HostKey, Arc<Host>)>>,
    count: u64,
    steps: VecDeque<Step>,
}

impl Reachable {
    /// The next step of what was taken.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(crate) fn take(&mut self, change: Change) {
        match change {
            Change::Snapshot(hosts) => hosts.into_iter().for_each(|host| self.insert(host)),
            Change::Added(host) => self.insert(host),
            Change::Removed(host) => self.remove(&host),
            Change::Updated { old, new } if is_reached_alike(&old, &new) => self.replace(&old, new),
            Change::Updated { old, new } => {
                self.remove(&old);
                self.insert(new);
            }
            Change::ServiceChanged(_)
            | Change::Malformed { .. }
            | Change::Resync
            | Change::Guarded { .. }
            | Change::Released => {}
        }
    }

    fn insert(&mut self, host: Arc<Host>) {
        if !may_be_sent_requests(&host) {
            return;
        }
        self.count += 1;
        let key = HostKey { uuid: host.uuid.as_str().into(), number: self.count };
        self.stays.entry(key.uuid.clone()).or_default().push((key.clone(), host.clone()));
        self.steps.push_back(Step::Insert(key, host));
    }

    fn remove(&mut self, host: &Host) {
        if let Some((key, _)) = self.forget(host) {
            self.steps.push_back(Step::Remove(key));
        }
    }

    /// The same stay of a host that is a little different.
    fn replace(&mut self, old: &Host, new: Arc<Host>) {
        if let Some((key, _)) = self.forget(old) {
            self.stays.entry(key.uuid.clone()).or_default().push((key, new));
        }
    }

    fn forget(&mut self, host: &Host) -> Option<(HostKey, Arc<Host>)> {
        let stays = self.stays.get_mut(host.uuid.as_str())?;
        let at = stays.iter().position(|(_, known)| **known == *host)?;
        let stay = stays.swap_remove(at);
        if stays.is_empty() {
            self.stays.remove(host.uuid.as_str());
        }
        Some(stay)
    }
}

fn may_be_sent_requests(host: &Host) -> bool {
    !host.draining && host.weight > 0.0
}

/// Whether what was made of one host serves for the other.
fn is_reached_alike(old: &Host, new: &Host) -> bool {
    let Host {
        hostname,
        service_name: _,
        ports,
        user,
        password,
        public,
        private_hostname,
        private_ports,
        critical: _,
        shard,
        uuid,
        weight: _,
        draining: _,
        extra: _,
    } = old;
    may_be_sent_requests(old) == may_be_sent_requests(new)
        && (hostname, private_hostname) == (&new.hostname, &new.private_hostname)
        && (ports, private_ports) == (&new.ports, &new.private_ports)
        && (user, password) == (&new.user, &new.password)
        && (public, shard, uuid) == (&new.public, &new.shard, &new.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, uuid: &str) -> Arc<Host> {
        Arc::new(Host { uuid: uuid.into(), ..Host::new(name).port("http", 80) })
    }

    fn with(host: &Arc<Host>, change: impl FnOnce(&mut Host)) -> Arc<Host> {
        let mut host = Host::clone(host);
        change(&mut host);
        Arc::new(host)
    }

    /// The steps so far, each with the number of its key.
    fn steps(reachable: &mut Reachable) -> Vec<(&'static str, u64)> {
        std::iter::from_fn(|| reachable.next())
            .map(|step| match step {
                Step::Insert(key, _) => ("+", key.number),
                Step::Remove(key) => ("-", key.number),
            })
            .collect()
    }

    #[test]
    fn another_address_is_another_stay_and_another_weight_is_not() {
        let mut reachable = Reachable::default();
        let first = host("a", "u");
        reachable.take(Change::Snapshot(vec![first.clone()]));
        let heavy = with(&first, |host| host.weight = 9.0);
        reachable.take(Change::Updated { old: first, new: heavy.clone() });
        assert_eq!(steps(&mut reachable), [("+", 1)]);
        let moved = with(&heavy, |host| host.hostname = "b".into());
        reachable.take(Change::Updated { old: heavy, new: moved.clone() });
        assert_eq!(steps(&mut reachable), [("-", 1), ("+", 2)]);
        reachable.take(Change::Removed(moved));
        assert_eq!(steps(&mut reachable), [("-", 2)]);
        assert!(reachable.stays.is_empty());
    }

    #[test]
    fn who_drains_or_has_no_weight_is_away() {
        for drains in [true, false] {
            let leave = |host: &mut Host| if drains { host.draining = true } else { host.weight = 0.0 };
            let mut reachable = Reachable::default();
            let first = host("a", "u");
            let away = with(&first, leave);
            reachable.take(Change::Snapshot(vec![away.clone()]));
            assert_eq!(steps(&mut reachable), []);
            reachable.take(Change::Updated { old: away.clone(), new: first.clone() });
            reachable.take(Change::Updated { old: first.clone(), new: away.clone() });
            assert_eq!(steps(&mut reachable), [("+", 1), ("-", 1)]);
            reachable.take(Change::Removed(away));
            reachable.take(Change::Added(first));
            assert_eq!(steps(&mut reachable), [("+", 2)]);
        }
    }

    #[test]
    fn hosts_that_share_a_uuid_are_told_apart() {
        let mut reachable = Reachable::default();
        reachable.take(Change::Snapshot(vec![host("a", ""), host("b", "")]));
        // Equal to what was told, and not the same place in memory.
        reachable.take(Change::Removed(host("b", "")));
        reachable.take(Change::Removed(host("never", "")));
        reachable.take(Change::Removed(host("a", "")));
        assert_eq!(steps(&mut reachable), [("+", 1), ("+", 2), ("-", 2), ("-", 1)]);
    }
}
