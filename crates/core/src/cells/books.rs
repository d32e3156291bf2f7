//! What is stored, and what it comes to.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::kv::KeyValue;

/// No stored number is larger; so the sum of all that fit into a store cannot overflow.
const LARGEST: i128 = 1 << 100;

/// The one key that says what the cells count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) value: i128,
    pub(super) generation: u64,
    /// The value is so near the end of `i64` that every addition must be checked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) exact: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<Ttl>,
    /// The number of times the value was removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) removals: u64,
    /// The value was removed, and on this lease the base goes as well. Whoever writes next begins a base without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed: Option<Ttl>,
}

impl Base {
    /// The lease that what is written with this base goes on.
    pub(super) fn lease(&self) -> Option<Ttl> {
        self.removed.or(self.ttl)
    }
}

/// The lease that everything below the prefix lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ttl {
    pub(super) lease: i64,
    pub(super) seconds: u64,
}

/// What one worker has counted in one epoch since its cell was last folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cell {
    pub(super) total: i128,
    /// The worker's last operation.
    pub(super) seq: u64,
    pub(super) generation: u64,
}

/// What became of a cell whose session was found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) total: i128,
    pub(super) seq: u64,
    pub(super) generation: u64,
    /// When the cell was last written.
    pub(super) revision: i64,
}

/// A cell as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) cell: Cell,
    pub(super) modified: i64,
}

/// Everything below the prefix as of one revision.
#[derive(Debug, Clone)]
pub(super) struct Books {
    pub(super) revision: i64,
    pub(super) base: Base,
    /// When the base was last written; 0 if there is none, then `base` is the one to begin with.
    pub(super) base_modified: i64,
    pub(super) cells: Vec<Found>,
    receipts: Vec<KeyValue>,
    entries: Vec<KeyValue>,
    /// Whether the entries, too, are those of `revision`.
    pub(super) whole: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Books {
    /// Makes sense of a complete reading.
    pub(super) fn read<'a>(
        layout: &Layout,
        revision: i64,
        kvs: impl IntoIterator<Item = &'a KeyValue>,
    ) -> Result<Self> {
        let base = Base { value: 0, generation: 1, exact: false, ttl: None, removals: 0, removed: None };
        let mut books = Self {
            revision,
            base,
            base_modified: 0,
            cells: Vec::new(),
            receipts: Vec::new(),
            entries: Vec::new(),
            whole: true,
        };
        for kv in kvs {
            if kv.key == layout.base {
                books.base = parse(kv)?;
                check(kv, books.base.value)?;
                books.base_modified = kv.mod_revision;
            } else if layout.cells.contains(&kv.key) {
                books.cells.push(cell(layout, kv)?);
            } else if layout.folded.contains(&kv.key) {
                books.receipts.push(kv.clone());
            } else {
                books.entries.push(kv.clone());
            }
        }
        if books.base_modified == 0 {
            // Cells without a base: somebody deleted it, and with it what they counted from.
            let last = books.cells.iter().map(|found| found.cell.generation).max().unwrap_or(0);
            books.base.generation = last.saturating_add(1);
        }
        Ok(books)
    }

    /// Takes in a reading of the cells alone, made in the transaction of `revision`.
    pub(super) fn renew_cells(&mut self, layout: &Layout, revision: i64, kvs: &[KeyValue]) -> Result<()> {
        let cells: Result<Vec<_>> = kvs.iter().map(|kv| cell(layout, kv)).collect();
        self.cells = cells?;
        self.revision = revision;
        self.whole = false;
        Ok(())
    }

    /// The base and all cells of its generation.
    pub(super) fn value(&self) -> i128 {
        self.cells
            .iter()
            .filter(|found| found.cell.generation == self.base.generation)
            .fold(self.base.value, |sum, found| sum + found.cell.total)
    }

    pub(super) fn cell(&self, name: &str) -> Option<&Found> {
        self.cells.iter().find(|found| found.name == name)
    }

    /// What a cell adds to the value: nothing when it is not there or of an earlier generation.
    pub(super) fn share(&self, name: &str) -> i128 {
        match self.cell(name) {
            Some(found) if found.cell.generation == self.base.generation => found.cell.total,
            _ => 0,
        }
    }

    pub(super) fn receipt(&self, key: &Key) -> Result<Option<Receipt>> {
        self.receipts.iter().find(|kv| kv.key == *key).map(parse).transpose()
    }

