//! Short spellings of requests, for scripts by hand and at random.

use etcd_client::proto::{
    PbCompactionRequest, PbCompare, PbDeleteRequest, PbLeaseGrantRequest, PbPutRequest, PbRangeRequest,
    PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use crate::op::{Op, Watching};

/// From the smallest key to the end of all keys: `("\0", "\0")`.
pub(crate) const ALL: (&str, &str) = ("\0", "\0");

pub(crate) fn get(key: &str) -> PbRangeRequest {
    PbRangeRequest { key: key.into(), ..Default::default() }
}

pub(crate) fn span((key, end): (&str, &str)) -> PbRangeRequest {
    PbRangeRequest { key: key.into(), range_end: end.into(), ..Default::default() }
}

pub(crate) fn put(key: &str, value: &str) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

pub(crate) fn leased(key: &str, lease: i64) -> PbPutRequest {
    PbPutRequest { lease, ..put(key, "leased") }
}

pub(crate) fn delete(key: &str) -> PbDeleteRequest {
    PbDeleteRequest { key: key.into(), ..Default::default() }
}

pub(crate) fn delete_span((key, end): (&str, &str)) -> PbDeleteRequest {
    PbDeleteRequest { key: key.into(), range_end: end.into(), prev_kv: true }
}

pub(crate) fn grant(id: i64, ttl: i64) -> Op {
    Op::Grant(PbLeaseGrantRequest { id, ttl })
}

/// Physical: what a watch sees of the compacted revision would else depend on when the clean-up comes by.
pub(crate) fn compact(revision: i64) -> Op {
    Op::Compact(PbCompactionRequest { revision, physical: true })
}

pub(crate) fn watch(key: &str, end: &str) -> Watching {
    Watching { key: key.into(), range_end: end.into(), ..Default::default() }
}

/// A compare of the target that the value is for.
pub(crate) fn compare(key: &str, sign: char, value: PbTargetUnion) -> PbCompare {
    let target = match value {
        PbTargetUnion::Version(_) => 0,
        PbTargetUnion::CreateRevision(_) => 1,
        PbTargetUnion::ModRevision(_) => 2,
        PbTargetUnion::Value(_) => 3,
        PbTargetUnion::Lease(_) => 4,
    };
    let result = match sign {
        '>' => 1,
        '<' => 2,
        '!' => 3,
        _ => 0,
    };
    PbCompare { result, target, key: key.into(), range_end: Vec::new(), target_union: Some(value) }
}

/// An operation within a transaction.
pub(crate) trait Inner {
    fn inner(self) -> PbTxnRequestOp;
}

impl Inner for PbRangeRequest {
    fn inner(self) -> PbTxnRequestOp {
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestRange(self)) }
    }
}

impl Inner for PbPutRequest {
    fn inner(self) -> PbTxnRequestOp {
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(self)) }
    }
}

impl Inner for PbDeleteRequest {
    fn inner(self) -> PbTxnRequestOp {
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestDeleteRange(self)) }
    }
}

impl Inner for PbTxnRequest {
    fn inner(self) -> PbTxnRequestOp {
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestTxn(self)) }
    }
}

pub(crate) fn txn(
    compare: impl Into<Vec<PbCompare>>,
    success: impl Into<Vec<PbTxnRequestOp>>,
    failure: impl Into<Vec<PbTxnRequestOp>>,
) -> PbTxnRequest {
    PbTxnRequest { compare: compare.into(), success: success.into(), failure: failure.into() }
}

/// A transaction without a condition.
pub(crate) fn together(operations: impl Into<Vec<PbTxnRequestOp>>) -> PbTxnRequest {
    txn([], operations, [])
}

macro_rules! into_op {
    ($($request:ty => $variant:ident),*) => {$(
        impl From<$request> for Op {
            fn from(request: $request) -> Self {
                Self::$variant(request)
            }
        }
    )*};
}

into_op!(PbRangeRequest => Range, PbPutRequest => Put, PbDeleteRequest => Delete, PbTxnRequest => Txn);

/// A script out of requests of all kinds.
#[macro_export]
macro_rules! script {
    ($($op:expr),* $(,)?) => { vec![$($crate::op::Op::from($op)),*] };
}
