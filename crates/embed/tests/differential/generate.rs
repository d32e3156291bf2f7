//! Random operations: few keys, few leases, few watches, so that everything meets everything.

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbLeaseGrantRequest, PbPutRequest, PbRangeRequest, PbTargetUnion,
    PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::ask::{Inner, compact};
use crate::op::{Op, Watching, compacted, head, lease, slot};

const KEYS: [&[u8]; 11] = [
    b"a",
    b"a/1",
    b"a/2",
    b"a/3",
    b"a/4",
    b"a0",
    b"b",
    b"b\0",
    b"\0",
    b"\xff\xff",
    b"long-long-long-long-long-long-key",
];
const ENDS: [&[u8]; 8] = [b"", b"", b"a0", b"b", b"c", b"\0", b"a/3", b"\xff\xff\xff"];
const VALUES: [&[u8]; 6] = [b"", b"1", b"2", b"two", b"\0\xff", b"3"];

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![60 => select(&KEYS[..]).prop_map(<[u8]>::to_vec), 1 => Just(Vec::new())]
}

fn end() -> impl Strategy<Value = Vec<u8>> {
    select(&ENDS[..]).prop_map(<[u8]>::to_vec)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    select(&VALUES[..]).prop_map(<[u8]>::to_vec)
}

fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![12 => Just(false), 1 => Just(true)]
}

/// Revisions that are there, mostly: of late, at the edge of what is compacted, beyond both ends.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![
        12 => (-20_i64..=0).prop_map(head),
        6 => (0_i64..=6).prop_map(compacted),
        1 => (-2_i64..0).prop_map(compacted),
        1 => (1_i64..3).prop_map(head),
        1 => Just(-1),
    ]
}

fn old_revision() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 3 => revision()]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![12 => Just(0), 1 => (-30_i64..=0).prop_map(head)]
}

/// Three with ids of the script's choice, three of the server's, and one that nobody granted.
fn lease_id() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1_i64..=3, 6 => (0_i64..3).prop_map(lease), 1 => Just(777)]
}

fn attached() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 1 => lease_id()]
}

fn range() -> impl Strategy<Value = PbRangeRequest> {
    let what = (key(), end(), old_revision(), prop_oneof![4 => Just(0), 2 => 1_i64..5, 1 => Just(-1)]);
    let order = (prop_oneof![2 => Just(0), 1 => Just(1), 1 => Just(2)], 0..5_i32);
    let bounds = (bound(), bound(), bound(), bound());
    let flags = (rarely(), rarely(), rarely());
    (what, order, bounds, flags).prop_map(|(what, order, bounds, flags)| PbRangeRequest {
        key: what.0,
        range_end: what.1,
        revision: what.2,
        limit: what.3,
        sort_order: order.0,
        sort_target: order.1,
        min_mod_revision: bounds.0,
        max_mod_revision: bounds.1,
        min_create_revision: bounds.2,
        max_create_revision: bounds.3,
        serializable: flags.0,
        keys_only: flags.1,
        count_only: flags.2,
    })
}

