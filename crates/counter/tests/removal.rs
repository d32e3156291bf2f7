//! Removing counters.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{NAME, Place, SOON};
use sereno_counter::{Counter, Error};
use sereno_testkit::{Member, Proxy, eventually};
use tokio::time::timeout;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_removed_counter_is_zero_and_leaves_nothing_that_stays() {
    let place = Place::shared("removed").await;
    let session = place.session().await;
    let counter = Counter::new(&session, NAME);
    assert!(!counter.remove().await.unwrap(), "there was none");
    assert_eq!(place.stored().await, [], "and asking for it leaves nothing");
    counter.add(7).await.unwrap();
    counter.set(40).await.unwrap();
    assert!(counter.remove().await.unwrap());
    assert_eq!(counter.get().await.unwrap(), 0);
    assert!(!counter.remove().await.unwrap(), "it is gone");
    session.close().await.unwrap();
    let mut etcd = place.oracle().await.client();
    let left = etcd.get(place.key("value"), None).await.unwrap();
    assert_eq!(place.stored().await.len(), 1, "{:?}", place.stored().await);
    let ttl = etcd.lease_time_to_live(left.kvs()[0].lease(), None).await.unwrap();
    assert!((1..=600).contains(&ttl.ttl()), "{ttl:?}");
    assert!(place.oracle().await.revoke(left.kvs()[0].lease()).await);
    assert_eq!(place.stored().await, [], "ten minutes later");
    let counter = place.counter().await;
    assert_eq!((counter.get().await.unwrap(), counter.add(3).await.unwrap()), (0, 3));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_removed_counter_counts_again_and_stays_then() {
    let place = Place::shared("again").await;
    let counter = place.counter().await;
    for (round, first) in [2, 5, -3].into_iter().enumerate() {
        assert_eq!(counter.add(first).await.unwrap(), first, "round {round}");
        assert_eq!(counter.add(1).await.unwrap(), first + 1);
        let mut etcd = place.oracle().await.client();
        let base = etcd.get(place.key("value"), None).await.unwrap();
        assert_eq!(base.kvs()[0].lease(), 0, "it stays");
        assert!(counter.remove().await.unwrap());
        if round == 1 {
            counter.set(9).await.unwrap();
            assert_eq!(counter.get().await.unwrap(), 9);
            counter.compare_and_set(9, 0).await.unwrap();
            assert!(counter.remove().await.unwrap());
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_counter_that_others_count_at_is_removed_by_force_only() {
    let place = Place::shared("in_use").await;
    let (mine, other) = (place.counter().await, place.counter().await);
    mine.add(1).await.unwrap();
    other.add(1).await.unwrap();
    let mut changes = other.watch().await.unwrap();
    assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 2);
    assert!(matches!(mine.remove().await.unwrap_err(), Error::InUse { sessions: 1 }));
    assert_eq!(mine.get().await.unwrap(), 2, "nothing has happened");
    assert!(mine.remove_forced().await.unwrap());
    assert_eq!(timeout(SOON, changes.next()).await.unwrap().unwrap().unwrap(), 0);
    assert_eq!(other.add(1).await.unwrap(), 1);
    assert_eq!(mine.add(1).await.unwrap(), 2);
    // Who has written nothing for five seconds does not use it.
    let idle = async || mine.remove().await.ok();
    assert!(eventually(SOON, "the other to be idle", idle).await);
    assert_eq!(other.get().await.unwrap(), 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_that_died_does_not_hold_a_counter() {
    let place = Place::shared("dead").await;
    let (mine, session) = (place.counter().await, place.session().await);
    let other = Counter::new(&session, NAME);
    mine.add(1).await.unwrap();
    other.add(1).await.unwrap();
    place.revoke(&session).await;
    assert!(mine.remove().await.unwrap());
    assert_eq!((mine.get().await.unwrap(), other.add(5).await.unwrap()), (0, 5));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_late_copy_of_a_first_addition_is_refused_after_the_removal() {
    let place = Place::shared("late").await;
    let session = place.session().await;
    let counter = Counter::new(&session, NAME);
    counter.add(7).await.unwrap();
    let stored = place.stored().await;
    let [(base, first), (cell, added)] = [&stored[1], &stored[0]].map(|(key, value)| (place.key(key), value));
    counter.remove().await.unwrap();
    session.close().await.unwrap();
    // What the addition stood on, but for its session: the worst case is one that lives.
    let landed = place.oracle().await.create(&[(&base, first), (&cell, added)]).await;
    assert!(!landed);
    assert_eq!(place.counter().await.get().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn removals_among_additions_whose_answers_are_lost_count_nothing_twice() {
    let member = Member::single().await;
    let place = Place::at("lost", vec![member.endpoint()]);
    let proxy = Proxy::to(member.endpoint()).await;
    let adder = Counter::new(&place.session_at(vec![proxy.endpoint()]).await, NAME);
    let remover = place.counter().await;
    proxy.flaky(0.2, 7).await;
    let adding = tokio::spawn(async move {
        let mut told = Vec::new();
        while told.len() < 200 {
            match adder.add(1).await {
                Ok(value) => told.push(value),
                Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
            }
        }
        told
    });
    let mut removals = 0;
    while !adding.is_finished() {
        removals += usize::from(remover.remove_forced().await.unwrap());
        // Some additions have to come in between.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = adding.await.unwrap();
    proxy.pass().await;
    // One adder alone: each value is one more than the one before, or 1 after a removal. A copy that counts twice skips one; so
    // does an outcome that stayed unknown, which the deadline of ten seconds makes rare.
    let restarts =
        told.windows(2).filter(|pair| pair[1] != pair[0] + 1).inspect(|pair| assert_eq!(pair[1], 1)).count();
    println!("{removals} removals, {restarts} seen by the adder");
    assert!(restarts <= removals);
    assert!(removals > 3, "{removals}");
}
