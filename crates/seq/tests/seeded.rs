//! Members under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sereno_seq::core::{Client, Compare, Op, Session, Txn, chance};
use sereno_seq::{Assignment, Claim, Error, Member, OnLoss, Sequence, SequenceOptions};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

/// Every other seed has stable assignment.
fn options(stage: &Stage) -> SequenceOptions {
    let stable = (stage.seed() / 5) % 2 == 1;
    SequenceOptions::default().assignment(if stable { Assignment::Stable } else { Assignment::Compact })
}

fn passes(error: &Error) -> bool {
    error.is_retryable() || error.is_outcome_unknown() || error.is_session_lost()
}

/// Joins, however often it takes.
async fn join(group: &Sequence) -> Member {
    for _ in 0..200 {
        match group.join().await {
            Ok(member) => return member,
            Err(error) => assert!(passes(&error), "{error:?}"),
        }
        idle(200).await;
    }
    panic!("nobody can join");
}

/// What holders did, as they saw it: their own clocks are this run's clock.
struct Record {
    /// Whether leases only end when their owners know it. One that is revoked ends before its owner has heard of it: then
    /// only what is fenced is certain.
    strict: bool,
    working: Mutex<BTreeMap<usize, u64>>,
    tokens: Mutex<BTreeMap<usize, i64>>,
    stays: Mutex<u64>,
}

impl Record {
    /// Works for a while, and never while somebody else does who may still believe that the index is his.
    async fn work(&self, claim: &Claim, who: u64, client: &Client) {
        if !claim.is_valid() {
            return;
        }
        let before = self.working.lock().unwrap().insert(claim.index(), who);
        let last = self.tokens.lock().unwrap().insert(claim.index(), claim.token());
        if self.strict {
            assert_eq!(before, None, "{who} works at {} beside another one", claim.index());
            assert!(last.is_none_or(|last| last < claim.token()), "the token of {} went back", claim.index());
        }
        *self.stays.lock().unwrap() += 1;
        let until = tokio::time::Instant::now() + Duration::from_millis(100 + chance::number() % 1000);
        // The moment the claim is lost the work stops, as it must.
        let lost = tokio::time::timeout_at(until, claim.lost()).await;
        let stopped = self.working.lock().unwrap().remove(&claim.index());
        assert!(stopped == Some(who) || !self.strict, "{stopped:?} stopped, not {who}");
        if lost.is_err() {
            self.write(claim, client).await;
        }
    }

    /// A fenced write: the token stored at an index never goes back, and so nobody late gets through.
    async fn write(&self, claim: &Claim, client: &Client) {
        let key = client.namespace().prefix("work").unwrap().key(claim.index().to_string()).unwrap();
        let stored = match client.get(&key).await {
            Ok(Some(kv)) => String::from_utf8(kv.value.to_vec()).unwrap().parse().unwrap(),
            Ok(None) => 0,
            Err(_) => return,
        };
        let write = Txn::new().when(claim.fence()).then(Op::put(&key, claim.token().to_string()));
        if let Ok(settled) = client.settle(&write).await
            && settled.reply.succeeded
        {
            assert!(stored <= claim.token(), "{stored} was there before {}", claim.token());
        }
    }
}

/// One member's life: joins, claims, works, leaves, more than once. Says at the end who it is.
async fn live(group: Sequence, session: Session, record: Arc<Record>, who: u64) -> Option<Member> {
    let mut member = Some(join(&group).await);
    for _ in 0..4 {
        idle(1000).await;
        member = match member {
            Some(member) => {
                let patience = Duration::from_millis(chance::number() % 2000);
                match tokio::time::timeout(patience, member.claim()).await {
                    Ok(Ok(claim)) => {
                        record.work(&claim, who, session.client()).await;
                        if chance::below(2) == 0 {
                            let released = claim.release().await;
                            assert!(released.is_ok() || released.is_err_and(|error| passes(&error)));
                        }
                    }
                    Ok(Err(error)) => assert!(passes(&error), "{error:?}"),
                    Err(_) => {}
                }
                match chance::below(4) {
                    0 => {
                        // One that does not know whether it has left will have.
                        let left = member.leave().await;
                        assert!(left.is_ok() || left.is_err_and(|error| passes(&error)));
                        None
                    }
                    1 => {
                        drop(member);
                        None
                    }
                    _ => Some(member),
                }
            }
            None if chance::below(8) == 0 => {
                // A join that is given up at any moment.
                let patience = Duration::from_millis(chance::number() % 300);
                drop(tokio::time::timeout(patience, group.join()).await);
                None
            }
            None => Some(join(&group).await),
        };
    }
    member
}

