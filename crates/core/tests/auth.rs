//! Users and passwords on real etcd: tokens that expire or are forgotten, what is forbidden, what is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{
    Client, Conflict, ConnectOptions, Error, LostReason, Namespace, Op, Overflow, PresenceState, Session,
    SessionOptions, Tail, TailItem, Txn,
};
use sereno_testkit::{Member, Oracle, Proxy, eventually, fresh_namespace};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "canary-password";
const ROOT: &str = "canary-root";

/// A member with authentication, and the namespace its user may use.
struct Stage {
    member: Member,
    oracle: Oracle,
    namespace: String,
}

impl Stage {
    async fn set(token_ttl: Option<Duration>) -> Self {
        let mut builder = Member::builder().flag("--bcrypt-cost=4");
        if let Some(ttl) = token_ttl {
            builder = builder.auth_token_ttl(ttl);
        }
        let member = builder.start_one().await;
        let namespace = fresh_namespace("auth");
        member.oracle().await.enable_auth(ROOT, "me", PASSWORD, &format!("{namespace}/")).await;
        let root = etcd_client::ConnectOptions::new().with_user("root", ROOT).with_auto_token_refresh(true);
        let oracle = Oracle::connect_with(&[member.endpoint()], root).await;
        Self { member, oracle, namespace }
    }

    fn options(&self) -> ConnectOptions {
        let namespace = Namespace::new(&self.namespace).unwrap();
        ConnectOptions::default().namespace(namespace).credentials("me", PASSWORD)
    }

    async fn client(&self) -> Client {
        Client::connect_with([self.member.endpoint()], self.options()).await.unwrap()
    }
}

async fn write(client: &Client) -> Result<i64, Error> {
    let key = client.namespace().prefix("a").unwrap().key("k").unwrap();
    client.settle(&Txn::new().then(Op::put(&key, "x"))).await.map(|settled| settled.reply.revision)
}

