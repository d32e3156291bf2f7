//! Transactions as values: what must hold, what to do then, what to read otherwise.

use bytes::Bytes;
use etcd_client::proto::PbTxnOpResponse;

use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::kv::KeyValue;

/// etcd's own limit for one branch of a transaction.
pub const MAX_OPS: usize = 128;
/// The largest request sent, in bytes; etcd refuses more than 1.5 MiB.
pub const MAX_REQUEST: usize = 3 << 19;

/// One condition of a [`Txn`].
#[derive(Clone, Debug)]
pub struct Compare(Test);

#[derive(Clone, Debug)]
enum Test {
    Created(Key, i64),
    Exists(Key),
    Modified(Key, i64),
    Version(Key, i64),
    Lease(Key, i64),
    Unchanged(Prefix, i64),
}

impl Compare {
    /// The key does not exist.
    #[must_use]
    pub fn absent(key: &Key) -> Self {
        Self(Test::Created(key.clone(), 0))
    }

    /// The key exists.
    #[must_use]
    pub fn exists(key: &Key) -> Self {
        Self(Test::Exists(key.clone()))
    }

    /// The key was last created at `revision` (a fencing check); 0 means it does not exist.
    #[must_use]
    pub fn created_at(key: &Key, revision: i64) -> Self {
        Self(Test::Created(key.clone(), revision))
    }

    /// The key was last written at `revision`; 0 means it does not exist.
    #[must_use]
    pub fn modified_at(key: &Key, revision: i64) -> Self {
        Self(Test::Modified(key.clone(), revision))
    }

    /// The key was written `version` times since its creation; 0 means it does not exist.
    #[must_use]
    pub fn version(key: &Key, version: i64) -> Self {
        Self(Test::Version(key.clone(), version))
    }

    /// The key exists and lives on this epoch's lease.
    #[must_use]
    pub fn owned_by(key: &Key, epoch: &Epoch) -> Self {
        Self(Test::Lease(key.clone(), epoch.lease()))
    }

    /// The same as [`Compare::owned_by`], for the lease that `kv` was seen on.
    #[must_use]
    pub fn same_owner(kv: &KeyValue) -> Self {
        Self(Test::Lease(kv.key.clone(), kv.lease))
    }

    /// No key below `prefix` was written after `revision`. Deletions are not noticed: whatever deletes below the
    /// prefix must also write something that is compared.
    #[must_use]
    pub fn unchanged_since(prefix: &Prefix, revision: i64) -> Self {
        Self(Test::Unchanged(prefix.clone(), revision))
    }

    fn to_wire(&self) -> etcd_client::Compare {
        use etcd_client::CompareOp::{Equal, Greater, Less};
        match &self.0 {
            Test::Created(key, revision) => {
                etcd_client::Compare::create_revision(key.as_bytes(), Equal, *revision)
            }
            Test::Exists(key) => etcd_client::Compare::create_revision(key.as_bytes(), Greater, 0),
            Test::Modified(key, revision) => {
                etcd_client::Compare::mod_revision(key.as_bytes(), Equal, *revision)
            }
            Test::Version(key, version) => etcd_client::Compare::version(key.as_bytes(), Equal, *version),
            Test::Lease(key, lease) => etcd_client::Compare::lease(key.as_bytes(), Equal, *lease),
            Test::Unchanged(prefix, revision) => {
                etcd_client::Compare::mod_revision(prefix.as_bytes(), Less, revision.saturating_add(1))
                    .with_range(prefix.end())
            }
        }
    }
}

/// One operation of a [`Txn`].
#[derive(Clone)]
pub struct Op(Action);

#[derive(Clone)]
enum Action {
    Put { key: Key, value: Bytes, lease: i64 },
    Get(Key),
    Range { prefix: Prefix, keys_only: bool },
    Count(Prefix),
    Delete(Key),
    DeletePrefix(Prefix),
}

impl Op {
    /// Writes a value.
    #[must_use]
    pub fn put(key: &Key, value: impl Into<Bytes>) -> Self {
        Self(Action::Put { key: key.clone(), value: value.into(), lease: 0 })
    }

    /// Writes a value that is deleted when the epoch ends.
    #[must_use]
    pub fn put_leased(key: &Key, value: impl Into<Bytes>, epoch: &Epoch) -> Self {
        Self(Action::Put { key: key.clone(), value: value.into(), lease: epoch.lease() })
    }

