//! The hosts of one service in memory: in the order in which they registered, by key, and by shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sereno_core::Key;

use crate::entry::Entry;

/// Hosts in the order in which they registered. Changing one host costs a search and a move of pointers behind it.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// How often it has changed.
    version: u64,
    by_key: HashMap<Key, Arc<Entry>>,
    all: Ranked,
    shards: BTreeMap<String, Ranked>,
}

/// The same hosts twice: all, and those that may be chosen.
#[derive(Debug, Default)]
struct Ranked {
    all: Vec<Arc<Entry>>,
    choosable: Vec<Arc<Entry>>,
}

impl Roster {
    /// Puts a host there, in the place of the one under the same key, which it gives.
    pub(crate) fn put(&mut self, entry: Entry) -> Option<Arc<Entry>> {
        self.version += 1;
        let entry = Arc::new(entry);
        let old = match self.by_key.get(&entry.key) {
            Some(old) if old.sits_as(&entry) => return self.replace(&entry),
            Some(_) => self.remove(&entry.key),
            None => None,
        };
        self.by_key.insert(entry.key.clone(), entry.clone());
        self.all.insert(&entry);
        if !entry.host.shard.is_empty() {
            self.shards.entry(entry.host.shard.clone()).or_default().insert(&entry);
        }
        old
    }

    /// Puts a host exactly where the one before is.
    fn replace(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        self.all.replace(entry);
        if let Some(shard) = self.shards.get_mut(&entry.host.shard) {
            shard.replace(entry);
        }
        self.by_key.insert(entry.key.clone(), entry.clone())
    }

    /// Takes a host away, and gives it.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let old = self.by_key.remove(key)?;
        self.version += 1;
        self.all.remove(&old);
        if let Some(shard) = self.shards.get_mut(&old.host.shard) {
            shard.remove(&old);
            if shard.all.is_empty() {
                self.shards.remove(&old.host.shard);
            }
        }
        Some(old)
    }

    /// One host.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.by_key.get(key)
    }

    /// All hosts of a shard, or of all shards, oldest registration first.
    pub(crate) fn all(&self, shard: Option<&str>) -> &[Arc<Entry>] {
        self.ranked(shard).map_or(&[], |ranked| &ranked.all)
    }

    /// As [`Roster::all`], without those that are draining.
    pub(crate) fn choosable(&self, shard: Option<&str>) -> &[Arc<Entry>] {
        self.ranked(shard).map_or(&[], |ranked| &ranked.choosable)
    }

    /// A number that changes whenever a host does.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// An empty shard name is none.
    fn ranked(&self, shard: Option<&str>) -> Option<&Ranked> {
        match shard.filter(|shard| !shard.is_empty()) {
            None => Some(&self.all),
            Some(shard) => self.shards.get(shard),
        }
    }
}

impl Ranked {
    fn insert(&mut self, entry: &Arc<Entry>) {
        insert(&mut self.all, entry);
        if !entry.host.draining {
            insert(&mut self.choosable, entry);
        }
    }

    fn replace(&mut self, entry: &Arc<Entry>) {
        for entries in [&mut self.all, &mut self.choosable] {
            if let Some(place) = find(entries, entry).and_then(|at| entries.get_mut(at)) {
                *place = entry.clone();
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        remove(&mut self.all, entry);
        remove(&mut self.choosable, entry);
    }
}

fn insert(entries: &mut Vec<Arc<Entry>>, entry: &Arc<Entry>) {
    let at = entries.partition_point(|other| other.rank() < entry.rank());
    entries.insert(at, entry.clone());
}

fn remove(entries: &mut Vec<Arc<Entry>>, entry: &Entry) {
    if let Some(at) = find(entries, entry) {
        entries.remove(at);
    }
}

fn find(entries: &[Arc<Entry>], entry: &Entry) -> Option<usize> {
    entries.binary_search_by(|other| other.rank().cmp(&entry.rank())).ok()
}

#[cfg(test)]
mod tests {
    use sereno_core::{Namespace, spread};

    use super::*;
    use crate::host::Host;

    fn entry(name: &str, created: i64, host: Host) -> Entry {
        let key = Namespace::default().prefix("services").unwrap().key(name).unwrap();
        Entry { id: spread::hash(key.as_bytes()), key, host: Arc::new(host), created, revision: created }
    }

    fn names(entries: &[Arc<Entry>]) -> Vec<&str> {
        entries.iter().map(|entry| entry.host.hostname.as_str()).collect()
    }

    #[test]
    fn hosts_stand_in_the_order_of_their_registrations_whatever_becomes_of_them() {
        let mut roster = Roster::default();
        assert!(roster.put(entry("c", 1, Host::new("c"))).is_none());
        roster.put(entry("b", 3, Host::new("b").shard("x")));
        roster.put(entry("a", 2, Host::new("a").shard("x")));
        assert_eq!(names(roster.all(None)), ["c", "a", "b"]);
        assert_eq!(names(roster.all(Some("x"))), ["a", "b"]);
        assert!(roster.all(Some("y")).is_empty());

        let old = roster.put(Entry { revision: 9, ..entry("a", 2, Host::new("a2").shard("x")) });
        assert_eq!(old.unwrap().host.hostname, "a");
        assert_eq!(names(roster.all(None)), ["c", "a2", "b"]);
        assert_eq!(names(roster.choosable(Some("x"))), ["a2", "b"]);

        let mut leaving = Host::new("a3").shard("y");
        leaving.draining = true;
        roster.put(entry("a", 2, leaving));
        assert_eq!(names(roster.all(None)), ["c", "a3", "b"]);
        assert_eq!(names(roster.choosable(None)), ["c", "b"]);
        assert_eq!(names(roster.all(Some("x"))), ["b"]);
        assert_eq!((names(roster.all(Some("y"))).len(), roster.choosable(Some("y")).len()), (1, 0));

        roster.put(entry("c", 7, Host::new("c again")));
        assert_eq!(names(roster.all(None)), ["a3", "b", "c again"]);
        let key = entry("a", 0, Host::default()).key;
        assert_eq!(roster.remove(&key).unwrap().host.hostname, "a3");
        assert!(roster.remove(&key).is_none());
        assert_eq!((names(roster.all(None)), roster.len()), (vec!["b", "c again"], 2));
    }
}