async fn sees(tail: &mut Tail, revision: i64) {
    let item = tokio::time::timeout(Duration::from_secs(60), tail.next()).await;
    let item = item.expect("an event").expect("a tail that goes on").unwrap();
    assert!(matches!(&item, TailItem::Changes(changes) if changes.revision == revision), "{item:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn calls_watches_and_sessions_outlive_many_tokens() {
    let ttl = Duration::from_secs(2);
    let stage = Stage::set(Some(ttl)).await;
    let client = stage.client().await;
    let prefix = client.namespace().prefix("a").unwrap();
    let session =
        Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(3))).await.unwrap();
    let kept = session.keep(&prefix.key("kept").unwrap(), "here", Conflict::Refuse).await.unwrap();
    let mut first = client.tail(&prefix.key("k").unwrap(), 1, Overflow::Pause).await.unwrap();
    for lives in 0..3 {
        let revision = write(&client).await.unwrap();
        sees(&mut first, revision).await;
        // Nothing but time makes a token old; etcd looks for old ones once a second.
        tokio::time::sleep(ttl + Duration::from_millis(1200)).await;
        // A watch is made with the old token; etcd refuses it as if it were forbidden.
        let mut late = client.tail(&prefix.key("k").unwrap(), revision + 1, Overflow::Pause).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let revision = write(&client).await.unwrap();
        sees(&mut late, revision).await;
        sees(&mut first, revision).await;
        println!("token {} expired: calls, old and new watches go on", lives + 1);
    }
    assert_eq!((session.epoch().number(), session.epoch().ended()), (1, None), "the session never noticed");
    assert_eq!((kept.status().state, kept.status().restored), (PresenceState::Kept, 0));
    session.verify().await.unwrap();
    let epoch = session.epoch();
    session.close().await.unwrap();
    assert_eq!(epoch.lost().await, LostReason::Closed);
    assert_eq!(stage.oracle.leases().await, Vec::<i64>::new(), "revoked with a token of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn a_member_that_restarts_forgets_its_tokens_and_nobody_minds() {
    let stage = Stage::set(None).await;
    let client = stage.client().await;
    let prefix = client.namespace().prefix("a").unwrap();
    let session = Session::open(&client).await.unwrap();
    let mut tail = client.tail(&prefix, 1, Overflow::Pause).await.unwrap();
    for _ in 0..3 {
        let revision = write(&client).await.unwrap();
        sees(&mut tail, revision).await;
        stage.member.kill().await;
        stage.member.start().await;
        let started = Instant::now();
        let revision = write(&client).await.unwrap();
        println!("a write {:?} after the restart", started.elapsed());
        sees(&mut tail, revision).await;
    }
    assert_eq!(session.verify().await.unwrap().number(), 1);
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn a_wrong_password_or_user_is_a_typed_error_at_once_and_asked_once() {
    let stage = Stage::set(None).await;
    let refused = |user: &str, password: &str| stage.options().credentials(user, password);
    for (what, options) in [
        ("wrong password", refused("me", "canary-wrong")),
        ("unknown user", refused("canary-nobody", PASSWORD)),
        ("empty password", refused("me", "")),
    ] {
        let proxy = Proxy::to(stage.member.endpoint()).await;
        let started = Instant::now();
        let error = Client::connect_with([proxy.endpoint()], options.clone()).await.unwrap_err();
        println!("{what}: after {:?}: {error:?}", started.elapsed());
        assert!(matches!(error, Error::Unauthenticated { .. }), "{what}: {error:?}");
        assert!(started.elapsed() < SOON);
        assert_eq!(proxy.stats().connections, 1, "{what}: every try costs the server a hash");
        // A watch that nobody asked a question before is told as well.
        let lazy = Client::lazy([proxy.endpoint()], options).unwrap();
        let range = lazy.namespace().prefix("a").unwrap();
        let mut tail = lazy.tail(&range, 1, Overflow::Pause).await.unwrap();
        let told = tokio::time::timeout(SOON, tail.next()).await.expect("not a silent loop");
        assert!(matches!(told, Some(Err(Error::Unauthenticated { .. }))), "{told:?}");
        assert_eq!(proxy.stats().connections, 2, "{what}");
    }
    let nobody = ConnectOptions::default().namespace(Namespace::new(&stage.namespace).unwrap());
    let error = Client::connect_with([stage.member.endpoint()], nobody).await.unwrap_err();
    println!("no user at all: {error:?}");
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn what_is_forbidden_is_a_typed_error_for_calls_and_watches_and_hurts_no_other_watch() {
    let stage = Stage::set(None).await;
    let proxy = Proxy::to(stage.member.endpoint()).await;
    let client = Client::connect_with([proxy.endpoint()], stage.options()).await.unwrap();
    let mine = client.namespace().prefix("a").unwrap();
    let theirs = Namespace::new("somebody-else").unwrap().prefix("a").unwrap();
    let key = theirs.key("k").unwrap();
    assert!(matches!(client.get(&key).await, Err(Error::PermissionDenied { .. })));
    assert!(matches!(client.watch(&theirs).await, Err(Error::PermissionDenied { .. })));
    let put = Txn::new().then(Op::put(&key, "x"));
    assert!(matches!(client.settle(&put).await, Err(Error::PermissionDenied { .. })));

    let mut good = client.tail(&mine, 1, Overflow::Pause).await.unwrap();
    let revision = write(&client).await.unwrap();
    sees(&mut good, revision).await;
    // Old enough a token that each refusal could be its age: twenty are told by one new token, not by twenty.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = proxy.stats().connections;
    let started = Instant::now();
    let mut bad = Vec::new();
    for _ in 0..20 {
        bad.push(client.tail(&theirs, 1, Overflow::Pause).await.unwrap());
    }
    for mut tail in bad {
        let told = tokio::time::timeout(SOON, tail.next()).await.expect("not an endless loop");
        assert!(matches!(told, Some(Err(Error::PermissionDenied { .. }))), "{told:?}");
        assert!(tail.next().await.is_none());
    }
    let connections = proxy.stats().connections - before;
    println!(
        "20 forbidden watches were told after {:?} and {connections} new connections",
        started.elapsed()
    );
    assert!(connections <= 2, "{connections}");
    let revision = write(&client).await.unwrap();
    sees(&mut good, revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn permission_that_is_taken_away_ends_calls_with_the_reason() {
    let stage = Stage::set(None).await;
    let client = stage.client().await;
    write(&client).await.unwrap();
    stage.oracle.client().user_revoke_role("me", "me-role").await.unwrap();
    eventually(Duration::from_secs(60), "the refusal", async || {
        matches!(write(&client).await, Err(Error::PermissionDenied { .. })).then_some(())
    })
    .await;
    stage.oracle.client().user_grant_role("me", "me-role").await.unwrap();
    eventually(Duration::from_secs(60), "the permission to be back", async || write(&client).await.ok())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn authentication_switched_on_underneath_a_running_client_is_typed() {
    let member = Member::builder().flag("--bcrypt-cost=4").start_one().await;
    let namespace = fresh_namespace("auth");
    let options = ConnectOptions::default().namespace(Namespace::new(&namespace).unwrap());
    let client = Client::connect_with([member.endpoint()], options).await.unwrap();
    write(&client).await.unwrap();
    member.oracle().await.enable_auth(ROOT, "me", PASSWORD, &format!("{namespace}/")).await;
    let error = write(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: authentication"]
async fn no_secret_shows_in_debug_or_errors_and_none_is_sent_in_plain_text_to_strangers() {
    let stage = Stage::set(None).await;
    let client = stage.client().await;
    let session = Session::open(&client).await.unwrap();
    let prefix = client.namespace().prefix("a").unwrap();
    let key = prefix.key("k").unwrap();
    client.settle(&Txn::new().then(Op::put(&key, "canary-value"))).await.unwrap();
    let kept = session.keep(&prefix.key("kept").unwrap(), "canary-kept", Conflict::Refuse).await.unwrap();
    let read = client.get(&key).await.unwrap();
    let watcher = client.watch(&prefix).await.unwrap();
    let wrong = stage.options().credentials("me", "canary-wrong");
    let wrong = Client::connect_with([stage.member.endpoint()], wrong).await.unwrap_err();
    let strangers = Namespace::new("other").unwrap().prefix("x").unwrap();
    let denied = client.range(&strangers).await.unwrap_err();
    let put = Txn::new().then(Op::put(&key, "canary-op"));
    let remote = Client::lazy(["http://192.0.2.1:2379"], stage.options()).unwrap_err();
    assert!(matches!(remote, Error::InvalidOption { .. }), "{remote:?}");
    assert!(
        Client::lazy(["http://192.0.2.1:2379"], stage.options().allow_plaintext_credentials(true)).is_ok()
    );
    let inline = Client::lazy(["http://me:canary-inline@127.0.0.1:2379"], stage.options()).unwrap_err();
    let options = stage.options();
    let epoch = session.epoch();
    let shown = [
        format!("{client:?} {options:?} {session:?} {epoch:?} {kept:?} {watcher:?} {put:?} {read:?}"),
        format!("{:?} {:?}", watcher.view(), client.commit(&put).await),
        format!("{wrong:?} {denied:?} {remote:?} {inline:?} {wrong} {denied} {remote} {inline}"),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
    session.close().await.unwrap();
}
