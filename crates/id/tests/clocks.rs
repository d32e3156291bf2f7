//! What a wrong clock does: everything but an id made twice.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Set, ascending, distinct, place, session, take_all_but, worker_key};
use sereno_id::{Clock, Error, IdGenerator, IdOptions, decompose};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_clock_set_back_while_ids_are_made_repeats_none_of_them() {
    let (client, _) = place("setback").await;
    let session = session(&client, 15).await;
    let set = Set::new();
    let generator = IdGenerator::open_with(&session, IdOptions::default().clock(set.clock())).await.unwrap();
    let mut all = generator.next_ids(1000).await.unwrap();
    set.back(5 * SECOND);
    // More than one tick has: the time of ids must go on although the clock says otherwise.
    all.extend(generator.next_ids(1000).await.unwrap());
    assert!(ascending(&all));
    let lead = decompose(all[1999]).time - set.clock().now();
    assert!(lead > 4 * SECOND && lead < 6 * SECOND, "{lead:?}");

    set.back(6 * SECOND);
    let refused = generator.next_id().await.unwrap_err();
    assert!(matches!(refused, Error::ClockBehind { behind } if behind > 10 * SECOND), "{refused:?}");
    assert!(refused.is_retryable());
    set.forward(6 * SECOND);
    all.push(generator.next_id().await.unwrap());
    assert!(ascending(&all), "and when the clock has caught up, ids go on where they were");

    // An hour is not waited for: another worker id is.
    let worker = generator.workers()[0];
    set.back(3600 * SECOND);
    assert!(matches!(generator.next_id().await, Err(Error::ClockBehind { .. })));
    generator.reopen().await.unwrap();
    assert_ne!(generator.workers(), [worker]);
    all.extend(generator.next_ids(1000).await.unwrap());
    assert!(distinct(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_clock_that_leapt_ahead_and_was_set_right_repeats_no_id() {
    let (client, _) = place("leap").await;
    let session = session(&client, 15).await;
    let set = Set::new();
    let generator = IdGenerator::open_with(&session, IdOptions::default().clock(set.clock())).await.unwrap();
    let mut all = generator.next_ids(300).await.unwrap();
    set.forward(86_400 * SECOND);
    all.extend(generator.next_ids(300).await.unwrap());
    assert!(ascending(&all));
    set.back(86_400 * SECOND);
    assert!(matches!(generator.next_id().await, Err(Error::ClockBehind { .. })));
    generator.reopen().await.unwrap();
    all.extend(generator.next_ids(300).await.unwrap());
    assert!(distinct(&all));
    let lead = Clock::system().now().abs_diff(decompose(all[899]).time);
    assert!(lead < 2 * SECOND, "the new worker id is on time: {lead:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_reused_worker_id_begins_after_all_ids_of_its_former_life_whatever_the_clock_says() {
    let (client, oracle) = place("reused").await;
    let session = session(&client, 15).await;
    take_all_but(&client, &[777]).await;
    let set = Set::new();
    let options = IdOptions::default().clock(set.clock());
    let first = IdGenerator::open_with(&session, options.clone()).await.unwrap();
    let mut all = first.next_ids(1000).await.unwrap();
    first.close().await.unwrap();

    set.back(3600 * SECOND);
    let refused = IdGenerator::open_with(&session, options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, Error::ClockBehind { behind } if behind > 3000 * SECOND && behind < 3605 * SECOND),
        "{refused:?}"
    );
    assert_eq!(oracle.get(worker_key(&client, 777)).await, None, "it was not taken for nothing");
    oracle.delete(worker_key(&client, 42)).await;
    let other = IdGenerator::open_with(&session, options.clone()).await.unwrap();
    assert_eq!(other.workers(), [42], "one that is not behind is chosen first");

    set.forward(3600 * SECOND);
    let second = IdGenerator::open_with(&session, options).await.unwrap();
    assert_eq!(second.workers(), [777]);
    all.extend(second.next_ids(1000).await.unwrap());
    assert!(ascending(&all));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_clock_before_the_first_id_is_an_error() {
    let (client, _) = place("unset").await;
    let session = session(&client, 15).await;
    let options = IdOptions::default().clock(Clock::new(|| 3600 * SECOND));
    let refused = IdGenerator::open_with(&session, options).await.unwrap_err();
    assert!(matches!(refused, Error::ClockBehind { .. }), "{refused:?}");
}