    /// True when the next write begins a base of its own: none is there, or one that only refuses late copies.
    pub(super) fn begins(&self) -> bool {
        self.base_modified == 0 || self.base.removed.is_some()
    }

    pub(super) fn tally(&self) -> Tally {
        let epochs = self.cells.iter().filter_map(|found| found.name.split_once('-'));
        let epochs: BTreeSet<&str> = epochs.map(|(epoch, _)| epoch).collect();
        Tally {
            value: self.value(),
            generation: self.base.generation,
            removals: self.base.removals,
            revision: self.revision,
            base_revision: if self.begins() { 0 } else { self.base_modified },
            cells: self.cells.len(),
            epochs: epochs.into_iter().map(str::to_owned).collect(),
            entries: self.entries.clone(),
        }
    }
}

fn cell(layout: &Layout, kv: &KeyValue) -> Result<Found> {
    let name = layout.cells.child(&kv.key).filter(|name| layout.owner(name).is_some());
    let Some(name) = name else { return Err(malformed(kv, "not the name of a cell")) };
    let cell: Cell = parse(kv)?;
    check(kv, cell.total)?;
    Ok(Found { name, key: kv.key.clone(), cell, modified: kv.mod_revision })
}

fn check(kv: &KeyValue, number: i128) -> Result<()> {
    if (-LARGEST..=LARGEST).contains(&number) {
        return Ok(());
    }
    Err(malformed(kv, "a number beyond all bounds"))
}

fn parse<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|error| malformed(kv, error.to_string()))
}

fn malformed(kv: &KeyValue, reason: impl Into<String>) -> Error {
    Error::Malformed { key: kv.key.to_string(), reason: reason.into() }
}

