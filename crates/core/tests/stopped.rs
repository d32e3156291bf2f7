//! A process that is stopped longer than its time to live, and answers that come late.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{
    Client, Conflict, ConnectOptions, Namespace, Op, PresenceState, Session, SessionOptions, SessionState,
    Txn,
};
use sereno_testkit::{ChildHost, Oracle, Proxy, child, eventually, fresh_namespace, shared};

const TTL: Duration = Duration::from_secs(2);

fn options(namespace: &str) -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(namespace).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() == Some("holder") {
        holder().await;
    }
}

/// Keeps a key, owns a fence, and says what it believes whenever it is asked.
async fn holder() {
    let client = Client::connect_with([child::argument(0)], options(&child::argument(1))).await.unwrap();
    let session = Session::open_with(&client, SessionOptions::default().ttl(TTL)).await.unwrap();
    let prefix = client.namespace().prefix("stopped").unwrap();
    let kept = session.keep(&prefix.key("presence").unwrap(), "here", Conflict::Refuse).await.unwrap();
    let first = session.epoch();
    child::say("ready");
    tokio::task::spawn_blocking(child::hear).await.unwrap();
    // The process has just been resumed: the very first look at the clock must tell, whichever task runs first.
    child::say(&format!("valid {}", first.is_valid()));
    child::say(&format!("lost {}", first.lost().await));
    child::say(&format!("state {:?}", matches!(session.status().state, SessionState::Connected)));
    let owned =
        Txn::new().when(first.fence()).then(Op::put(&prefix.key("owned").unwrap(), "by the stopped one"));
    child::say(&format!("wrote {}", client.settle(&owned).await.unwrap().reply.succeeded));
    let next = session.next_epoch(first.number()).await.unwrap();
    eventually(Duration::from_secs(60), "presence under the next epoch", async || {
        (kept.status().state == PresenceState::Kept && kept.status().epoch == next.number()).then_some(())
    })
    .await;
    child::say(&format!("restored under {}", next.number()));
    session.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_process_stopped_longer_than_its_ttl_knows_at_once_restores_presence_and_not_ownership() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("stopped");
    let oracle = Oracle::connect(&endpoints).await;
    let mut holder =
        ChildHost::new("child_entry", "holder").argument(&endpoints[0]).argument(&namespace).spawn();
    assert_eq!(holder.line().await, "ready");
    let presence = format!("{namespace}/stopped/presence");
    assert!(oracle.get(presence.clone()).await.is_some());
    holder.pause();
    eventually(Duration::from_secs(60), "the lease of the stopped process to expire", async || {
        oracle.get(presence.clone()).await.is_none().then_some(())
    })
    .await;
    let resumed = Instant::now();
    holder.send("look");
    holder.resume();
    assert_eq!(holder.line().await, "valid false");
    println!("{} after {:?}", holder.line().await, resumed.elapsed());
    holder.line().await;
    assert_eq!(holder.line().await, "wrote false");
    assert_eq!(holder.line().await, "restored under 2");
    println!("presence restored after {:?}", resumed.elapsed());
    assert!(holder.wait(Duration::from_secs(10)).await);
    assert_eq!(oracle.get(format!("{namespace}/stopped/owned")).await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn validity_counts_from_the_sending_of_a_keepalive_and_not_from_its_answer() {
    const DELAY: Duration = Duration::from_millis(300);
    let endpoints = shared().await;
    let proxy = Proxy::to(&endpoints[0]).await;
    let client = Client::connect_with([proxy.endpoint()], options(&fresh_namespace("late"))).await.unwrap();
    let session =
        Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(6))).await.unwrap();
    let epoch = session.epoch();
    let margin = epoch.ttl() / 20;
    proxy.delay(DELAY).await;
    let before = epoch.valid_until();
    let extended = eventually(Duration::from_secs(60), "a delayed keepalive", async || {
        let now = epoch.valid_until();
        (now > before).then(|| now.saturating_duration_since(Instant::now()))
    })
    .await;
    println!("valid for {extended:?} after an answer that took {DELAY:?} each way");
    assert!(extended <= epoch.ttl() - margin - DELAY, "{extended:?}");
    proxy.pass().await;
    session.close().await.unwrap();
}
