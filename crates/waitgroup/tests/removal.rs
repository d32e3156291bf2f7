//! Removing wait groups.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Place, soon, still_waiting};
use sereno_waitgroup::{Error, WaitGroup};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_that_is_done_is_removed_and_leaves_one_key_for_ten_minutes() {
    let place = Place::shared("removed").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "g");
    assert!(!group.remove().await.unwrap(), "there was none");
    assert_eq!(place.listing("g").await, Vec::<String>::new());
    let worker = group.enter("w").await.unwrap();
    group.add(2).await.unwrap();
    assert!(matches!(group.remove().await.unwrap_err(), Error::InUse { count: 3 }));
    group.done_many(2).await.unwrap();
    assert!(matches!(group.remove().await.unwrap_err(), Error::InUse { count: 1 }));
    worker.done().await.unwrap();
    assert!(group.remove().await.unwrap());
    assert!(!group.remove().await.unwrap());
    session.close().await.unwrap();
    let left = place.listing("g").await;
    assert!(left.len() == 1 && left[0].starts_with("value "), "{left:?}");
    let key = format!("{}/waitgroup/g/value", place.namespace);
    let base = place.oracle().await.client().get(key, None).await.unwrap();
    assert!(place.oracle().await.revoke(base.kvs()[0].lease()).await, "it is on a lease");
    assert_eq!(place.listing("g").await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_a_session_that_died_has_added_leaves_no_key_either() {
    let place = Place::shared("dead").await;
    let session = place.session().await;
    let group = WaitGroup::new(&session, "g");
    let dying = place.session().await;
    WaitGroup::new(&dying, "g").add(2).await.unwrap();
    group.done_many(2).await.unwrap();
    let oracle = place.oracle().await;
    let key = dying.epoch().key().as_bytes().to_vec();
    let lease = oracle.client().get(key, None).await.unwrap().kvs()[0].lease();
    assert!(oracle.revoke(lease).await);
    assert!(group.remove().await.unwrap());
    let left = place.listing("g").await;
    // A receipt is on a lease; one's own cell is counted in when one is idle.
    let dead = format!("cells/{}", dying.epoch().id());
    assert!(!left.iter().any(|line| line.starts_with(&dead)), "{left:?}");
    session.close().await.unwrap();
    let left = place.listing("g").await;
    assert!(left.iter().all(|line| line.starts_with("value ") || line.starts_with("folded/")), "{left:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn after_a_removal_the_name_is_that_of_a_new_group() {
    let place = Place::shared("new").await;
    let group = WaitGroup::new(&place.session().await, "g");
    group.add(1).await.unwrap();
    group.done().await.unwrap();
    soon(group.wait()).await.unwrap();
    group.remove().await.unwrap();
    // A group that was never added to is waited for.
    let other = WaitGroup::new(&place.session().await, "g");
    let mut waiting = tokio::spawn(async move { other.wait().await });
    assert!(still_waiting(&mut waiting).await);
    group.add(1).await.unwrap();
    assert!(still_waiting(&mut waiting).await);
    group.done().await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn those_who_wait_and_those_who_work_are_told_of_a_forced_removal() {
    let place = Place::shared("forced").await;
    let group = WaitGroup::new(&place.session().await, "g");
    let worker = WaitGroup::new(&place.session().await, "g").enter("w").await.unwrap();
    group.add(3).await.unwrap();
    let waiter = WaitGroup::new(&place.session().await, "g");
    let mut waiting = tokio::spawn(async move { waiter.wait().await });
    assert!(still_waiting(&mut waiting).await);
    assert!(group.remove_forced().await.unwrap());
    // It is used again at once: whoever waited for the old one is not told that it was released.
    group.add(1).await.unwrap();
    assert!(matches!(soon(waiting).await.unwrap().unwrap_err(), Error::Deleted));
    assert!(matches!(worker.done().await.unwrap_err(), Error::Dismissed { .. }));
    assert_eq!(group.count().await.unwrap(), 1);
    assert_eq!(group.workers().await.unwrap(), []);
}
