//! The keys there are now, in order, with their ranks.
//!
//! etcd tells with every answer how many keys a range has, however few of them were asked for. A plain tree would have to
//! count them one by one; here the order is kept in chunks, and a Fenwick tree over their lengths gives the rank of any key.

use std::cmp::Ordering;
use std::sync::Arc;

use etcd_client::proto::PbKeyValue;

use super::span::Span;

/// One version of a key, shared by whoever still needs it.
pub(crate) type Version = Arc<PbKeyValue>;

/// How many keys a chunk may have before it is split in two.
const CHUNK: usize = 512;

/// All live keys. Lookups, insertions, removals and counts take logarithmic time.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// None is empty.
    chunks: Vec<Vec<Version>>,
    lengths: Fenwick,
}

/// Where a key is, or would be.
struct Place {
    chunk: usize,
    slot: usize,
    found: bool,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.lengths.before(self.chunks.len())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Version> {
        let place = self.place(key);
        if place.found { self.at(place.chunk, place.slot) } else { None }
    }

    /// Puts a version in the place of the key's former one, which is returned.
    pub(crate) fn insert(&mut self, version: Version) -> Option<Version> {
        let place = self.place(&version.key);
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            self.chunks.push(vec![version]);
            self.lengths = Fenwick::of(&self.chunks);
            return None;
        };
        if place.found {
            return chunk.get_mut(place.slot).map(|old| std::mem::replace(old, version));
        }
        chunk.insert(place.slot, version);
        if chunk.len() <= CHUNK {
            self.lengths.add(place.chunk, 1);
        } else {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(place.chunk + 1, upper);
            self.lengths = Fenwick::of(&self.chunks);
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Version> {
        let place = self.place(key);
        if !place.found {
            return None;
        }
        let chunk = self.chunks.get_mut(place.chunk)?;
        let version = chunk.remove(place.slot);
        if chunk.is_empty() {
            self.chunks.remove(place.chunk);
            self.lengths = Fenwick::of(&self.chunks);
        } else {
            self.lengths.remove(place.chunk, 1);
        }
        Some(version)
    }

    /// How many keys are in a span.
    pub(crate) fn count(&self, span: &Span) -> usize {
        match span {
            Span::Key(key) => usize::from(self.get(key).is_some()),
            Span::From(start) => self.len() - self.rank(start),
            Span::Range(start, end) => self.rank(end).saturating_sub(self.rank(start)),
        }
    }

    /// The keys of a span, in order.
    pub(crate) fn range<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Version> {
        let place = self.place(span.start());
        let first = self.chunks.get(place.chunk).and_then(|chunk| chunk.get(place.slot..));
        let rest = self.chunks.get(place.chunk + 1..).unwrap_or_default();
        let rest = rest.iter().map(Vec::as_slice);
        first.into_iter().chain(rest).flatten().take_while(|version| span.reaches(&version.key))
    }

    /// How many keys are before this one.
    fn rank(&self, key: &[u8]) -> usize {
        let place = self.place(key);
        self.lengths.before(place.chunk) + place.slot
    }

    fn at(&self, chunk: usize, slot: usize) -> Option<&Version> {
        self.chunks.get(chunk)?.get(slot)
    }

    fn place(&self, key: &[u8]) -> Place {
        // The last chunk whose first key is not after this one.
        let after = self.chunks.partition_point(|chunk| match chunk.first() {
            Some(first) => first.key.as_slice() <= key,
            None => true,
        });
        let chunk = after.saturating_sub(1);
        let Some(versions) = self.chunks.get(chunk) else { return Place { chunk, slot: 0, found: false } };
        let order = |version: &Version| -> Ordering { version.key.as_slice().cmp(key) };
        match versions.binary_search_by(order) {
            Ok(slot) => Place { chunk, slot, found: true },
            Err(slot) => Place { chunk, slot, found: false },
        }
    }
}

/// Sums of the lengths of the first n chunks, in logarithmic time.
#[derive(Debug, Default)]
struct Fenwick {
    sums: Vec<usize>,
}

impl Fenwick {
    fn of(chunks: &[Vec<Version>]) -> Self {
        let mut sums: Vec<usize> = chunks.iter().map(Vec::len).collect();
        for index in 0..sums.len() {
            let parent = index | (index + 1);
            let sum = sums.get(index).copied().unwrap_or(0);
            if let Some(above) = sums.get_mut(parent) {
                *above += sum;
            }
        }
        Self { sums }
    }

    fn add(&mut self, mut index: usize, count: usize) {
        while let Some(sum) = self.sums.get_mut(index) {
            *sum += count;
            index |= index + 1;
        }
    }

    fn remove(&mut self, mut index: usize, count: usize) {
        while let Some(sum) = self.sums.get_mut(index) {
            *sum -= count;
            index |= index + 1;
        }
    }

    /// The sum of the first `count` lengths.
    fn before(&self, count: usize) -> usize {
        let mut end = count;
        let mut total = 0;
        while end > 0 {
            total += self.sums.get(end - 1).copied().unwrap_or(0);
            end &= end - 1;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    fn version(key: u16, mod_revision: i64) -> Version {
        Arc::new(PbKeyValue { key: key.to_be_bytes().to_vec(), mod_revision, ..PbKeyValue::default() })
    }

    #[test]
    fn many_keys_in_any_order_keep_their_ranks() {
        let mut index = Index::default();
        for step in 0..5000_u16 {
            let key = u16::try_from(u32::from(step) * 7919 % 5000).unwrap();
            assert!(index.insert(version(key, 1)).is_none());
        }
        assert_eq!(index.len(), 5000);
        for key in 0..5000_u16 {
            assert_eq!(index.rank(&key.to_be_bytes()), usize::from(key));
        }
        for key in (0..5000_u16).filter(|key| key % 3 != 0) {
            assert!(index.remove(&key.to_be_bytes()).is_some());
            assert!(index.remove(&key.to_be_bytes()).is_none());
        }
        assert_eq!(index.len(), 1667);
        assert_eq!(index.rank(&3000_u16.to_be_bytes()), 1000);
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_the_standard_library(
            steps in proptest::collection::vec((any::<bool>(), 0..2000_u16, any::<i64>()), 0..3000),
            bounds in proptest::collection::vec((0..2000_u16, 0..2000_u16), 20),
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (put, key, mark) in steps {
                let old = if put { index.insert(version(key, mark)) } else { index.remove(&key.to_be_bytes()) };
                let expected = if put { model.insert(key, mark) } else { model.remove(&key) };
                prop_assert_eq!(old.map(|old| old.mod_revision), expected);
            }
            prop_assert_eq!(index.len(), model.len());
            for (start, end) in bounds {
                let span = Span::new(start.to_be_bytes().to_vec(), end.to_be_bytes().to_vec());
                let expected: Vec<i64> = if start < end {
                    model.range((Bound::Included(start), Bound::Excluded(end))).map(|(_, mark)| *mark).collect()
                } else {
                    Vec::new()
                };
                prop_assert_eq!(index.count(&span), expected.len());
                let found: Vec<i64> = index.range(&span).map(|version| version.mod_revision).collect();
                prop_assert_eq!(found, expected);
                let found = index.get(&start.to_be_bytes()).map(|version| version.mod_revision);
                prop_assert_eq!(found, model.get(&start).copied());
            }
        }
    }
}