fn put() -> impl Strategy<Value = PbPutRequest> {
    (key(), value(), attached(), any::<bool>(), rarely(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease, wrong)| PbPutRequest {
            key,
            // Both given and ignored is refused: seldom.
            value: if ignore_value && !wrong { Vec::new() } else { value },
            lease: if ignore_lease && !wrong { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = PbDeleteRequest> {
    // To the end of all keys more often than chance has it: see `harmless`.
    let end = prop_oneof![16 => Just(Vec::new()), 2 => end(), 1 => Just(b"\0".to_vec())];
    (key(), end, any::<bool>()).prop_map(|(key, range_end, prev_kv)| PbDeleteRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = PbCompare> {
    let value = prop_oneof![
        (0_i64..4).prop_map(|version| (0, Some(PbTargetUnion::Version(version)))),
        old_revision().prop_map(|revision| (1, Some(PbTargetUnion::CreateRevision(revision)))),
        old_revision().prop_map(|revision| (2, Some(PbTargetUnion::ModRevision(revision)))),
        value().prop_map(|value| (3, Some(PbTargetUnion::Value(value)))),
        attached().prop_map(|lease| (4, Some(PbTargetUnion::Lease(lease)))),
        (0..5_i32).prop_map(|target| (target, None)),
    ];
    let end = prop_oneof![3 => Just(Vec::new()), 1 => end()];
    (key(), end, 0..4_i32, value).prop_map(|(key, range_end, result, (target, target_union))| PbCompare {
        // Which of two ids of the server's choice is the larger one is its own affair.
        result: match &target_union {
            Some(PbTargetUnion::Lease(id)) if slot(*id).is_some() => result % 2 * 3,
            _ => result,
        },
        target,
        key,
        range_end,
        target_union,
    })
}

fn inner(depth: u32) -> BoxedStrategy<PbTxnRequestOp> {
    let plain = prop_oneof![
        30 => put().prop_map(Inner::inner),
        20 => range().prop_map(Inner::inner),
        12 => delete().prop_map(Inner::inner),
        1 => Just(PbTxnRequestOp { request: None }),
    ];
    if depth == 0 {
        return plain.boxed();
    }
    prop_oneof![6 => plain, 1 => txn(depth - 1).prop_map(Inner::inner)].boxed()
}

fn txn(depth: u32) -> BoxedStrategy<PbTxnRequest> {
    let operations = || proptest::collection::vec(inner(depth), 0..4);
    (proptest::collection::vec(compare(), 0..3), operations(), operations())
        .prop_map(|(compare, success, failure)| PbTxnRequest { compare, success, failure })
        .boxed()
}

/// Leaves out what makes a real etcd crash: its check for keys given twice takes the end `"\0"` of a delete literally, so
/// that a put of a deleted key slips through, and one that keeps the value or the lease finds the key gone half-way.
fn harmless(mut txn: PbTxnRequest) -> PbTxnRequest {
    fn deletes_to_the_end(operation: &PbTxnRequestOp) -> bool {
        match &operation.request {
            Some(PbTxnOpRequest::RequestDeleteRange(delete)) => delete.range_end == b"\0",
            Some(PbTxnOpRequest::RequestTxn(txn)) => {
                txn.success.iter().chain(&txn.failure).any(deletes_to_the_end)
            }
            _ => false,
        }
    }
    fn keep_nothing(operation: &mut PbTxnRequestOp) {
        match &mut operation.request {
            Some(PbTxnOpRequest::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(PbTxnOpRequest::RequestTxn(txn)) => {
                txn.success.iter_mut().chain(&mut txn.failure).for_each(keep_nothing);
            }
            _ => {}
        }
    }
    if txn.success.iter().chain(&txn.failure).any(deletes_to_the_end) {
        txn.success.iter_mut().chain(&mut txn.failure).for_each(keep_nothing);
    }
    txn
}

fn watch() -> impl Strategy<Value = Op> {
    let start = prop_oneof![6 => Just(0), 2 => revision()];
    let filters =
        prop_oneof![6 => Just(vec![]), 1 => Just(vec![0]), 1 => Just(vec![1]), 1 => Just(vec![0, 1])];
    let id = prop_oneof![3 => Just(0), 1 => 1_i64..5];
    (0..3_usize, key(), end(), start, filters, any::<bool>(), id, any::<bool>()).prop_map(
        |(stream, key, range_end, start_revision, filters, prev_kv, watch_id, fragment)| {
            // Nothing would tell that a watch which sees nothing has caught up.
            let start_revision = if filters.len() > 1 { 0 } else { start_revision };
            Op::Watch(
                stream,
                Watching { key, range_end, start_revision, filters, prev_kv, watch_id, fragment },
            )
        },
    )
}

/// Any operation, as often as makes for a lively store.
pub(crate) fn operation() -> impl Strategy<Value = Op> {
    let granted = prop_oneof![2 => 1_i64..=3, 3 => (0_i64..3).prop_map(lease)];
    prop_oneof![
        300 => put().prop_map(Op::Put),
        220 => range().prop_map(Op::Range),
        80 => delete().prop_map(Op::Delete),
        200 => txn(2).prop_map(|txn| Op::Txn(harmless(txn))),
        25 => (granted, 60_i64..200).prop_map(|(id, ttl)| Op::Grant(PbLeaseGrantRequest { id, ttl })),
        15 => lease_id().prop_map(Op::Revoke),
        15 => (lease_id(), any::<bool>()).prop_map(|(id, keys)| Op::TimeToLive { id, keys }),
        5 => Just(Op::Leases),
        5 => proptest::collection::vec(lease_id(), 1..4).prop_map(Op::KeepAlive),
        6 => revision().prop_map(compact),
        8 => watch(),
        8 => (0..3_usize, 0_i64..6).prop_map(|(stream, id)| Op::Cancel(stream, id)),
        5 => (0..3_usize).prop_map(Op::Progress),
    ]
}