    /// Writes a value on the lease of a [`Timer`](crate::Timer).
    #[must_use]
    pub fn put_timed(key: &Key, value: impl Into<Bytes>, timer: &crate::lease::Timer) -> Self {
        Self(Action::Put { key: key.clone(), value: value.into(), lease: timer.lease() })
    }

    /// Reads one key.
    #[must_use]
    pub fn get(key: &Key) -> Self {
        Self(Action::Get(key.clone()))
    }

    /// Reads all keys below a prefix, in key order.
    #[must_use]
    pub fn range(prefix: &Prefix) -> Self {
        Self(Action::Range { prefix: prefix.clone(), keys_only: false })
    }

    /// Reads all keys below a prefix without their values.
    #[must_use]
    pub fn range_keys(prefix: &Prefix) -> Self {
        Self(Action::Range { prefix: prefix.clone(), keys_only: true })
    }

    /// Counts the keys below a prefix.
    #[must_use]
    pub fn count(prefix: &Prefix) -> Self {
        Self(Action::Count(prefix.clone()))
    }

    /// Deletes one key.
    #[must_use]
    pub fn delete(key: &Key) -> Self {
        Self(Action::Delete(key.clone()))
    }

    /// Deletes all keys below a prefix.
    #[must_use]
    pub fn delete_prefix(prefix: &Prefix) -> Self {
        Self(Action::DeletePrefix(prefix.clone()))
    }

    fn is_write(&self) -> bool {
        matches!(self.0, Action::Put { .. } | Action::Delete(_) | Action::DeletePrefix(_))
    }

    fn size(&self) -> usize {
        match &self.0 {
            Action::Put { key, value, .. } => key.as_bytes().len() + value.len() + 32,
            Action::Get(key) | Action::Delete(key) => key.as_bytes().len() + 32,
            Action::Range { prefix, .. } | Action::Count(prefix) | Action::DeletePrefix(prefix) => {
                2 * prefix.as_bytes().len() + 32
            }
        }
    }

    fn to_wire(&self) -> etcd_client::TxnOp {
        use etcd_client::{DeleteOptions, GetOptions, PutOptions, TxnOp};
        match &self.0 {
            Action::Put { key, value, lease } => {
                let options = (*lease != 0).then(|| PutOptions::new().with_lease(*lease));
                TxnOp::put(key.as_bytes(), value.as_ref(), options)
            }
            Action::Get(key) => TxnOp::get(key.as_bytes(), None),
            Action::Range { prefix, keys_only } => {
                let options = GetOptions::new().with_range(prefix.end());
                let options = if *keys_only { options.with_keys_only() } else { options };
                TxnOp::get(prefix.as_bytes(), Some(options))
            }
            Action::Count(prefix) => TxnOp::get(
                prefix.as_bytes(),
                Some(GetOptions::new().with_range(prefix.end()).with_count_only()),
            ),
            Action::Delete(key) => TxnOp::delete(key.as_bytes(), None),
            Action::DeletePrefix(prefix) => {
                TxnOp::delete(prefix.as_bytes(), Some(DeleteOptions::new().with_range(prefix.end())))
            }
        }
    }
}

/// Shows keys and sizes: values may hold credentials.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Action::Put { key, value, lease } => {
                write!(f, "put({key}, {} bytes{})", value.len(), if *lease == 0 { "" } else { ", leased" })
            }
            Action::Get(key) => write!(f, "get({key})"),
            Action::Range { prefix, keys_only } => {
                write!(f, "range({prefix}{})", if *keys_only { ", keys" } else { "" })
            }
            Action::Count(prefix) => write!(f, "count({prefix})"),
            Action::Delete(key) => write!(f, "delete({key})"),
            Action::DeletePrefix(prefix) => write!(f, "delete({prefix})"),
        }
    }
}

/// An atomic transaction: if all of `when` hold then do `then`, else do `otherwise`; all at one revision.
#[derive(Clone, Debug, Default)]
#[must_use = "a transaction does nothing until it is sent"]
pub struct Txn {
    when: Vec<Compare>,
    then: Vec<Op>,
    otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction with no conditions and no operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Self {
        self.when.push(compare);
        self
    }

    /// Adds an operation for the case that all conditions hold.
    pub fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds an operation for the case that some condition does not hold.
    pub fn otherwise(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }

