//! Transactions: compares, branches, nesting, and what they refuse.

use etcd_client::proto::{PbCompare, PbRangeRequest, PbTargetUnion, PbTxnRequest, PbTxnRequestOp};

use crate::ask::{
    ALL, Inner, compact, compare, delete, delete_span, get, grant, leased, put, span, together, txn, watch,
};
use crate::op::{Op, Watching, compacted, head};
use crate::pair::Pair;
use crate::script;

fn at(key: &str, revision: i64) -> PbRangeRequest {
    PbRangeRequest { revision, ..get(key) }
}

/// Nothing asked.
fn nothing() -> PbTxnRequestOp {
    PbTxnRequestOp { request: None }
}

/// Succeeds or not, and changes nothing.
fn only(compare: PbCompare) -> Op {
    txn([compare], [get("a").inner()], [get("b").inner()]).into()
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn compares_are_answered_alike() {
    let mut pair = Pair::start().await;
    let mut script = script![
        grant(7, 100),
        put("a", "1"),
        put("a", "2"),
        leased("b", 7),
        put("b/1", "2"),
        put("b/2", "3"),
        delete("b/2"),
        put("b/2", "2"),
    ];
    let values = [
        PbTargetUnion::Version(0),
        PbTargetUnion::Version(1),
        PbTargetUnion::Version(2),
        PbTargetUnion::Version(-1),
        PbTargetUnion::CreateRevision(0),
        PbTargetUnion::CreateRevision(head(-5)),
        PbTargetUnion::CreateRevision(head(0)),
        PbTargetUnion::ModRevision(0),
        PbTargetUnion::ModRevision(head(-5)),
        PbTargetUnion::ModRevision(head(0)),
        PbTargetUnion::Value(b"".to_vec()),
        PbTargetUnion::Value(b"2".to_vec()),
        PbTargetUnion::Value(b"leased".to_vec()),
        PbTargetUnion::Lease(0),
        PbTargetUnion::Lease(7),
    ];
    for value in &values {
        for sign in ['=', '>', '<', '!'] {
            for (key, end) in
                [("a", ""), ("b", ""), ("none", ""), ("b", "c"), ("b/", "b0"), ("x", "y"), ("a", "\0")]
            {
                let plain = compare(key, sign, value.clone());
                script.push(only(PbCompare { range_end: end.into(), ..plain }));
            }
        }
    }
    pair.check("targets, signs and spans", &script).await;

    let mut odd = script![put("a", "1"), put("b", "2")];
    for key in ["a", "none"] {
        for target in 0..6 {
            for result in 0..5 {
                let bare = PbCompare { target, result, key: key.into(), ..PbCompare::default() };
                odd.push(only(bare.clone()));
                // The value of one target with the number of another.
                for union in [PbTargetUnion::Version(1), PbTargetUnion::Value(b"1".to_vec())] {
                    odd.push(only(PbCompare { target_union: Some(union), ..bare.clone() }));
                }
            }
        }
    }
    for (key, end) in [("", ""), ("", "\0"), ("b", "a"), ("a", "a")] {
        let plain = compare(key, '=', PbTargetUnion::Version(1));
        odd.push(only(PbCompare { range_end: end.into(), ..plain }));
    }
    pair.check("odd compares", &odd).await;

    let one = || compare("a", '=', PbTargetUnion::Version(1));
    let two = || compare("a", '=', PbTargetUnion::Version(2));
    let several = script![
        put("a", "1"),
        txn([one(), one()], [put("yes", "1").inner()], [put("no", "1").inner()]),
        txn([one(), two()], [put("yes", "2").inner()], [put("no", "2").inner()]),
        txn([], [put("yes", "3").inner()], [put("no", "3").inner()]),
        txn([two()], [], []),
        txn([one()], [], []),
        span(ALL),
    ];
    pair.check("several compares", &several).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn branches_are_answered_alike() {
    let mut pair = Pair::start().await;
    let everything = || Op::Watch(0, Watching { prev_kv: true, ..watch(ALL.0, ALL.1) });
    let inner = script![
        everything(),
        PbTxnRequest::default(),
        together([get("a").inner()]),
        together([delete("a").inner()]),
        together([delete("a").inner(), put("b", "1").inner(), delete("a").inner(), get("b").inner()]),
        together([put("c", "1").inner(), put("b", "2").inner(), put("a", "1").inner(), span(ALL).inner()]),
        together([get("a").inner(), put("a", "2").inner(), get("a").inner(), at("a", head(0)).inner()]),
        together([delete_span(("a", "c")).inner(), span(ALL).inner(), put("c", "9").inner()]),
        together([put("d", "1").inner(), delete_span(("e", "f")).inner(), delete_span(("c", "d")).inner()]),
        together([delete_span(ALL).inner(), get("d").inner()]),
        together([delete_span(ALL).inner(), put("a", "1").inner()]),
        // Now there is something to delete before it is created.
        together([delete_span(ALL).inner(), put("a", "2").inner()]),
        together([delete("a").inner(), delete("a").inner()]),
        span(ALL),
    ];
    pair.check("operations in order", &inner).await;

    let absent = |key: &str| compare(key, '=', PbTargetUnion::Version(0));
    let nested = script![
        everything(),
        together([
            put("a", "1").inner(),
            together([put("b", "1").inner(), get("a").inner()]).inner(),
            get("b").inner()
        ]),
        together([
            put("a", "2").inner(),
            txn([absent("c")], [put("c", "1").inner()], [delete("b").inner()]).inner(),
            txn([absent("c")], [put("d", "1").inner()], [delete("b").inner()]).inner(),
        ]),
        together([
            txn([absent("zz")], [together([together([put("e", "1").inner()]).inner()]).inner()], []).inner(),
            txn([compare("e", '=', PbTargetUnion::Version(1))], [get("e").inner()], [put("f", "1").inner()])
                .inner(),
        ]),
        together([together([]).inner(), together([get("a").inner()]).inner()]),
        txn(
            [absent("a")],
            [],
            [txn([absent("a")], [put("x", "1").inner()], [put("y", "1").inner()]).inner()]
        ),
        span(ALL),
    ];
    pair.check("nested", &nested).await;

    let revisions = script![
        put("a", "1"),
        put("a", "2"),
        put("a", "3"),
        compact(head(-1)),
        together([at("a", compacted(-1)).inner()]),
        together([at("a", compacted(0)).inner(), at("a", head(0)).inner()]),
        together([at("a", head(1)).inner()]),
        together([put("a", "4").inner(), at("a", head(1)).inner()]),
        together([put("a", "4").inner(), at("a", head(0)).inner(), at("a", head(-1)).inner()]),
        together([put("a", "5").inner(), at("a", head(2)).inner()]),
        together([put("b", "5").inner(), at("a", compacted(-1)).inner()]),
        together([at("a", -1).inner()]),
        txn([], [], [at("a", head(9)).inner(), at("a", compacted(-1)).inner()]),
        together([together([at("a", head(9)).inner()]).inner()]),
        together([txn([], [], [at("a", head(9)).inner()]).inner()]),
        span(ALL),
    ];
    pair.check("revisions of reads", &revisions).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn refused_transactions_are_refused_alike() {
    let mut pair = Pair::start().await;
    let (a, gone) = (|| put("a", "1").inner(), || delete("a").inner());
    let then = |operation: PbTxnRequestOp| txn([], [operation], []).inner();
    let otherwise = |operation: PbTxnRequestOp| txn([], [], [operation]).inner();
    let both = |yes: PbTxnRequestOp, no: PbTxnRequestOp| txn([], [yes], [no]).inner();
    let everything = || delete_span(ALL).inner();
    let duplicates = script![
        together([a(), a()]),
        together([a(), gone()]),
        together([gone(), a()]),
        together([gone(), gone()]),
        together([a(), get("a").inner()]),
        together([delete_span(("a", "c")).inner(), put("b", "1").inner()]),
        together([delete_span(("a", "c")).inner(), put("c", "1").inner()]),
        together([delete_span(("b", "a")).inner(), a()]),
        together([delete_span(("a", "a")).inner(), a()]),
        together([everything(), a()]),
        together([everything(), put("\0", "1").inner()]),
        together([delete_span(("a", "\0")).inner(), a()]),
        together([delete_span(("a", "\0")).inner(), put("b", "1").inner()]),
        together([put("b", "1").inner(), delete_span(("a", "\0")).inner()]),
        txn([], [a()], [a()]),
        txn([], [a()], [a(), a()]),
        together([a(), then(a())]),
        together([then(a()), a()]),
        together([then(a()), then(a())]),
        together([then(a()), otherwise(a())]),
        together([otherwise(a()), otherwise(a())]),
        together([otherwise(a()), a()]),
        together([both(a(), a())]),
        together([both(a(), gone())]),
        together([both(a(), gone()), put("b", "1").inner()]),
        together([both(a(), gone()), gone()]),
        together([then(gone()), a()]),
        together([a(), otherwise(gone())]),
        together([then(gone()), then(a())]),
        together([then(gone()), then(gone())]),
        together([then(then(a())), a()]),
        together([then(then(a())), then(otherwise(a()))]),
        together([then(everything()), put("zz", "1").inner()]),
        span(ALL),
    ];
    pair.check("duplicate keys", &duplicates).await;

    let many = |count: usize| vec![get("a").inner(); count];
    let compares = |count: usize| vec![compare("a", '=', PbTargetUnion::Version(0)); count];
    let counts = script![
        together(many(128)),
        together(many(129)),
        txn([], [], many(128)),
        txn([], [], many(129)),
        txn(compares(128), many(1), []),
        txn(compares(129), many(1), []),
        together([together(many(128)).inner()]),
        together([together(many(129)).inner()]),
        together([together(many(127)).inner(), get("a").inner()]),
        together([together(many(65)).inner(), together(many(65)).inner()]),
        together([txn(compares(129), [], []).inner()]),
        together([txn([], [], many(129)).inner()]),
        txn(compares(128), many(128), many(128)),
    ];
    pair.check("numbers of operations", &counts).await;

    let mut deep = a();
    for _ in 0..20 {
        deep = then(deep);
    }
    let malformed = script![
        together([nothing()]),
        together([a(), nothing()]),
        txn([], [], [nothing()]),
        together([then(nothing())]),
        together([otherwise(nothing())]),
        together([deep]),
        together([put("", "1").inner()]),
        together([get("").inner()]),
        together([delete("").inner()]),
        txn([], [], [put("", "1").inner()]),
        together([then(put("", "1").inner())]),
        together([otherwise(delete("").inner())]),
        together([etcd_client::proto::PbPutRequest { ignore_value: true, ..put("a", "1") }.inner()]),
        together([etcd_client::proto::PbPutRequest { ignore_value: true, ..put("none", "") }.inner()]),
        txn([], [], [etcd_client::proto::PbPutRequest { ignore_value: true, ..put("none", "") }.inner()]),
        together([
            put("x", "1").inner(),
            etcd_client::proto::PbPutRequest { ignore_lease: true, ..put("none", "") }.inner()
        ]),
        together([etcd_client::proto::PbPutRequest { ignore_lease: true, lease: 7, ..put("a", "") }.inner()]),
        together([then(etcd_client::proto::PbPutRequest { ignore_value: true, ..put("none", "") }.inner())]),
        together([otherwise(
            etcd_client::proto::PbPutRequest { ignore_value: true, ..put("none", "") }.inner()
        )]),
        together([PbRangeRequest { sort_order: 7, ..span(ALL) }.inner()]),
        span(ALL),
    ];
    pair.check("malformed", &malformed).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn large_requests_are_answered_alike() {
    const LIMIT: usize = 3 << 19;
    let mut pair = Pair::start().await;
    let large = |length: usize| put("large", &"x".repeat(length));
    let script = script![
        large(1 << 20),
        large(LIMIT - 100),
        large(LIMIT - 14),
        large(LIMIT - 13),
        large(LIMIT - 12),
        large(LIMIT),
        large(LIMIT + 1),
        large((2 << 20) - 13),
        large(2 << 20),
        large(5 << 20),
        together([large(LIMIT).inner()]),
        together([large(LIMIT - 1000).inner(), get("a").inner()]),
        txn([], [], [large(LIMIT).inner()]),
        txn([compare("a", '=', PbTargetUnion::Value(vec![0; LIMIT]))], [get("a").inner()], []),
        get(&"k".repeat(LIMIT)),
        delete(&"k".repeat(LIMIT)),
        get("large"),
    ];
    pair.check("sizes", &script).await;
    pair.finish();
}
