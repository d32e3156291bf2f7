//! Sessions on etcd: epochs, loss, presence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{
    Client, Conflict, ConnectOptions, Error, LostReason, Namespace, PresenceState, Session, SessionOptions,
    SessionState,
};
use sereno_testkit::{Member, Oracle, eventually, fresh_namespace, shared};

async fn client(endpoint: &str) -> Client {
    let options = ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("session")).unwrap());
    Client::connect_with([endpoint], options).await.unwrap()
}

async fn shared_client() -> (Client, Oracle) {
    let endpoints = shared().await;
    let client = client(&endpoints[0]).await;
    (client, Oracle::connect(&endpoints).await)
}

fn short(seconds: u64) -> SessionOptions {
    SessionOptions::default().ttl(Duration::from_secs(seconds))
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_open_session_has_one_leased_key_and_close_removes_it_at_once() {
    let (client, oracle) = shared_client().await;
    let root = client.namespace().root().as_bytes().to_vec();
    let session = Session::open(&client).await.unwrap();
    assert_eq!(session.status().state, SessionState::Connected);
    assert_eq!(session.verify().await.unwrap().number(), 1);
    assert_eq!(oracle.count_prefix(root.clone()).await, 1);
    let epoch = session.epoch();
    session.close().await.unwrap();
    session.close().await.unwrap();
    assert_eq!(oracle.count_prefix(root).await, 0);
    assert_eq!(epoch.lost().await, LostReason::Closed);
    assert_eq!(session.status().state, SessionState::Closed);
    assert!(matches!(session.valid_epoch(), Err(Error::SessionLost { .. })));
    assert!(matches!(
        session.next_epoch(0).await,
        Err(Error::SessionLost { reason: LostReason::Closed, .. })
    ));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropping_the_last_handle_ends_the_session_in_the_background() {
    let (client, oracle) = shared_client().await;
    let root = client.namespace().root().as_bytes().to_vec();
    let session = Session::open(&client).await.unwrap();
    let twin = session.clone();
    drop(session);
    assert!(twin.epoch().is_valid());
    drop(twin);
    eventually(Duration::from_secs(60), "the lease to be revoked", async || {
        (oracle.count_prefix(root.clone()).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lease_revoked_by_someone_else_ends_the_epoch_at_once_and_the_next_one_begins() {
    let (client, oracle) = shared_client().await;
    // Renewed every half a minute: only the watch of the session's key can tell sooner.
    let session = Session::open_with(&client, short(600)).await.unwrap();
    let mut events = session.events();
    let first = session.epoch();
    let prefix = client.namespace().prefix("presence").unwrap();
    let mut kept = session.keep(&prefix.key("me").unwrap(), "here", Conflict::Refuse).await.unwrap();
    assert_eq!(kept.status().state, PresenceState::Kept);

    let lease = lease_of(&oracle, first.key().as_bytes()).await;
    let revoked = Instant::now();
    assert!(oracle.revoke(lease).await);
    assert_eq!(first.lost().await, LostReason::Expired);
    println!("revoked lease noticed after {:?}", revoked.elapsed());
    assert!(revoked.elapsed() < Duration::from_secs(20), "at once, not at the next keepalive");
    assert!(!first.is_valid());

    assert_eq!(events.next().await.unwrap().state, SessionState::Lost(LostReason::Expired));
    let second = session.next_epoch(first.number()).await.unwrap();
    assert_eq!(second.number(), 2);
    assert!(second.token() > first.token());
    assert_eq!(events.next().await.unwrap().state, SessionState::Connected);
    let restored = eventually(Duration::from_secs(60), "presence to be restored", async || {
        let status = kept.status();
        (status.state == PresenceState::Kept && status.epoch == 2).then_some(status)
    })
    .await;
    assert_eq!(restored.restored, 1);
    println!("presence restored after {:?}", revoked.elapsed());
    assert_eq!(oracle.get(kept.key().as_bytes()).await.as_deref(), Some(&b"here"[..]));
    assert!(kept.changed().await.is_some());
    // What was owned under the first epoch is not: its fence no longer holds.
    let key = prefix.key("owned").unwrap();
    let txn = sereno_core::Txn::new().when(first.fence()).then(sereno_core::Op::put(&key, "x"));
    assert!(!client.settle(&txn).await.unwrap().reply.succeeded);
    session.close().await.unwrap();
}

async fn lease_of(oracle: &Oracle, key: &[u8]) -> i64 {
    let mut client = oracle.client();
    let answer = client.get(key, None).await.unwrap();
    answer.kvs().first().unwrap().lease()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_session_survives_kill_and_restart_of_etcd_inside_its_ttl_without_losing_its_lease() {
    let member = Member::single().await;
    let client = client(&member.endpoint()).await;
    let session = Session::open_with(&client, short(10)).await.unwrap();
    let epoch = session.epoch();
    let prefix = client.namespace().prefix("presence").unwrap();
    let kept = session.keep(&prefix.key("me").unwrap(), "here", Conflict::Refuse).await.unwrap();
    member.kill().await;
    // The outage itself: two fifths of the time to live.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(epoch.is_valid(), "etcd is away, the time is not over");
    let before = epoch.valid_until();
    member.start().await;
    eventually(Duration::from_secs(60), "a keepalive to be acknowledged again", async || {
        (epoch.valid_until() > before).then_some(())
    })
    .await;
    assert_eq!(session.verify().await.unwrap().number(), 1);
    assert_eq!(session.epoch().number(), 1);
    assert_eq!(kept.status().restored, 0);
    session.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn with_etcd_gone_longer_than_the_ttl_the_epoch_ends_by_its_own_clock_and_comes_back_with_etcd() {
    let member = Member::single().await;
    let client = client(&member.endpoint()).await;
    let session = Session::open_with(&client, short(2)).await.unwrap();
    let epoch = session.epoch();
    let prefix = client.namespace().prefix("presence").unwrap();
    let kept = session.keep(&prefix.key("me").unwrap(), "here", Conflict::Refuse).await.unwrap();
    member.kill().await;
    let deadline = epoch.valid_until();
    assert_eq!(epoch.lost().await, LostReason::Deadline);
    let late =
        Instant::now().saturating_duration_since(deadline.max(Instant::now() - Duration::from_secs(60)));
    println!("event {late:?} after the local deadline");
    assert_eq!(session.status().state, SessionState::Lost(LostReason::Deadline));
    member.start().await;
    let next = session.next_epoch(1).await.unwrap();
    assert_eq!(next.number(), 2);
    eventually(Duration::from_secs(60), "presence to be restored", async || {
        (kept.status().state == PresenceState::Kept && kept.status().epoch == 2).then_some(())
    })
    .await;
    session.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn close_is_bounded_with_etcd_gone() {
    let member = Member::single().await;
    let client = client(&member.endpoint()).await;
    let session = Session::open(&client).await.unwrap();
    member.pause().await;
    let started = Instant::now();
    let closed = session.close().await;
    println!("closed with {closed:?} after {:?}", started.elapsed());
    assert!(closed.is_err());
    assert!(started.elapsed() < client.deadline() + Duration::from_secs(3));
    member.resume().await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_kept_key_deleted_underneath_is_restored_and_updates_do_not_flap() {
    let (client, oracle) = shared_client().await;
    let session = Session::open(&client).await.unwrap();
    let prefix = client.namespace().prefix("presence").unwrap();
    let key = prefix.key("me").unwrap();
    let mut watcher = client.watch(&prefix).await.unwrap();
    let kept = session.keep(&key, "one", Conflict::Refuse).await.unwrap();
    kept.update("two").await.unwrap();
    let values = [watcher.next().await, watcher.next().await].map(|update| {
        match &update.unwrap().unwrap().changes[..] {
            [sereno_core::Change::Put { new, .. }] => new.value.clone(),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(values.map(|value| value.to_vec()), [b"one".to_vec(), b"two".to_vec()]);
    let deleted = Instant::now();
    oracle.delete(key.as_bytes()).await;
    eventually(Duration::from_secs(60), "the key to be restored", async || oracle.get(key.as_bytes()).await)
        .await;
    println!("restored {:?} after it was deleted", deleted.elapsed());
    assert_eq!(oracle.get(key.as_bytes()).await.as_deref(), Some(&b"two"[..]), "with the present value");
    kept.leave().await.unwrap();
    assert_eq!(oracle.get(key.as_bytes()).await, None);
    session.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_taken_name_is_refused_or_taken_over() {
    let (client, oracle) = shared_client().await;
    let (first, second) = (Session::open(&client).await.unwrap(), Session::open(&client).await.unwrap());
    let key = client.namespace().prefix("presence").unwrap().key("name").unwrap();
    let mut old = first.keep(&key, "old", Conflict::TakeOver).await.unwrap();
    assert!(matches!(second.keep(&key, "new", Conflict::Refuse).await, Err(Error::NameTaken)));
    assert_eq!(oracle.get(key.as_bytes()).await.as_deref(), Some(&b"old"[..]));
    let new = second.keep(&key, "new", Conflict::TakeOver).await.unwrap();
    assert_eq!(old.changed().await.unwrap().state, PresenceState::Displaced);
    assert!(matches!(old.update("again").await, Err(Error::NameTaken)));
    old.leave().await.unwrap();
    assert_eq!(
        oracle.get(key.as_bytes()).await.as_deref(),
        Some(&b"new"[..]),
        "leaving must not delete another's key"
    );
    drop(new);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn deleting_the_session_key_alone_ends_the_epoch_and_everything_on_its_lease() {
    let (client, oracle) = shared_client().await;
    let session = Session::open(&client).await.unwrap();
    let first = session.epoch();
    let owned = client.namespace().prefix("owned").unwrap().key("x").unwrap();
    let put = sereno_core::Txn::new().then(sereno_core::Op::put_leased(&owned, "x", &first));
    client.settle(&put).await.unwrap();
    oracle.delete(first.key().as_bytes()).await;
    assert_eq!(first.lost().await, LostReason::Expired);
    eventually(Duration::from_secs(60), "the orphaned lease to be revoked", async || {
        oracle.get(owned.as_bytes()).await.is_none().then_some(())
    })
    .await;
    assert_eq!(session.next_epoch(1).await.unwrap().number(), 2);
    session.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_name_that_was_taken_over_is_not_taken_back_when_the_session_is_reborn() {
    let (client, oracle) = shared_client().await;
    let (first, second) = (Session::open(&client).await.unwrap(), Session::open(&client).await.unwrap());
    let key = client.namespace().prefix("presence").unwrap().key("name").unwrap();
    let mut old = first.keep(&key, "old", Conflict::TakeOver).await.unwrap();
    // Both at once: the session is lost, and somebody else has the name before it begins anew.
    let lease = lease_of(&oracle, first.epoch().key().as_bytes()).await;
    oracle.revoke(lease).await;
    let new = second.keep(&key, "new", Conflict::TakeOver).await.unwrap();
    let last = async {
        while let Some(status) = old.changed().await {
            if status.state == PresenceState::Displaced {
                return;
            }
        }
        panic!("never displaced");
    };
    tokio::time::timeout(Duration::from_secs(60), last).await.unwrap();
    assert_eq!(oracle.get(key.as_bytes()).await.as_deref(), Some(&b"new"[..]));
    assert_eq!(new.status().restored, 0);
    first.close().await.unwrap();
    second.close().await.unwrap();
}
