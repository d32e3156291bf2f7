//! Members that come and go, and nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{LONG, in_order, invalid, key, keys, next, place, reads, session, told};
use futures_core::Stream;
use sereno_seq::core::KeyError;
use sereno_seq::{Error, Handler, Invalid, Positions, Sequence, Standing, core};
use sereno_testkit::{Member as Etcd, eventually};
use tokio::sync::{Semaphore, mpsc};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn two_members_are_told_exactly_their_positions_and_nothing_else() {
    let (client, _) = place("two").await;
    let (one, two) = (session(&client, 15).await, session(&client, 15).await);
    let (sender, mut first) = mpsc::channel::<Standing>(16);
    let a = Sequence::new(&one, "g").join_with(sender).await.unwrap();
    assert_eq!(told(&a.position()), "0/1", "the first position is there before joining returns");
    let mut streamed = a.positions();
    assert_eq!(told(&next(&mut streamed).await), "0/1");
    let heard = tokio::time::timeout(LONG, first.recv()).await.unwrap().unwrap();
    assert_eq!(told(&heard), "0/1");

    let (sender, mut second) = mpsc::channel::<Standing>(16);
    let b = Sequence::new(&two, "g").join_with(sender).await.unwrap();
    assert_eq!(told(&b.position()), "1/2");
    assert_eq!(told(&next(&mut streamed).await), "0/2");
    assert_eq!(told(&tokio::time::timeout(LONG, second.recv()).await.unwrap().unwrap()), "1/2");

    let started = Instant::now();
    a.leave().await.unwrap();
    assert_eq!(invalid(&a), Some(Invalid::Left));
    let heard = tokio::time::timeout(LONG, second.recv()).await.unwrap().unwrap();
    println!("a member that left was seen to be gone {:?} after it was asked to", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(told(&heard), "0/1");
    a.leave().await.expect("leaving twice is leaving once");

    b.leave().await.unwrap();
    assert_eq!(invalid(&b), Some(Invalid::Left));
    let rest = |channel: &mut mpsc::Receiver<Standing>| {
        let mut items = Vec::new();
        while let Ok(item) = channel.try_recv() {
            items.push(told(&item));
        }
        items
    };
    for channel in [&first, &second] {
        eventually(LONG, "the handlers to end", async || channel.is_closed().then_some(())).await;
    }
    assert_eq!(rest(&mut first), ["0/2", "invalid"]);
    assert_eq!(rest(&mut second), ["invalid"]);
    assert_eq!(next(&mut streamed).await, Err(Invalid::Left));
    assert_eq!(streamed.next().await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn twenty_members_come_one_by_one_and_leave_in_order_and_all_know_at_each_step() {
    let (client, oracle) = place("twenty").await;
    let mut members = Vec::new();
    let mut sessions = Vec::new();
    let started = Instant::now();
    for count in 1..=20_usize {
        let session = session(&client, 15).await;
        members.push(Sequence::new(&session, "g").join().await.unwrap());
        sessions.push(session);
        assert_eq!(told(&members[count - 1].position()), format!("{}/{count}", count - 1));
        in_order(&members).await;
    }
    let joined = started.elapsed();
    while !members.is_empty() {
        let gone = members.remove(0);
        gone.leave().await.unwrap();
        assert_eq!(invalid(&gone), Some(Invalid::Left), "at once when leaving returns");
        in_order(&members).await;
    }
    println!("20 members joined and seen one by one in {joined:?}, left in {:?}", started.elapsed() - joined);
    assert_eq!(keys(&oracle, &client, "g/").await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn members_of_one_process_share_a_session_and_count_each() {
    let (client, oracle) = place("shared").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let (a, b) = (group.join().await.unwrap(), group.join().await.unwrap());
    in_order([&a, &b]).await;
    assert_eq!((a.group(), group.group()), ("g", "g"));
    let (first, second) = (a.position().unwrap(), b.position().unwrap());
    assert!(first.since < second.since);
    assert_eq!(first.epoch, 1);
    drop(a);
    reads(&b, "0/1").await;
    assert_eq!(keys(&oracle, &client, "g/seats/").await.len(), 1);
    drop(b);
    eventually(LONG, "the last one to be gone", async || {
        keys(&oracle, &client, "g/").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn neither_claims_nor_sibling_groups_nor_foreign_keys_are_counted() {
    let (client, oracle) = place("siblings").await;
    let session = session(&client, 15).await;
    let join = |group: &'static str| {
        let session = session.clone();
        async move { Sequence::new(&session, group).join().await.unwrap() }
    };
    let (a, _x, _y) = (join("g").await, join("g2").await, join("g/x").await);
    let _z = join("g/seats").await;
    let claim = a.claim().await.unwrap();
    for foreign in ["g/seats/deeper/key", "g/0", "g/slots/x", "g/claims/07", "g/other/1"] {
        oracle.put(key(&client, foreign), "foreign").await;
    }
    let b = join("g").await;
    in_order([&a, &b]).await;
    assert_eq!(claim.index(), 0);
    assert!(claim.is_valid());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_text_is_a_group_and_bad_names_are_refused() {
    let (client, _) = place("names").await;
    let session = session(&client, 15).await;
    for name in ["a/b", "%2F", "\0", " ", "🦉", ".", "..", &"x".repeat(255)] {
        let member = Sequence::new(&session, name).join().await.unwrap();
        assert_eq!(told(&member.position()), "0/1", "{name:?}");
        member.leave().await.unwrap();
    }
    let refused = Sequence::new(&session, "").join().await.unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::InvalidKey(KeyError::Empty))), "{refused:?}");
    let refused = Sequence::new(&session, "y".repeat(256)).join().await.unwrap_err();
    assert!(!refused.is_retryable() && !refused.is_outcome_unknown());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn joining_on_a_closed_session_is_refused_and_closing_ends_members_and_streams() {
    let (client, oracle) = place("closed").await;
    let (one, two) = (session(&client, 15).await, session(&client, 15).await);
    let a = Sequence::new(&one, "g").join().await.unwrap();
    let b = Sequence::new(&two, "g").join().await.unwrap();
    let claim = a.claim().await.unwrap();
    let mut streamed = a.positions();
    common::until(&mut streamed, "0/2").await;
    one.close().await.unwrap();
    assert_eq!(invalid(&a), Some(Invalid::Closed));
    assert_eq!(next(&mut streamed).await, Err(Invalid::Closed));
    assert_eq!(streamed.next().await, None);
    assert!(!claim.is_valid());
    reads(&b, "0/1").await;
    a.leave().await.unwrap();
    let refused = Sequence::new(&one, "g").join().await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
    let refused = a.claim().await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
    assert_eq!(keys(&oracle, &client, "g/").await.len(), 1);
}

/// Counts its calls, and waits or panics in some of them.
struct Awkward {
    gate: Arc<Semaphore>,
    calls: mpsc::Sender<Standing>,
}

#[async_trait::async_trait]
impl Handler for Awkward {
    async fn on_change(&self, standing: Standing) {
        self.calls.send(standing.clone()).await.unwrap();
        self.gate.acquire().await.unwrap().forget();
        assert_ne!(told(&standing), "0/3", "this one panics");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_handler_that_is_slow_or_panics_harms_nobody_and_gets_the_last_position() {
    let (client, _) = place("handler").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let gate = Arc::new(Semaphore::new(0));
    let (calls, mut told_to) = mpsc::channel(64);
    let a = group.join_with(Awkward { gate: gate.clone(), calls }).await.unwrap();
    let called = async |calls: &mut mpsc::Receiver<Standing>| {
        tokio::time::timeout(LONG, calls.recv()).await.unwrap().unwrap()
    };
    assert_eq!(told(&called(&mut told_to).await), "0/1");
    // It hangs there; all this goes on.
    let b = group.join().await.unwrap();
    let c = group.join().await.unwrap();
    in_order([&a, &b, &c]).await;
    gate.add_permits(1);
    assert_eq!(told(&called(&mut told_to).await), "0/3", "what came in between is not told");
    gate.add_permits(1);
    b.leave().await.unwrap();
    assert_eq!(told(&called(&mut told_to).await), "0/2", "a panic does not end it");
    a.leave().await.expect("leaving does not wait for a handler");
    gate.add_permits(8);
    assert_eq!(called(&mut told_to).await, Err(Invalid::Left));
    assert!(tokio::time::timeout(LONG, told_to.recv()).await.unwrap().is_none(), "the last one was the last");
    drop(c);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stream_that_nobody_reads_skips_to_the_newest_position_and_holds_nobody_up() {
    let (client, _) = place("skips").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let a = group.join().await.unwrap();
    let mut positions = a.positions();
    for _ in 0..20 {
        let _passing = group.join().await.unwrap();
    }
    let _stays = group.join().await.unwrap();
    reads(&a, "0/2").await;
    assert_eq!(told(&next(&mut positions).await), "0/2");
}

/// The stream and the inherent `next` are the same.
async fn through_stream(positions: &mut Positions) -> Option<Standing> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *positions).poll_next(cx)).await
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn positions_are_a_stream_too_and_outlive_a_dropped_member() {
    let (client, _) = place("stream").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let mut positions = member.positions();
    assert_eq!(told(&through_stream(&mut positions).await.unwrap()), "0/1");
    drop(member);
    assert_eq!(through_stream(&mut positions).await, Some(Err(Invalid::Left)));
    assert_eq!(through_stream(&mut positions).await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn partitions_have_one_owner_each_and_only_those_of_the_leaver_move() {
    let (client, _) = place("partitions").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(group.join().await.unwrap());
    }
    in_order(&members).await;
    let before: Vec<_> = members.iter().map(|member| member.position().unwrap()).collect();
    let mut all: Vec<u32> = before.iter().flat_map(|position| position.partitions(64)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..64).collect::<Vec<_>>());
    assert_eq!(before.iter().filter(|position| position.owns("some key")).count(), 1);

    let gone = members.remove(1);
    gone.leave().await.unwrap();
    in_order(&members).await;
    let mut gained = Vec::new();
    for (member, was) in members.iter().zip(before.iter().enumerate().filter(|(n, _)| *n != 1)) {
        let moves = sereno_seq::Position::moves(Some(was.1), Some(&member.position().unwrap()), 64);
        assert_eq!(moves.lost, Vec::<u32>::new(), "nothing moves between those who stay");
        gained.extend(moves.gained);
    }
    gained.sort_unstable();
    assert_eq!(gained, before[1].partitions(64));
}

#[tokio::test]
#[ignore = "needs a real etcd: metrics"]
async fn members_that_join_cost_each_other_events_and_no_readings() {
    let etcd = Etcd::single().await;
    let client = common::client_of(&etcd.endpoint(), "cost").await;
    let mut groups = Vec::new();
    for _ in 0..4 {
        let session = session(&client, 15).await;
        groups.push(Sequence::new(&session, "g"));
    }
    let mut members = Vec::new();
    for group in &groups {
        members.push(group.join().await.unwrap());
    }
    let ranges = async || etcd.metrics().await.get("etcd_debugging_mvcc_range_total").unwrap();
    let (before, joins) = (ranges().await, 60);
    for n in 0..joins {
        members.push(groups[n % 4].join().await.unwrap());
    }
    in_order(&members).await;
    let read = ranges().await - before;
    println!("{joins} members more: {read} readings");
    // A join is one transaction, which reads what it compares; what would be one reading for each member is 60 times that.
    assert!(read <= 6.0 * joins as f64, "{read}");
}
