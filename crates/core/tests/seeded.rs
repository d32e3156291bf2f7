//! Transactions that nothing but the core makes exact, under faults that a seed decides: no etcd is needed.
//! `cargo xtask test --seed <n>` plays one again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sereno_core::{Client, Key, Once, Op, Outcome, Session, Txn, chance};
use sereno_testkit::{Seeds, Stage};

/// What is known of writes that are not idempotent: each that is applied raises the version of the key.
#[derive(Default)]
struct Book {
    applied: AtomicI64,
    unknown: AtomicI64,
}

impl Book {
    fn applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    fn unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    async fn check(&self, stage: &Stage, client: &Client, name: &str) {
        let key = key(client, name);
        let read = async || client.get(&key).await.ok();
        let version = stage.until("reading", read).await.map_or(0, |kv| kv.version);
        let least = self.applied.load(Ordering::Relaxed);
        let most = least + self.unknown.load(Ordering::Relaxed);
        assert!((least..=most).contains(&version), "{name}: {least} to {most} were written, not {version}");
    }
}

fn key(client: &Client, name: &str) -> Key {
    client.namespace().prefix("s").unwrap().key(name).unwrap()
}

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

/// Once each, however often it has to be sent.
async fn once(session: Session, book: Arc<Book>) {
    let write = Txn::new().then(Op::put(&key(session.client(), "once"), "x"));
    for _ in 0..12 {
        match session.commit_once(write.clone()).await {
            Ok(Once::Applied { .. }) => book.applied(),
            Ok(other) => panic!("nothing was in the way: {other:?}"),
            Err(error) if error.is_outcome_unknown() => book.unknown(),
            Err(error) => assert!(error.is_retryable() || error.is_session_lost(), "{error:?}"),
        }
        idle(50).await;
    }
}

/// Sent once, whatever becomes of it.
async fn attempt(session: Session, book: Arc<Book>) {
    let write = Txn::new().then(Op::put(&key(session.client(), "attempted"), "x"));
    for _ in 0..12 {
        match session.client().commit(&write).await {
            Ok(Outcome::Applied(_)) => book.applied(),
            Ok(Outcome::Unknown(_)) => book.unknown(),
            Ok(other) => panic!("nothing was in the way: {other:?}"),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        idle(50).await;
    }
}

async fn many_write(stage: &Stage) {
    let sessions = [stage.session().await, stage.session().await];
    let (exact, tried) = (Arc::<Book>::default(), Arc::<Book>::default());
    stage.disturb();
    let mut tasks = Vec::new();
    for session in &sessions {
        for _ in 0..2 {
            tasks.push(tokio::spawn(once(session.clone(), exact.clone())));
        }
        tasks.push(tokio::spawn(attempt(session.clone(), tried.clone())));
    }
    for task in tasks {
        task.await.unwrap();
    }
    stage.calm();
    // Whatever is still on its way has arrived by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    exact.check(stage, sessions[0].client(), "once").await;
    tried.check(stage, sessions[0].client(), "attempted").await;
}

#[test]
fn what_is_said_of_a_write_is_true() {
    Seeds::new(env!("CARGO_PKG_NAME"), "what_is_said_of_a_write_is_true", 110).run(many_write);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_write);
}
