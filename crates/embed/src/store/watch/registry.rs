//! Who watches which keys.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::stream::StreamId;
use crate::store::span::Span;

/// A watch, found by its stream and its id there.
pub(super) type Address = (StreamId, i64);

/// All watches by the keys they are about.
#[derive(Debug, Default)]
pub(super) struct Registry {
    keys: HashMap<Vec<u8>, BTreeSet<Address>>,
    prefixes: HashMap<Vec<u8>, BTreeSet<Address>>,
    /// How many prefixes of each length are watched: only these are looked up.
    lengths: BTreeMap<usize, usize>,
    /// Ranges that are no prefixes are looked at one by one.
    ranges: BTreeMap<Address, Span>,
}

impl Registry {
    /// Adds whoever watches a key.
    pub(super) fn find(&self, key: &[u8], concerned: &mut BTreeSet<Address>) {
        if let Some(watchers) = self.keys.get(key) {
            concerned.extend(watchers);
        }
        for length in self.lengths.keys() {
            let Some(prefix) = key.get(..*length) else { break };
            if let Some(watchers) = self.prefixes.get(prefix) {
                concerned.extend(watchers);
            }
        }
        concerned
            .extend(self.ranges.iter().filter(|(_, span)| span.contains(key)).map(|(watcher, _)| watcher));
    }

    pub(super) fn enlist(&mut self, watcher: Address, span: &Span) {
        match (span, span.prefix()) {
            (Span::Key(key), _) => {
                self.keys.entry(key.clone()).or_default().insert(watcher);
            }
            (_, Some(prefix)) => {
                let watchers = self.prefixes.entry(prefix.to_vec()).or_default();
                if watchers.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                watchers.insert(watcher);
            }
            _ => {
                self.ranges.insert(watcher, span.clone());
            }
        }
    }

    pub(super) fn strike(&mut self, watcher: Address, span: &Span) {
        match (span, span.prefix()) {
            (Span::Key(key), _) => {
                drop_from(&mut self.keys, key, watcher);
            }
            (_, Some(prefix)) => {
                if drop_from(&mut self.prefixes, prefix, watcher)
                    && let Some(count) = self.lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&prefix.len());
                    }
                }
            }
            _ => {
                self.ranges.remove(&watcher);
            }
        }
    }
}

fn drop_from<K: Hash + Eq + Borrow<[u8]>>(
    map: &mut HashMap<K, BTreeSet<Address>>,
    key: &[u8],
    watcher: Address,
) -> bool {
    let Some(watchers) = map.get_mut(key) else { return false };
    watchers.remove(&watcher);
    let empty = watchers.is_empty();
    if empty {
        map.remove(key);
    }
    empty
}