/// What a stream tells adds up: it alternates, and a stay has one identity.
async fn follow(member: Member) -> Member {
    let mut positions = member.positions();
    let mut last: Option<(u64, i64)> = None;
    let watching = async {
        while let Some(standing) = positions.next().await {
            match standing {
                Ok(position) => {
                    let stay = (position.epoch, position.since);
                    assert!(
                        last.is_none_or(|last| last == stay),
                        "{last:?}, then {stay:?}, and nothing in between"
                    );
                    last = Some(stay);
                }
                Err(_) => last = None,
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(8), watching).await);
    member
}

async fn many_live(stage: &Stage, assignment: Assignment) {
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(stage.session().await);
    }
    let options = SequenceOptions::default().assignment(assignment);
    let strict = !matches!(stage.seed() % 5, 2 | 4);
    let record = Arc::new(Record {
        strict,
        working: Mutex::default(),
        tokens: Mutex::default(),
        stays: Mutex::default(),
    });
    stage.disturb();
    let mut lives = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        let group = Sequence::with_options(session, "g", options.clone());
        // Two members of one session, and one of each other.
        for which in 0..if n == 0 { 2 } else { 1 } {
            let who = n as u64 * 10 + which;
            let life = live(group.clone(), session.clone(), record.clone(), who);
            lives.push(tokio::spawn(life));
        }
    }
    let stays = Sequence::with_options(&sessions[0], "g", options.clone().on_loss(OnLoss::Rejoin));
    lives.push(tokio::spawn(async move { Some(follow(join(&stays).await).await) }));
    let mut members = Vec::new();
    for life in lives {
        members.extend(life.await.unwrap());
    }
    stage.calm();
    assert!(record.working.lock().unwrap().is_empty());
    assert!(*record.stays.lock().unwrap() > 0, "nobody worked");
    // Each member has its place, and there is no other.
    let count = members.len();
    let settled = async || {
        let mut positions = Vec::new();
        for member in &members {
            let position = member.position().ok()?;
            (position.count == count).then_some(())?;
            positions.push(position);
        }
        positions.sort_by_key(|position| position.index);
        Some(positions)
    };
    let positions = stage.until("every member to have its place, and nobody else", settled).await;
    let indices: Vec<usize> = positions.iter().map(|position| position.index).collect();
    if options.assignment == Assignment::Compact {
        assert_eq!(indices, (0..count).collect::<Vec<_>>());
        assert!(
            positions.is_sorted_by_key(|position| position.since),
            "in the order of joining: {positions:?}"
        );
    } else {
        assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "two have one slot: {indices:?}");
    }
    let mut all: Vec<u32> = positions.iter().flat_map(|position| position.partitions(50)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<_>>());
    // Every index can be claimed, and nothing but seats, slots and these claims is left.
    let mut claims = Vec::new();
    for member in &members {
        match tokio::time::timeout(Duration::from_secs(100), member.claim()).await {
            Ok(c) => claims.push(c.unwrap()),
            Err(_) => {
                println!("now {:?}", tokio::time::Instant::now());
                println!(
                    "stuck {member:?} {:?} held {claims:?}",
                    sessions.iter().map(|s| s.status()).collect::<Vec<_>>()
                );
                for m in &members {
                    println!("{m:?}");
                }
                let client = stage.client(Duration::from_secs(5));
                for kv in client.range(client.namespace().root()).await.unwrap().entries {
                    println!("{kv:?} {:?}", kv.value);
                }
                panic!();
            }
        }
    }
    assert!(claims.iter().all(Claim::is_valid));
    let client = stage.client(Duration::from_secs(5));
    let group = client.namespace().prefix("seq").unwrap().join("g").unwrap();
    let tidy = async || {
        let under = |folder: &str| group.join(folder).unwrap();
        let claimed = client.range(&under("claims")).await.ok()?.entries.len();
        let slots = client.range(&under("slots")).await.ok()?.entries.len();
        let expected = if options.assignment == Assignment::Stable { count } else { 0 };
        (claimed == count && slots == expected).then_some(())
    };
    stage.until("what is left to be what is used", tidy).await;
    drop(claims);
    for member in &members {
        member.leave().await.unwrap();
    }
    for session in &sessions {
        session.close().await.unwrap();
    }
    assert_eq!(client.range(&group).await.unwrap().entries.len(), 0);
}

