//! Many at the same time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{LONG, client_of, keys, place, session, stable};
use sereno_seq::core::{Key, Op, Session, Txn, chance};
use sereno_seq::{Claim, Member, Sequence};
use sereno_testkit::{eventually, fresh_namespace, shared};

/// Eight sessions, each on a client of its own.
async fn sessions(count: usize, namespace: &str) -> Vec<Session> {
    let endpoints = shared().await;
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(session(&client_of(&endpoints[0], namespace).await, 15).await);
    }
    sessions
}

/// Waits until the members agree: each index once, and the number of them.
async fn agree(members: &[Member]) {
    eventually(LONG, "all to agree", async || {
        let mut seen = vec![false; members.len()];
        for member in members {
            let position = member.position().ok()?;
            (position.count == members.len()).then_some(())?;
            if std::mem::replace(seen.get_mut(position.index)?, true) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn three_hundred_that_join_at_the_same_time_agree_on_who_is_who_in_the_order_of_joining() {
    const MEMBERS: usize = 300;
    let sessions = sessions(8, &fresh_namespace("many")).await;
    let started = Instant::now();
    let joining: Vec<_> = (0..MEMBERS)
        .map(|n| {
            let group = Sequence::new(&sessions[n % sessions.len()], "g");
            tokio::spawn(async move { group.join().await.unwrap() })
        })
        .collect();
    let mut members = Vec::new();
    for member in joining {
        members.push(tokio::time::timeout(LONG, member).await.unwrap().unwrap());
    }
    agree(&members).await;
    println!("{MEMBERS} members of 8 sessions joined and agree after {:?}", started.elapsed());
    members.sort_by_key(|member| member.position().unwrap().index);
    let since: Vec<i64> = members.iter().map(|member| member.position().unwrap().since).collect();
    assert!(since.is_sorted(), "the index is the order of joining");
    let started = Instant::now();
    members.remove(MEMBERS / 2).leave().await.unwrap();
    agree(&members).await;
    println!("one of them left, and all others know after {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_hundred_that_join_at_the_same_time_get_the_hundred_lowest_slots() {
    const MEMBERS: usize = 100;
    let sessions = sessions(8, &fresh_namespace("slots")).await;
    let started = Instant::now();
    let joining: Vec<_> = (0..MEMBERS)
        .map(|n| {
            let group = stable(&sessions[n % sessions.len()], "g");
            tokio::spawn(async move { group.join().await.unwrap() })
        })
        .collect();
    let mut members = Vec::new();
    for member in joining {
        members.push(tokio::time::timeout(LONG, member).await.unwrap().unwrap());
    }
    agree(&members).await;
    println!("{MEMBERS} members of 8 sessions have their slots after {:?}", started.elapsed());
}

/// Who held which index from when to when, as the holders themselves saw it, and an independent witness in etcd: a key that
/// each holder creates when it starts and deletes when it stops.
#[derive(Default)]
struct Record {
    holders: Mutex<BTreeMap<usize, u64>>,
    tokens: Mutex<BTreeMap<usize, i64>>,
    stays: Mutex<usize>,
}

impl Record {
    async fn start(&self, claim: &Claim, who: u64, session: &Session) -> Key {
        let before = self.holders.lock().unwrap().insert(claim.index(), who);
        assert_eq!(before, None, "{who} starts at {} beside another one", claim.index());
        let last = self.tokens.lock().unwrap().insert(claim.index(), claim.token());
        assert!(last.is_none_or(|last| last < claim.token()), "the token of {} went back", claim.index());
        let witness = session.client().namespace().prefix("witness").unwrap();
        let witness = witness.key(claim.index().to_string()).unwrap();
        let create = Txn::new()
            .when(claim.fence())
            .when(sereno_seq::core::Compare::absent(&witness))
            .then(Op::put(&witness, who.to_string()));
        let reply = session.client().settle(&create).await.unwrap().reply;
        assert!(reply.succeeded, "{who} holds {} and somebody else works there", claim.index());
        witness
    }

    async fn stop(&self, claim: &Claim, who: u64, session: &Session, witness: &Key) {
        let delete = Txn::new().when(claim.fence()).then(Op::delete(witness));
        assert!(session.client().settle(&delete).await.unwrap().reply.succeeded, "held until it stops");
        assert_eq!(self.holders.lock().unwrap().remove(&claim.index()), Some(who));
        *self.stays.lock().unwrap() += 1;
    }
}

/// A consumer as etcdseq has it: drain to the newest position, stop the old work, claim the index, start.
async fn consumer(group: Sequence, session: Session, record: Arc<Record>, who: u64, life: Duration) {
    let member = group.join().await.unwrap();
    let end = tokio::time::Instant::now() + life;
    let mut positions = member.positions();
    // The newest position, whatever came before it.
    while let Some(standing) = positions.next().await {
        if standing.is_err() {
            continue;
        }
        // One that waits for its index at the end of its life gives up, at any moment.
        let Ok(claim) = tokio::time::timeout_at(end, member.claim()).await else { break };
        let claim = claim.unwrap();
        let witness = record.start(&claim, who, &session).await;
        let over = tokio::time::timeout_at(end, claim.lost()).await.is_err();
        record.stop(&claim, who, &session, &witness).await;
        claim.release().await.unwrap();
        if over {
            break;
        }
        // The present position counts as news, also when it was told before.
        positions = member.positions();
    }
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn no_index_ever_has_two_holders_while_many_come_and_go() {
    const CLIENTS: usize = 16;
    let sessions = sessions(CLIENTS, &fresh_namespace("holders")).await;
    let record = Arc::new(Record::default());
    let mut consumers = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        let (session, record) = (session.clone(), record.clone());
        consumers.push(tokio::spawn(async move {
            for round in 0..3_u64 {
                let life = Duration::from_millis(100 + chance::number() % 900);
                let group = Sequence::new(&session, "g");
                consumer(group, session.clone(), record.clone(), n as u64 * 10 + round, life).await;
            }
        }));
    }
    for consumer in consumers {
        tokio::time::timeout(3 * LONG, consumer).await.expect("bounded").unwrap();
    }
    assert!(record.holders.lock().unwrap().is_empty());
    let stays = *record.stays.lock().unwrap();
    println!("{stays} stays at an index");
    assert!(stays >= CLIENTS, "{stays}");
    for session in sessions {
        session.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn claims_given_up_at_random_moments_leave_nothing_and_let_the_others_through() {
    let (client, oracle) = place("given-up").await;
    let one = session(&client, 15).await;
    let group = Sequence::new(&one, "g");
    let member = Arc::new(group.join().await.unwrap());
    let mut tasks = Vec::new();
    let held = Arc::new(Mutex::new(0_u32));
    for _ in 0..8 {
        let (member, held) = (member.clone(), held.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                let patience = Duration::from_micros(chance::number() % 5000);
                if let Ok(claim) = tokio::time::timeout(patience, member.claim()).await {
                    let claim = claim.unwrap();
                    let beside = std::mem::replace(&mut *held.lock().unwrap(), 1);
                    assert_eq!(beside, 0, "two have the same index");
                    tokio::task::yield_now().await;
                    *held.lock().unwrap() = 0;
                    drop(claim);
                }
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(LONG, task).await.unwrap().unwrap();
    }
    let last = tokio::time::timeout(LONG, member.claim()).await.unwrap().unwrap();
    last.release().await.unwrap();
    eventually(LONG, "no claim to be left", async || {
        keys(&oracle, &client, "g/claims/").await.is_empty().then_some(())
    })
    .await;
}
