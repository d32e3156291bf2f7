//! One holder of an index at a time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{LONG, in_order, key, keys, place, reads, session, told};
use sereno_seq::core::{Op, Txn};
use sereno_seq::{Claim, ClaimLost, Error, Invalid, Member, Result, Sequence};
use sereno_testkit::eventually;
use tokio::task::JoinHandle;

/// Claims in the background. The member lives on.
fn claiming(member: &std::sync::Arc<Member>) -> JoinHandle<Result<Claim>> {
    let member = member.clone();
    tokio::spawn(async move { member.claim().await })
}

async fn claimed(waiting: JoinHandle<Result<Claim>>) -> Claim {
    tokio::time::timeout(LONG, waiting).await.expect("a claim in time").unwrap().unwrap()
}

async fn lost(claim: &Claim) -> ClaimLost {
    tokio::time::timeout(LONG, claim.lost()).await.expect("the loss in time")
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_next_holder_of_an_index_waits_until_the_former_one_has_released_it() {
    let (client, oracle) = place("handover").await;
    let (one, two) = (session(&client, 15).await, session(&client, 15).await);
    let a = Sequence::new(&one, "g").join().await.unwrap();
    let b = std::sync::Arc::new(Sequence::new(&two, "g").join().await.unwrap());
    let (first, second) = (a.claim().await.unwrap(), b.claim().await.unwrap());
    assert_eq!((first.index(), second.index()), (0, 1));
    assert_eq!(keys(&oracle, &client, "g/claims/").await, ["0", "1"]);
    a.leave().await.unwrap();
    assert_eq!(lost(&first).await, ClaimLost::Invalid(Invalid::Left));
    assert_eq!(lost(&second).await, ClaimLost::Moved { to: 0 });
    assert!(!first.is_valid() && !second.is_valid());

    let mut waiting = claiming(&b);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "the former holder has not stopped yet");
    assert_eq!(keys(&oracle, &client, "g/claims/").await, ["0", "1"], "nor is the key of 1 given up");
    let old = first.token();
    first.release().await.unwrap();
    let third = claimed(waiting).await;
    assert_eq!(third.index(), 0);
    assert!(third.token() > old, "tokens of an index grow");
    drop(second);
    eventually(LONG, "the dropped claim's key to go", async || {
        (keys(&oracle, &client, "g/claims/").await == ["0"]).then_some(())
    })
    .await;
    assert!(third.is_valid());
    assert_eq!(third.ended(), None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_holder_of_three_is_told_when_it_becomes_two_and_the_next_three_waits_for_it() {
    let (client, _) = place("shift").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let mut members = Vec::new();
    for _ in 0..4 {
        members.push(group.join().await.unwrap());
    }
    in_order(&members).await;
    let three = members[3].claim().await.unwrap();
    assert_eq!(three.index(), 3);
    members.remove(0).leave().await.unwrap();
    assert_eq!(lost(&three).await, ClaimLost::Moved { to: 2 });
    let next = std::sync::Arc::new(group.join().await.unwrap());
    assert_eq!(told(&next.position()), "3/4");
    let mut waiting = claiming(&next);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    // The holder may claim its new index before it lets go of the old one.
    let two = members[2].claim().await.unwrap();
    assert_eq!(two.index(), 2);
    drop(three);
    assert_eq!(claimed(waiting).await.index(), 3);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_claim_follows_its_member_to_another_index_while_it_waits() {
    let (client, _) = place("follows").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let a = group.join().await.unwrap();
    let b = group.join().await.unwrap();
    let one = b.claim().await.unwrap();
    assert_eq!(one.index(), 1);
    b.leave().await.unwrap();
    let c = std::sync::Arc::new(group.join().await.unwrap());
    let waiting = claiming(&c);
    reads(&c, "1/2").await;
    // Index 1 stays claimed; the waiting member becomes 0, which is free.
    a.leave().await.unwrap();
    let claim = claimed(waiting).await;
    assert_eq!(claim.index(), 0);
    assert!(one.ended().is_some());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_pending_claim_that_is_dropped_leaves_no_key_whenever_that_is() {
    let (client, oracle) = place("dropped").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    for steps in 0..40_u32 {
        let mut pending = Box::pin(member.claim());
        for _ in 0..steps {
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(pending.as_mut().poll(cx))).await;
            if let std::task::Poll::Ready(claim) = poll {
                assert_eq!(claim.unwrap().index(), 0);
                pending = Box::pin(member.claim());
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        drop(pending);
    }
    let claim = tokio::time::timeout(LONG, member.claim()).await.expect("none was left behind").unwrap();
    claim.release().await.unwrap();
    eventually(LONG, "no claim to be left", async || {
        keys(&oracle, &client, "g/claims/").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_claim_costs_no_lease_and_no_key_but_its_own() {
    let (client, oracle) = place("frugal").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let seat = keys(&oracle, &client, "g/seats/").await[0].clone();
    let lease = common::lease_of(&oracle, key(&client, &format!("g/seats/{seat}"))).await;
    for _ in 0..20 {
        let claim = member.claim().await.unwrap();
        assert_eq!(common::lease_of(&oracle, key(&client, "g/claims/0")).await, lease);
        claim.release().await.unwrap();
        assert_eq!(keys(&oracle, &client, "g/").await.len(), 1, "the seat");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_claim_whose_key_is_deleted_underneath_is_told_and_its_fence_holds_no_more() {
    let (client, oracle) = place("underneath").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let claim = member.claim().await.unwrap();
    let resource = client.namespace().prefix("resource").unwrap().key("r").unwrap();
    let write = Txn::new().when(claim.fence()).then(Op::put(&resource, "by the holder"));
    assert!(client.settle(&write).await.unwrap().reply.succeeded);
    assert!(oracle.delete(key(&client, "g/claims/0")).await);
    assert!(!client.settle(&write).await.unwrap().reply.succeeded, "the fence knows it before anybody");
    assert_eq!(lost(&claim).await, ClaimLost::Deleted);
    let again = member.claim().await.unwrap();
    assert!(again.token() > claim.token());
    // A claim lost long ago takes nothing from its successor.
    claim.release().await.unwrap();
    assert!(again.is_valid());
    let write = Txn::new().when(again.fence()).then(Op::put(&resource, "by the next"));
    assert!(client.settle(&write).await.unwrap().reply.succeeded);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_claim_of_a_member_that_leaves_or_has_left_ends_with_an_error() {
    let (client, _) = place("left").await;
    let session = session(&client, 15).await;
    let group = Sequence::new(&session, "g");
    let a = std::sync::Arc::new(group.join().await.unwrap());
    let held = a.claim().await.unwrap();
    let waiting = claiming(&a);
    a.leave().await.unwrap();
    let refused = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused, Error::Invalid(Invalid::Left)), "{refused:?}");
    assert!(!refused.is_retryable());
    let refused = a.claim().await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(Invalid::Left)), "{refused:?}");
    // What it holds it holds until it lets go.
    let b = std::sync::Arc::new(group.join().await.unwrap());
    let mut waiting = claiming(&b);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    drop((held, a));
    assert_eq!(claimed(waiting).await.index(), 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_claim_of_a_member_whose_seat_was_deleted_is_told_and_stays_until_released() {
    let (client, oracle) = place("seat").await;
    let session = session(&client, 15).await;
    let member = Sequence::new(&session, "g").join().await.unwrap();
    let claim = member.claim().await.unwrap();
    let seat = keys(&oracle, &client, "g/seats/").await[0].clone();
    assert!(oracle.delete(key(&client, &format!("g/seats/{seat}"))).await);
    assert_eq!(lost(&claim).await, ClaimLost::Invalid(Invalid::SeatLost));
    reads(&member, "0/1").await;
    assert!(!claim.is_valid(), "once lost it stays lost");
    assert_eq!(keys(&oracle, &client, "g/claims/").await, ["0"]);
    claim.release().await.unwrap();
    assert_eq!(member.claim().await.unwrap().index(), 0);
}
