//! A local copy of a range, as of one revision.

use std::collections::BTreeMap;

use super::event::{Changes, EventKind};
use super::watcher::Change;
use crate::key::Key;
use crate::kv::{KeyValue, Snapshot};

/// A range as it was at [`View::revision`].
#[derive(Debug, Clone, Default)]
pub struct View {
    revision: i64,
    entries: BTreeMap<Key, KeyValue>,
}

impl View {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let entries = snapshot.entries.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        Self { revision: snapshot.revision, entries }
    }

    /// The revision up to which every change is in.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// One key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&KeyValue> {
        self.entries.get(key)
    }

    /// All keys, in key order.
    pub fn iter(&self) -> impl Iterator<Item = &KeyValue> {
        self.entries.values()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn apply(&mut self, changes: Changes) -> Vec<Change> {
        self.revision = self.revision.max(changes.revision);
        let apply = |event: super::event::Event| match event.kind {
            EventKind::Put => {
                let old = self.entries.insert(event.kv.key.clone(), event.kv.clone());
                Some(Change::Put { old, new: event.kv })
            }
            EventKind::Delete => {
                let old = self.entries.remove(&event.kv.key)?;
                Some(Change::Deleted { old })
            }
        };
        changes.events.into_iter().filter_map(apply).collect()
    }

    /// Replaces the view by a later reading and gives the difference. A key that was deleted and created again in
    /// between is a deletion and a put.
    pub(crate) fn replace(&mut self, snapshot: Snapshot) -> Vec<Change> {
        let later = Self::new(snapshot);
        let mut changes = Vec::new();
        for (key, old) in &self.entries {
            match later.entries.get(key) {
                Some(new) if new.create_revision == old.create_revision => {}
                _ => changes.push(Change::Deleted { old: old.clone() }),
            }
        }
        let mut puts: Vec<_> = Vec::new();
        for (key, new) in &later.entries {
            let old = self.entries.get(key).filter(|old| old.create_revision == new.create_revision);
            if old.is_none_or(|old| old.mod_revision != new.mod_revision) {
                puts.push(Change::Put { old: old.cloned(), new: new.clone() });
            }
        }
        puts.sort_by_key(Change::revision);
        changes.extend(puts);
        *self = later;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, create: i64, modified: i64) -> KeyValue {
        KeyValue {
            key: Key::from_store(key.as_bytes().to_vec()),
            value: "v".into(),
            create_revision: create,
            mod_revision: modified,
            version: 1,
            lease: 0,
        }
    }

    fn snapshot(revision: i64, entries: Vec<KeyValue>) -> Snapshot {
        Snapshot { revision, entries }
    }

    #[test]
    fn replacing_gives_exactly_the_difference() {
        let mut view =
            View::new(snapshot(9, vec![kv("gone", 1, 1), kv("same", 2, 2), kv("new", 3, 3), kv("re", 4, 4)]));
        let later = vec![kv("added", 20, 20), kv("new", 3, 15), kv("re", 12, 12), kv("same", 2, 2)];
        let changes = view.replace(snapshot(30, later));
        let told: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Put { old, new } => format!("put {} {}", new.key, old.is_some()),
                Change::Deleted { old } => format!("deleted {}", old.key),
            })
            .collect();
        assert_eq!(told, ["deleted gone", "deleted re", "put re false", "put new true", "put added false"]);
        assert_eq!(view.revision(), 30);
        assert_eq!(view.len(), 4);
    }

    #[test]
    fn a_deletion_of_what_was_not_there_is_no_change() {
        let mut view = View::default();
        let event = super::super::Event { kind: EventKind::Delete, kv: kv("x", 0, 5) };
        assert!(view.apply(Changes { revision: 5, events: vec![event] }).is_empty());
        assert_eq!(view.revision(), 5);
    }
}
