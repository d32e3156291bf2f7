//! Leases: granted, renewed, asked for, revoked, expired.

use etcd_client::proto::{PbPutRequest, PbTargetUnion};

use crate::ask::{
    ALL, Inner, compare, delete, delete_span, get, grant, leased, put, span, together, txn, watch,
};
use crate::op::{Op, Watching, lease};
use crate::pair::Pair;
use crate::script;

fn ask(id: i64) -> Op {
    Op::TimeToLive { id, keys: true }
}

fn everything() -> Op {
    Op::Watch(0, Watching { prev_kv: true, ..watch(ALL.0, ALL.1) })
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn leases_are_answered_alike() {
    let mut pair = Pair::start().await;
    let grants = script![
        Op::Leases,
        grant(7, 100),
        grant(7, 100),
        grant(7, 9_000_000_001),
        grant(8, 0),
        Op::KeepAlive(vec![8]),
        grant(9, -1),
        Op::Revoke(8),
        Op::Revoke(9),
        grant(10, 9_000_000_000),
        grant(11, 9_000_000_001),
        grant(12, i64::MAX),
        grant(13, i64::MIN),
        Op::Revoke(13),
        grant(-5, 60),
        grant(lease(0), 60),
        grant(lease(1), 61),
        grant(lease(2), 9_000_000_001),
        Op::Leases,
        Op::TimeToLive { id: 7, keys: false },
        ask(7),
        ask(-5),
        ask(lease(0)),
        ask(lease(2)),
        ask(99),
        ask(0),
        Op::Revoke(99),
        Op::Revoke(0),
        Op::Revoke(7),
        Op::Revoke(7),
        ask(7),
        grant(7, 50),
        Op::Leases,
    ];
    pair.check("grants", &grants).await;

    let keep_alive = script![
        grant(7, 100),
        grant(lease(0), 30),
        Op::KeepAlive(vec![7]),
        Op::KeepAlive(vec![lease(0), 7, lease(0)]),
        Op::KeepAlive(vec![99]),
        Op::KeepAlive(vec![7, 99, 0, -1, 7]),
        put("a", "1"),
        Op::KeepAlive(vec![7]),
        Op::Revoke(7),
        Op::KeepAlive(vec![7, lease(0)]),
    ];
    pair.check("keep-alive", &keep_alive).await;

    let attached = script![
        everything(),
        grant(7, 100),
        grant(lease(0), 100),
        leased("c", 7),
        leased("a", 7),
        leased("b", lease(0)),
        get("b"),
        ask(7),
        leased("a", 7),
        leased("c", lease(0)),
        ask(7),
        ask(lease(0)),
        put("b", "detached"),
        ask(lease(0)),
        PbPutRequest { ignore_lease: true, ..put("a", "kept") },
        get("a"),
        PbPutRequest { ignore_value: true, lease: lease(0), ..put("a", "") },
        get("a"),
        ask(7),
        delete("a"),
        ask(lease(0)),
        Op::Revoke(7),
        Op::Revoke(lease(0)),
        span(ALL),
        leased("a", 7),
        leased("a", lease(0)),
    ];
    pair.check("attached keys", &attached).await;

    let revoked = script![
        everything(),
        Op::Watch(1, Watching { filters: vec![1], ..watch(ALL.0, ALL.1) }),
        grant(7, 100),
        grant(8, 100),
        Op::Revoke(8),
        leased("c", 7),
        leased("a", 7),
        leased("b", 7),
        put("z", "1"),
        Op::Revoke(7),
        span(ALL),
        put("a", "again"),
        Op::Leases,
    ];
    pair.check("revoked keys", &revoked).await;

    let within = script![
        everything(),
        grant(7, 100),
        grant(8, 100),
        together([leased("a", 7).inner(), leased("b", 8).inner(), get("a").inner()]),
        txn([compare("a", '=', PbTargetUnion::Lease(7))], [leased("a", 8).inner()], []),
        txn([compare("a", '=', PbTargetUnion::Lease(7))], [], [get("a").inner()]),
        txn([compare("a", '>', PbTargetUnion::Lease(7))], [put("yes", "1").inner()], []),
        txn([compare("a", '<', PbTargetUnion::Lease(9))], [put("yes", "2").inner()], []),
        txn([compare("nobody", '=', PbTargetUnion::Lease(0))], [put("yes", "3").inner()], []),
        txn([compare("nobody", '!', PbTargetUnion::Lease(0))], [put("yes", "4").inner()], []),
        together([leased("a", 77).inner()]),
        together([put("x", "1").inner(), leased("a", 77).inner()]),
        txn([], [], [leased("a", 77).inner()]),
        together([txn([], [leased("a", 77).inner()], []).inner()]),
        together([txn([], [], [leased("a", 77).inner()]).inner()]),
        together([delete("a").inner(), leased("c", 8).inner()]),
        ask(7),
        ask(8),
        together([delete_span(ALL).inner()]),
        ask(8),
        Op::Revoke(8),
        Op::Revoke(7),
        span(ALL),
    ];
    pair.check("within transactions", &within).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn an_expired_lease_leaves_alike() {
    let mut pair = Pair::start().await;
    let before = script![
        everything(),
        grant(7, 1),
        grant(8, 100),
        leased("c", 7),
        leased("a", 7),
        leased("b", 8),
        put("d", "stays"),
    ];
    let outcome = pair.run(&before).await;
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    pair.await_head(pair.head() + 1).await;
    let after = script![
        span(ALL),
        Op::KeepAlive(vec![7]),
        ask(7),
        Op::Revoke(7),
        leased("c", 7),
        Op::Leases,
        put("a", "again"),
        grant(7, 60),
        ask(7),
    ];
    let outcome = pair.run_on(&after).await;
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    pair.finish();
}