    /// Whether no branch writes: such a transaction may be repeated freely. It costs a round of raft all the same; where one
    /// key or range is enough, [`Client::get`](crate::Client::get) and [`Client::range`](crate::Client::range) do not.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        !self.then.iter().chain(&self.otherwise).any(Op::is_write)
    }

    /// How many operations the `then` branch has: where operations added next will find their results.
    #[must_use]
    pub fn then_len(&self) -> usize {
        self.then.len()
    }

    /// As [`Txn::then_len`], for the `otherwise` branch.
    #[must_use]
    pub fn otherwise_len(&self) -> usize {
        self.otherwise.len()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let limit = if self.is_read_only() { MAX_OPS - 1 } else { MAX_OPS };
        for size in [self.then.len(), self.otherwise.len(), self.when.len()] {
            if size > limit {
                return Err(Error::TooLarge { what: "transaction", size, limit });
            }
        }
        let size: usize = self.then.iter().chain(&self.otherwise).map(Op::size).sum();
        if size > MAX_REQUEST {
            return Err(Error::TooLarge { what: "request", size, limit: MAX_REQUEST });
        }
        Ok(())
    }

    /// `nothing` is a key that never exists.
    ///
    /// A transaction that only reads gets a deletion of it: etcd 3.5 before 3.5.7 can panic, the whole member, when a client goes
    /// away while it serves one that does not go through raft (etcd issues 14110, 14891). Deleting nothing makes no revision.
    pub(crate) fn to_wire(&self, nothing: &Key) -> etcd_client::Txn {
        let ops = |ops: &[Op]| {
            let mut wire: Vec<_> = ops.iter().map(Op::to_wire).collect();
            if self.is_read_only() {
                wire.push(Op::delete(nothing).to_wire());
            }
            wire
        };
        etcd_client::Txn::new()
            .when(self.when.iter().map(Compare::to_wire).collect::<Vec<_>>())
            .and_then(ops(&self.then))
            .or_else(ops(&self.otherwise))
    }
}

/// What one operation of the taken branch answered.
#[derive(Clone, Debug)]
enum Answer {
    Put,
    Range { entries: Vec<KeyValue>, count: i64 },
    Deleted(i64),
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// Whether the conditions held and `then` was done.
    pub succeeded: bool,
    /// The store's revision at the transaction; its own one if it wrote.
    pub revision: i64,
    answers: Vec<Answer>,
}

impl Reply {
    pub(crate) fn from_wire(response: etcd_client::TxnResponse) -> Self {
        let revision = response.0.header.as_ref().map_or(0, |header| header.revision);
        let answers = response.0.responses.into_iter().map(|op| match op.response {
            Some(PbTxnOpResponse::ResponseRange(range)) => Answer::Range {
                count: range.count,
                entries: range.kvs.into_iter().map(KeyValue::from_proto).collect(),
            },
            Some(PbTxnOpResponse::ResponseDeleteRange(delete)) => Answer::Deleted(delete.deleted),
            _ => Answer::Put,
        });
        Self { succeeded: response.0.succeeded, revision, answers: answers.collect() }
    }

    /// The keys that the `at`-th operation of the taken branch read (none for writes).
    #[must_use]
    pub fn entries(&self, at: usize) -> &[KeyValue] {
        match self.answers.get(at) {
            Some(Answer::Range { entries, .. }) => entries,
            _ => &[],
        }
    }

    /// The key that the `at`-th operation of the taken branch read.
    #[must_use]
    pub fn entry(&self, at: usize) -> Option<&KeyValue> {
        self.entries(at).first()
    }

    /// How many keys the `at`-th operation of the taken branch counted or deleted.
    #[must_use]
    pub fn count(&self, at: usize) -> i64 {
        match self.answers.get(at) {
            Some(Answer::Range { count, .. }) => *count,
            Some(Answer::Deleted(count)) => *count,
            _ => 0,
        }
    }
}

/// What became of a transaction that was sent once.
#[derive(Clone, Debug)]
#[must_use = "an unknown outcome must be resolved, not dropped"]
#[non_exhaustive]
pub enum Outcome {
    /// The conditions held; `then` was done.
    Applied(Reply),
    /// Some condition did not hold; `otherwise` was done.
    NotApplied(Reply),
    /// The answer never came: it may have been applied, may still be, or never.
    Unknown(Error),
}