#[test]
fn at_the_end_the_indices_are_the_order_of_joining_and_none_ever_had_two_holders() {
    let test = "at_the_end_the_indices_are_the_order_of_joining_and_none_ever_had_two_holders";
    let scenario = async |stage: &Stage| many_live(stage, Assignment::Compact).await;
    Seeds::new(env!("CARGO_PKG_NAME"), test, 60).run(scenario);
}

#[test]
fn at_the_end_every_member_has_a_slot_and_none_ever_had_two_holders() {
    let test = "at_the_end_every_member_has_a_slot_and_none_ever_had_two_holders";
    let scenario = async |stage: &Stage| many_live(stage, Assignment::Stable).await;
    Seeds::new(env!("CARGO_PKG_NAME"), test, 60).run(scenario);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(async |stage: &Stage| {
        let stable = stage.seed() % 2 == 1;
        many_live(stage, if stable { Assignment::Stable } else { Assignment::Compact }).await;
    });
}

#[test]
fn a_join_whose_every_answer_is_lost_at_first_counts_once() {
    let test = "a_join_whose_every_answer_is_lost_at_first_counts_once";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 6).run(async |stage| {
        let session = stage.session().await;
        for assignment in [Assignment::Compact, Assignment::Stable] {
            let options = SequenceOptions::default().assignment(assignment);
            let group = Sequence::with_options(&session, assignment.word(), options);
            stage.faults().next(Call::Txn, 3, Fault::LoseReply);
            let member = stage.soon("a join", group.join()).await.unwrap();
            let position = member.position().unwrap();
            assert_eq!((position.index, position.count), (0, 1));
            stage.faults().next(Call::Txn, 2, Fault::LoseReply);
            let claim = stage.soon("a claim", member.claim()).await.unwrap();
            assert!(claim.is_valid());
            stage.faults().next(Call::Txn, 2, Fault::LoseReply);
            claim.release().await.unwrap();
            stage.faults().next(Call::Txn, 2, Fault::LoseReply);
            member.leave().await.unwrap();
            let client = stage.client(Duration::from_secs(5));
            let prefix = client.namespace().prefix("seq").unwrap().join(assignment.word()).unwrap();
            assert_eq!(client.range(&prefix).await.unwrap().entries.len(), 0);
        }
    });
}

/// A name for a test's group.
trait Name {
    fn word(self) -> &'static str;
}

impl Name for Assignment {
    fn word(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            _ => "compact",
        }
    }
}

#[test]
fn a_member_whose_lease_ended_joins_again_under_the_next_epoch() {
    let test = "a_member_whose_lease_ended_joins_again_under_the_next_epoch";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 10).run(async |stage| {
        let session = stage.session().await;
        let member = join(&Sequence::with_options(&session, "g", options(stage))).await;
        let claim = stage.soon("a claim", member.claim()).await.unwrap();
        let mut positions = member.positions();
        let first = positions.next().await.unwrap().unwrap();
        assert_eq!(stage.faults().expire_all_sessions(), 1);
        let ended = stage.soon("the loss", positions.next()).await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
        let second = stage.soon("the next position", positions.next()).await.unwrap().unwrap();
        assert_eq!((second.index, second.count, second.epoch), (0, 1, 2));
        assert!(second.since > first.since);
        assert!(!claim.is_valid());
        let again = stage.soon("a claim", member.claim()).await.unwrap();
        assert!(again.token() > claim.token());
        let late = Txn::new().when(claim.fence()).then(Op::delete(&key(&session)));
        assert!(!session.client().settle(&late).await.unwrap().reply.succeeded);
    });
}

fn key(session: &Session) -> sereno_seq::core::Key {
    session.client().namespace().prefix("any").unwrap().key("key").unwrap()
}

#[test]
fn a_group_that_was_compacted_while_the_watch_was_cut_off_is_right_again() {
    let test = "a_group_that_was_compacted_while_the_watch_was_cut_off_is_right_again";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 10).run(async |stage| {
        let (one, two) = (stage.session().await, stage.session().await);
        let (first, second) = (Sequence::new(&one, "g"), Sequence::new(&two, "g"));
        let (a, b) = (join(&first).await, join(&second).await);
        stage.faults().next(Call::Watch, 6, Fault::LoseRequest);
        stage.faults().cut_streams();
        a.leave().await.unwrap();
        stage.faults().compact();
        let alone = async || (b.position().ok()?.to_string() == "0/1").then_some(());
        stage.until("the other to be alone", alone).await;
        let marker = Txn::new().when(Compare::absent(&key(&one))).then(Op::put(&key(&one), "x"));
        assert!(one.client().settle(&marker).await.unwrap().reply.succeeded);
    });
}
