//! Watches: created, fed, cancelled, refused; what they see and how.

use crate::ask::{ALL, Inner, compact, delete, delete_span, put, together, watch};
use crate::op::{Op, Watching, compacted, head};
use crate::pair::Pair;
use crate::script;

fn from(start_revision: i64) -> Watching {
    Watching { start_revision, prev_kv: true, ..watch(ALL.0, ALL.1) }
}

fn numbered(watch_id: i64) -> Op {
    Op::Watch(0, Watching { watch_id, ..watch("a", "") })
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn watches_see_the_same() {
    let mut pair = Pair::start().await;
    let mut spans = Vec::new();
    for (stream, (key, end)) in
        [("a", ""), ("a", "b"), ("a/", "a0"), ("b", "\0"), ("\0", "\0"), ("", "\0"), ("", ""), ("", "b")]
            .into_iter()
            .enumerate()
    {
        // Several of them on one stream too.
        spans.push(Op::Watch(stream % 3, Watching { prev_kv: stream % 2 == 0, ..watch(key, end) }));
    }
    spans.extend(script![
        put("a", "1"),
        put("a/1", "1"),
        put("A", "1"),
        put("\0", "1"),
        put("b", "1"),
        Op::Barrier,
        put("a", "2"),
        delete("a"),
        delete("a"),
        put("a", "3"),
        delete_span(("a", "b")),
        delete_span(ALL),
        together([put("c", "1").inner(), put("a", "1").inner(), put("b", "1").inner()]),
        together([
            delete_span(("a", "b")).inner(),
            put("d", "1").inner(),
            delete("c").inner(),
            together([put("0", "1").inner()]).inner()
        ]),
        Op::Watch(1, Watching { start_revision: head(-3), ..watch(ALL.0, ALL.1) }),
    ]);
    pair.check("spans", &spans).await;

    let mut past = script![
        put("a", "1"),
        put("b", "1"),
        put("a", "2"),
        delete("b"),
        together([put("c", "1").inner(), put("b", "2").inner(), delete("a").inner()]),
        put("a", "4"),
    ];
    for offset in -7..=0 {
        past.push(Op::Watch(0, from(head(offset))));
        past.push(Op::Watch(1, Watching { start_revision: head(offset), ..watch("b", "") }));
        past.push(Op::Watch(
            1,
            Watching { start_revision: head(offset), filters: vec![0], ..watch("a", "c") },
        ));
        past.push(Op::Watch(
            1,
            Watching { start_revision: head(offset), filters: vec![1], ..watch("a", "c") },
        ));
        past.push(put("a", "5").into());
    }
    pair.check("from the past", &past).await;

    let future = script![
        Op::Watch(0, from(head(1))),
        Op::Watch(0, from(head(3))),
        Op::Watch(0, from(head(9))),
        Op::Watch(0, from(i64::MAX)),
        put("a", "1"),
        put("a", "2"),
        put("a", "3"),
        put("a", "4"),
        delete("a"),
        Op::Barrier,
        put("a", "6"),
        Op::Progress(0),
    ];
    pair.check("from the future", &future).await;

    let filters: Vec<Op> = [vec![], vec![0], vec![1], vec![0, 1], vec![1, 1], vec![5]]
        .into_iter()
        .map(|filters| Op::Watch(0, Watching { filters, prev_kv: true, ..watch("a", "b") }))
        .chain(script![
            put("a", "1"),
            put("a", "2"),
            delete("a"),
            together([put("a1", "1").inner(), delete("a").inner(), put("a2", "1").inner()]),
            together([delete("a1").inner(), put("a", "1").inner()]),
        ])
        .collect();
    pair.check("filters", &filters).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn watches_are_numbered_cancelled_and_refused_alike() {
    let mut pair = Pair::start().await;
    let numbers = script![
        numbered(0),
        numbered(0),
        numbered(7),
        numbered(7),
        numbered(-3),
        numbered(1),
        numbered(0),
        numbered(3),
        numbered(0),
        numbered(0),
        numbered(i64::MAX),
        Op::Watch(1, watch("a", "")),
        Op::Watch(1, Watching { watch_id: 7, ..watch("b", "") }),
        put("a", "1"),
    ];
    pair.check("numbers", &numbers).await;

    let cancels = script![
        numbered(5),
        put("a", "1"),
        Op::Cancel(0, 5),
        put("a", "2"),
        Op::Cancel(0, 5),
        Op::Cancel(0, 99),
        Op::Cancel(0, -1),
        numbered(5),
        put("a", "3"),
        numbered(0),
        Op::Cancel(0, 0),
        numbered(0),
        numbered(0),
        Op::Cancel(0, 1),
        Op::Progress(0),
        Op::Cancel(1, 0),
        Op::Watch(1, from(head(0))),
        put("a", "4"),
    ];
    pair.check("cancels", &cancels).await;

    let refused = script![
        Op::Watch(0, watch("b", "a")),
        Op::Watch(0, watch("b", "b")),
        Op::Watch(0, Watching { watch_id: 4, ..watch("b", "a") }),
        Op::Watch(0, watch("b", "c")),
        Op::Watch(0, Watching { watch_id: 4, ..watch("b", "c") }),
        Op::Watch(0, Watching { watch_id: 4, ..watch("b", "a") }),
        put("b", "1"),
        Op::Progress(0),
    ];
    pair.check("empty spans", &refused).await;

    let progress = script![
        Op::Progress(0),
        numbered(0),
        Op::Progress(0),
        put("b", "1"),
        Op::Progress(0),
        Op::Watch(0, from(head(5))),
        put("b", "2"),
        Op::Progress(0),
        Op::Progress(0),
        Op::Progress(1),
    ];
    pair.check("progress", &progress).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn compacted_watches_end_alike() {
    let mut pair = Pair::start().await;
    let ended = script![
        put("a", "1"),
        put("a", "2"),
        put("a", "3"),
        compact(head(-1)),
        Op::Watch(0, from(compacted(-1))),
        Op::Watch(0, from(1)),
        Op::Watch(0, from(-1)),
        Op::Watch(0, Watching { watch_id: 9, ..from(compacted(-1)) }),
        // Ended, and still there?
        Op::Watch(0, Watching { watch_id: 9, ..watch("a", "") }),
        Op::Cancel(0, 9),
        Op::Cancel(0, 9),
        Op::Watch(0, Watching { watch_id: 9, ..watch("a", "") }),
        Op::Cancel(0, 0),
        Op::Watch(0, from(compacted(0))),
        Op::Watch(0, from(compacted(1))),
        put("a", "4"),
        Op::Progress(0),
    ];
    pair.check("ended", &ended).await;

    let alive = script![
        Op::Watch(0, from(0)),
        Op::Watch(0, Watching { start_revision: head(8), ..watch("a", "") }),
        put("a", "1"),
        put("a", "2"),
        compact(head(0)),
        delete("a"),
        put("a", "1"),
        compact(head(0)),
        put("b", "1"),
        compact(head(-1)),
        delete("b"),
        put("a", "3"),
        put("a", "4"),
    ];
    pair.check("alive through compactions", &alive).await;
    pair.finish();
}

#[tokio::test]
#[ignore = "needs a real etcd: compares embed with it"]
async fn large_histories_are_seen_alike() {
    const LARGE: usize = 280_000;
    let mut pair = Pair::start().await;
    let large = |name: &str| put(name, &"x".repeat(LARGE)).inner();
    let five = || together(["f0", "f1", "f2", "f3", "f4"].map(large));
    let fragments = script![
        Op::Watch(1, Watching { fragment: true, ..from(0) }),
        five(),
        five(),
        Op::Watch(0, Watching { fragment: true, ..from(compacted(1)) }),
        Op::Watch(0, Watching { fragment: true, filters: vec![1], ..watch("f1", "f3") }),
        Op::Watch(0, from(compacted(1))),
        five(),
        delete_span(("f", "g")),
    ];
    pair.check("fragments", &fragments).await;

    let mut long = Vec::new();
    for index in 0..1_200 {
        long.push(put(&format!("k{}", index % 5), &index.to_string()).into());
    }
    long.push(Op::Watch(0, from(compacted(1))));
    long.push(Op::Watch(0, Watching { start_revision: compacted(1), ..watch("k3", "") }));
    pair.check("many revisions", &long).await;
    pair.finish();
}
