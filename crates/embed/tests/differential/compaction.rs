//! Compactions, and what is left to see after them.

use etcd_client::proto::{PbCompactionRequest, PbRangeRequest};

use crate::ask::{ALL, compact, delete, get, put, span, watch};
use crate::op::{Op, Watching, compacted, head};
use crate::pair::Pair;
use crate::script;

fn at(key: &str, revision: i64) -> PbRangeRequest {
    PbRangeRequest { revision, ..get(key) }
}

/// Everything from a revision on, with what was there before.
fn history(stream: usize, start_revision: i64) -> Op {
    Op::Watch(stream, Watching { start_revision, prev_kv: true, ..watch(ALL.0, ALL.1) })
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn compactions_are_answered_alike() {
    let mut pair = Pair::start().await;
    // Before anything else: no script starts with a store that was never compacted again.
    let never = script![
        span(ALL),
        Op::Watch(0, Watching { start_revision: -2, ..watch("a", "") }),
        Op::Watch(0, Watching { start_revision: 1, ..watch("a", "") }),
        at("a", 1),
        at("a", -1),
        put("a", "1"),
        compact(-1),
        compact(0),
        compact(0),
        compact(-1),
        compact(1),
        at("a", 1),
        at("a", 2),
    ];
    let outcome = pair.run_on(&never).await;
    assert!(outcome.is_ok(), "a store that was never compacted: {}", outcome.unwrap_err());

    let edges = script![
        put("a", "1"),
        put("a", "2"),
        put("a", "3"),
        compact(0),
        compact(-1),
        compact(head(1)),
        compact(head(100)),
        compact(head(-1)),
        compact(head(-1)),
        compact(head(-2)),
        at("a", compacted(-1)),
        at("a", compacted(0)),
        at("a", compacted(1)),
        Op::Compact(PbCompactionRequest { revision: head(0), physical: false }),
        compact(head(0)),
        at("a", head(0)),
        at("a", head(-1)),
        span(ALL),
        compact(i64::MAX),
        compact(i64::MIN),
    ];
    pair.check("edges", &edges).await;

    // Deleted at, before and after the compacted revision.
    for offset in -6..=0 {
        let mut script = script![
            put("a", "1"),
            put("b", "1"),
            delete("a"),
            put("a", "2"),
            delete("b"),
            put("b", "3"),
            put("a", "4"),
            compact(head(offset)),
        ];
        for revision in -1..8 {
            script.push(PbRangeRequest { revision: compacted(revision), ..span(ALL) }.into());
            script.push(at("a", compacted(revision)).into());
            script.push(history(usize::try_from(revision + 1).unwrap(), compacted(revision)));
        }
        pair.check(&format!("history after compacting to head{offset}"), &script).await;
    }

    let twice = script![
        put("a", "1"),
        put("b", "1"),
        put("a", "2"),
        compact(head(-1)),
        delete("a"),
        put("c", "1"),
        compact(head(-1)),
        history(0, compacted(0)),
        put("a", "3"),
        compact(head(0)),
        history(1, compacted(0)),
        history(2, compacted(-1)),
        delete("b"),
        delete("c"),
        span(ALL),
    ];
    pair.check("compacted twice", &twice).await;
    pair.finish();
}
