//! What is stored, and what it comes to.

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
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Books {
    /// Makes sense of a complete reading.
    pub(super) fn read<'a>(
        layout: &Layout,
        revision: i64,
        kvs: impl IntoIterator<Item = &'a KeyValue>,
    ) -> Result<Self> {
        let base = Base { value: 0, generation: 1, exact: false, ttl: None };
        let mut books = Self {
            revision,
            base,
            base_modified: 0,
            cells: Vec::new(),
            receipts: Vec::new(),
            entries: Vec::new(),
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

    pub(super) fn tally(&self) -> Tally {
        Tally {
            value: self.value(),
            generation: self.base.generation,
            revision: self.revision,
            base_revision: self.base_modified,
            cells: self.cells.len(),
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
