//! The hosts of one service in memory: in the order in which they registered, by key, and by shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sereno_core::Key;

use crate::entry::Entry;

/// Hosts in the order in which they registered. Changing one host costs a search and a move of pointers behind it.
#[derive(Debug, Default)]
pub(crate) struct Roster {
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
        let old = self.remove(&entry.key);
        let entry = Arc::new(entry);
        self.by_key.insert(entry.key.clone(), entry.clone());
        self.all.insert(&entry);
        if !entry.host.shard.is_empty() {
            self.shards.entry(entry.host.shard.clone()).or_default().insert(&entry);
        }
        old
    }

    /// Takes a host away, and gives it.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let old = self.by_key.remove(key)?;
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
    if let Ok(at) = entries.binary_search_by(|other| other.rank().cmp(&entry.rank())) {
        entries.remove(at);
    }
}
