//! Every option of a read.

use etcd_client::proto::PbRangeRequest;

use crate::ask::{ALL, compact, delete, get, leased, put, span};
use crate::op::{Op, compacted, head};
use crate::pair::Pair;
use crate::script;

/// Five keys: overwritten, deleted, made anew, and never touched again.
fn garden() -> Vec<Op> {
    script![
        put("a", "3"),
        put("a/1", "1"),
        put("a/2", "2"),
        put("b", "1"),
        put("a/1", "9"),
        delete("a/2"),
        put("a/2", "0"),
        put("c", ""),
        put("a/1", "4"),
    ]
}

fn all(change: impl FnOnce(&mut PbRangeRequest)) -> Op {
    let mut request = span(ALL);
    change(&mut request);
    request.into()
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn reads_with_every_option_are_answered_alike() {
    let mut pair = Pair::start().await;

    let mut spans = garden();
    for (key, end) in [
        ("a", ""),
        ("a", "a"),
        ("a", "b"),
        ("a/", "a0"),
        ("b", "a"),
        ("b", "\0"),
        ("\0", "\0"),
        ("\0", "b"),
        ("nothing", ""),
        ("nothing", "o"),
        ("", ""),
        ("", "\0"),
        ("", "z"),
        ("a/1", "a/1\0"),
        ("zzz", "\0"),
    ] {
        spans.push(span((key, end)).into());
        spans.push(PbRangeRequest { count_only: true, ..span((key, end)) }.into());
        spans.push(PbRangeRequest { keys_only: true, serializable: true, ..span((key, end)) }.into());
    }
    pair.check("spans", &spans).await;

    let mut orders = garden();
    for sort_order in [0, 1, 2, 7] {
        // An unknown target with an order makes a real etcd crash: nothing to compare.
        for sort_target in 0..5 {
            for limit in [0, 1, 3, 5, 6, -1] {
                orders.push(all(|request| {
                    (request.sort_order, request.sort_target, request.limit) =
                        (sort_order, sort_target, limit);
                }));
            }
            orders.push(all(|request| {
                (request.sort_order, request.sort_target, request.keys_only) =
                    (sort_order, sort_target, true);
            }));
        }
    }
    pair.check("orders", &orders).await;

    let mut revisions = garden();
    for offset in -12..=2 {
        revisions.push(all(|request| request.revision = head(offset)));
        revisions.push(all(|request| (request.revision, request.limit) = (head(offset), 2)));
        revisions.push(all(|request| (request.revision, request.count_only) = (head(offset), true)));
        revisions.push(PbRangeRequest { revision: head(offset), ..get("a/2") }.into());
    }
    revisions.push(all(|request| request.revision = -1));
    revisions.push(all(|request| request.revision = i64::MAX));
    revisions.push(all(|request| request.revision = i64::MIN));
    revisions.push(compact(head(-4)));
    for offset in -2..=3 {
        revisions.push(all(|request| request.revision = compacted(offset)));
        revisions.push(all(|request| (request.revision, request.serializable) = (compacted(offset), true)));
    }
    pair.check("revisions", &revisions).await;

    let mut bounds = garden();
    for offset in [-20, -8, -7, -6, -4, -2, 0, 3] {
        bounds.push(all(|request| request.min_mod_revision = head(offset)));
        bounds.push(all(|request| request.max_mod_revision = head(offset)));
        bounds.push(all(|request| request.min_create_revision = head(offset)));
        bounds.push(all(|request| request.max_create_revision = head(offset)));
        bounds.push(all(|request| (request.min_mod_revision, request.limit) = (head(offset), 1)));
        bounds.push(all(|request| (request.max_mod_revision, request.count_only) = (head(offset), true)));
        bounds.push(all(|request| (request.min_create_revision, request.sort_order) = (head(offset), 2)));
    }
    bounds.push(all(|request| (request.min_mod_revision, request.max_mod_revision) = (-5, -1)));
    bounds.push(all(|request| {
        (request.min_mod_revision, request.max_mod_revision) = (head(-5), head(-1));
        (request.min_create_revision, request.max_create_revision) = (head(-7), head(-2));
        (request.limit, request.keys_only) = (1, true);
    }));
    pair.check("bounds", &bounds).await;

    let counts = script![
        all(|request| (request.limit, request.count_only) = (1, true)),
        put("a", "1"),
        put("b", "2"),
        all(|request| (request.limit, request.count_only) = (1, true)),
        all(|request| (request.keys_only, request.count_only) = (true, true)),
        all(|request| (request.sort_order, request.count_only) = (2, true)),
        all(|request| request.limit = 1),
        all(|request| request.limit = 2),
        all(|request| request.limit = i64::MAX),
        all(|request| request.limit = i64::MIN),
    ];
    pair.check("counts", &counts).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn many_keys_are_sorted_alike() {
    let mut pair = Pair::start().await;
    let mut script = Vec::new();
    for index in 0..60 {
        script.push(put(&format!("k{:02}", index * 37 % 60), &format!("{}", index % 7)).into());
    }
    for index in 0..20 {
        script.push(put(&format!("k{:02}", index * 3), "x").into());
    }
    for sort_order in 0..3 {
        for sort_target in 0..5 {
            script.push(all(|request| (request.sort_order, request.sort_target) = (sort_order, sort_target)));
        }
    }
    pair.check("ties", &script).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn writes_and_their_versions_are_answered_alike() {
    let mut pair = Pair::start().await;
    let with = |change: fn(&mut etcd_client::proto::PbPutRequest)| {
        let mut request = put("a", "new");
        change(&mut request);
        Op::from(request)
    };
    let puts = script![
        put("a", "1"),
        with(|request| request.prev_kv = true),
        with(|request| (request.ignore_value, request.prev_kv) = (true, true)),
        with(|request| {
            request.value.clear();
            (request.ignore_value, request.prev_kv) = (true, true);
        }),
        with(|request| (request.ignore_lease, request.lease) = (true, 5)),
        with(|request| request.ignore_lease = true),
        with(|request| {
            request.value.clear();
            (request.ignore_value, request.ignore_lease) = (true, true);
        }),
        with(|request| request.lease = 99),
        with(|request| request.lease = -1),
        with(|request| request.lease = i64::MAX),
        get("a"),
        put("", "1"),
        put("empty value", ""),
        get("empty value"),
        leased("other", 42),
        get("other"),
    ];
    pair.check("puts", &puts).await;

    let missing = script![
        with(|request| {
            request.value.clear();
            request.ignore_value = true;
        }),
        with(|request| request.ignore_lease = true),
        with(|request| request.prev_kv = true),
        get("a"),
    ];
    pair.check("what is not there", &missing).await;

    let mut deletes = garden();
    for (key, end) in [
        ("nothing", ""),
        ("b", "a"),
        ("b", "b"),
        ("", ""),
        ("", "\0"),
        ("a/1", ""),
        ("a/1", ""),
        ("a/", "a0"),
        ("\0", "\0"),
        ("\0", "\0"),
    ] {
        deletes.push(crate::ask::delete_span((key, end)).into());
        deletes.push(span(ALL).into());
    }
    deletes.extend(script![put("a", "again"), delete("a"), put("a", "and again"), get("a")]);
    for offset in -4..=0 {
        deletes.push(PbRangeRequest { revision: head(offset), ..get("a") }.into());
    }
    pair.check("deletes", &deletes).await;
    pair.finish();
}