/// As it is stored.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    // Numbers and flags only: it cannot fail, but nothing here may panic either.
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| Error::Stopped)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::Client;
    use crate::key::Prefix;
    use crate::options::ConnectOptions;

    pub(in crate::cells) fn layout() -> Layout {
        let client = Client::lazy(["http://127.0.0.1:1"], ConnectOptions::default()).unwrap();
        let prefix = client.namespace().prefix("counter").unwrap().join("jobs").unwrap();
        Layout::new(&client, &prefix).unwrap()
    }

    fn at(key: Key, value: &str, modified: i64) -> KeyValue {
        KeyValue {
            key,
            value: value.to_owned().into(),
            create_revision: modified,
            mod_revision: modified,
            version: 1,
            lease: 0,
        }
    }

    /// Books with these cells: name, total, generation.
    pub(in crate::cells) fn books(base: Option<Base>, cells: &[(&str, i128, u64)]) -> Books {
        let layout = layout();
        let mut kvs: Vec<_> = base
            .iter()
            .map(|base| at(layout.base.clone(), std::str::from_utf8(&encode(base).unwrap()).unwrap(), 5))
            .collect();
        for (name, total, generation) in cells {
            let value = format!(r#"{{"total":{total},"seq":1,"generation":{generation}}}"#);
            kvs.push(at(layout.cells.key(name).unwrap(), &value, 6));
        }
        Books::read(&layout, 9, &kvs).unwrap()
    }

    pub(in crate::cells) fn base(value: i128, generation: u64) -> Base {
        Base { value, generation, exact: false, ttl: None, removals: 0, removed: None }
    }

    fn entry(prefix: &Prefix, name: &str) -> KeyValue {
        at(prefix.key(name).unwrap(), "x", 3)
    }

    #[test]
    fn the_value_is_the_base_and_all_cells_of_its_generation() {
        let books = books(Some(base(10, 3)), &[("a-1", 5, 3), ("b-1", -7, 3), ("c-1", 1000, 2)]);
        assert_eq!(books.value(), 8);
        assert_eq!((books.share("a-1"), books.share("c-1"), books.share("none-1")), (5, 0, 0));
        let tally = books.tally();
        assert_eq!((tally.generation, tally.base_revision, tally.revision, tally.cells), (3, 5, 9, 3));
    }

    #[test]
    fn nothing_is_zero_and_cells_without_a_base_do_not_count() {
        let nothing = books(None, &[]).tally();
        assert_eq!((nothing.value, nothing.generation, nothing.base_revision), (0, 1, 0));
        let orphans = books(None, &[("a-1", 5, 7), ("b-1", 5, 2)]).tally();
        assert_eq!(
            (orphans.value, orphans.generation),
            (0, 8),
            "the next generation is one that none of them has"
        );
    }

    #[test]
    fn what_was_removed_is_told_as_if_it_had_never_been_written() {
        let removed = Base { removed: Some(Ttl { lease: 7, seconds: 600 }), ..base(0, 4) };
        let books = books(Some(removed), &[("b-2", 5, 3), ("b-1", 5, 3), ("a-1", 5, 3)]);
        let tally = books.tally();
        assert_eq!((tally.value, tally.generation, tally.base_revision), (0, 4, 0));
        assert_eq!((tally.cells, tally.epochs), (3, vec!["a".to_owned(), "b".to_owned()]));
        assert!(books.begins());
    }

    #[test]
    fn keys_are_sorted_by_what_they_are() {
        let layout = layout();
        let receipt = r#"{"total":1,"seq":4,"generation":2,"revision":77}"#;
        let folded = layout.folded.key("a-1").unwrap();
        let workers = layout.prefix.join("workers").unwrap();
        let kvs = [
            entry(&workers, "w1"),
            at(folded.clone(), receipt, 8),
            entry(&layout.prefix, "valuable"),
            // Not "cells/": a name that only begins alike.
            entry(&layout.prefix, "cells"),
        ];
        let books = Books::read(&layout, 9, &kvs).unwrap();
        assert_eq!(books.tally().entries, [kvs[0].clone(), kvs[2].clone(), kvs[3].clone()]);
        let receipt = books.receipt(&folded).unwrap().unwrap();
        assert_eq!((receipt.seq, receipt.revision), (4, 77));
        assert_eq!(books.receipt(&layout.folded.key("b-1").unwrap()).unwrap(), None);
    }

    #[test]
    fn what_is_not_ours_is_told_with_its_key() {
        let layout = layout();
        let good = r#"{"total":1,"seq":1,"generation":1}"#;
        for (key, value) in [
            (layout.base.clone(), "12abc"),
            (layout.base.clone(), ""),
            (layout.base.clone(), "12"),
            (layout.base.clone(), r#"{"value":1}"#),
            (layout.base.clone(), r#"{"value":1.5,"generation":1}"#),
            (layout.base.clone(), r#"{"value":1,"generation":-1}"#),
            (layout.base.clone(), r#"{"value":1,"generation":1} x"#),
            (layout.base.clone(), r#"{"value":1267650600228229401496703205377,"generation":1}"#),
            (layout.cells.key("a-1").unwrap(), r#"{"total":"1","seq":1,"generation":1}"#),
            (
                layout.cells.key("a-1").unwrap(),
                r#"{"total":-1267650600228229401496703205377,"seq":1,"generation":1}"#,
            ),
            (layout.cells.key("a").unwrap(), good),
            (layout.cells.key("a-x").unwrap(), good),
            (layout.cells.key("-1").unwrap(), good),
            (layout.cells.join("a-1").unwrap().key("b").unwrap(), good),
        ] {
            let read = Books::read(&layout, 9, &[at(key.clone(), value, 4)]);
            let Err(Error::Malformed { key: told, .. }) = read else { panic!("{key} = {value}: {read:?}") };
            assert_eq!(told, key.to_string());
        }
    }

    #[test]
    fn what_is_written_is_what_a_person_expects() {
        let text = |base: Base| String::from_utf8(encode(&base).unwrap().to_vec()).unwrap();
        assert_eq!(text(base(12, 3)), r#"{"value":12,"generation":3}"#);
        let full = Base { exact: true, ttl: Some(Ttl { lease: 7, seconds: 60 }), ..base(-1, 1) };
        let written = r#"{"value":-1,"generation":1,"exact":true,"ttl":{"lease":7,"seconds":60}}"#;
        assert_eq!(text(full), written);
        let removed = Base { removed: Some(Ttl { lease: 7, seconds: 600 }), ..base(0, 2) };
        assert_eq!(text(removed), r#"{"value":0,"generation":2,"removed":{"lease":7,"seconds":600}}"#);
    }

    proptest! {
        #[test]
        fn numbers_of_any_size_are_read_as_they_were_written(
            value in -LARGEST..=LARGEST, total in -LARGEST..=LARGEST, generation: u64,
        ) {
            let books = books(Some(base(value, generation)), &[("a-1", total, generation)]);
            prop_assert_eq!(books.value(), value + total);
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..=80)) {
            let layout = layout();
            for key in [layout.base.clone(), layout.cells.key("a-1").unwrap()] {
                let mut kv = at(key, "", 4);
                kv.value = bytes.clone().into();
                let _ = Books::read(&layout, 9, &[kv]);
            }
        }
    }
}
