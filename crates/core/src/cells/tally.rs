//! What cells come to, and what may be decided about it.

use crate::kv::KeyValue;
use crate::txn::Op;

/// The value after one `add` or `set`, and where in etcd's history it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sum {
    /// The value right after this operation, and before any other.
    pub value: i64,
    /// The revision of the transaction that applied it; operations that were combined into one share it.
    pub revision: i64,
}

/// An `add` was refused because its result does not fit: nothing was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("adding {by} to {value} overflows")]
#[non_exhaustive]
pub struct SumOverflow {
    /// The value when it was refused.
    pub value: i64,
    /// What was to be added.
    pub by: i64,
}

/// Everything below the prefix of some cells, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// The sum. Within `i64` unless somebody else wrote there.
    pub value: i128,
    /// Counts the [`TallyChange::Set`]s, from 1. A prefix with nothing in it has the generation it would begin with.
    pub generation: u64,
    /// Counts the [`TallyChange::Remove`]s. Like the generation it begins again some time after a removal.
    pub removals: u64,
    /// The revision as of which this holds.
    pub revision: i64,
    /// The revision of the last change that was not a plain `add`; 0 when nothing was ever written, or all of it has been
    /// removed or deleted or has run out.
    pub base_revision: i64,
    /// The number of cells.
    pub cells: usize,
    /// The ids of the session epochs that have a cell, sorted: those that have written within
    /// [`CellsOptions::idle`](super::CellsOptions::idle), and those that died and are not folded yet.
    pub epochs: Vec<String>,
    /// The recipe's own keys: all below the prefix that belong to neither base, cells nor receipts, in key order.
    pub entries: Vec<KeyValue>,
}

/// What [`Cells::exact`](super::Cells::exact) is to do about a [`Tally`].
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "a closed question: do it or do not")]
pub enum Verdict<T> {
    /// Do this in one transaction, if nothing below the prefix has changed since; then answer with `result`.
    Apply {
        /// What becomes of the value.
        change: TallyChange,
        /// Operations on the recipe's own keys; at most [`MAX_APPLY_OPS`], each key at most once.
        ops: Vec<Op>,
        /// The answer, if it was applied.
        result: T,
    },
    /// Do nothing and answer so; true as of the tally's revision, which is not older than the call.
    Refuse(T),
}

/// What becomes of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else one can do with a number")]
pub enum TallyChange {
    /// Counts so much onto it. The result must stay within `i64`.
    Add(i64),
    /// Makes it this, and begins the next generation.
    Set(i64),
    /// Leaves it.
    Keep,
    /// Makes it 0, begins the next generation, and removes the base ten minutes later unless it is written to before. Until then
    /// it refuses late copies of additions that came before.
    Remove,
}

/// How many operations of its own a [`Verdict::Apply`] may have.
pub const MAX_APPLY_OPS: usize = 120;
