//! Every public call that may wait for etcd ends within one deadline, whatever etcd does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use sereno_core::{
    Client, Conflict, ConnectOptions, Error, Namespace, Op, Outcome, Overflow, Presence, Session,
    SessionOptions, Step, Timer, Tls, Txn,
};
use sereno_testkit::{BlackHole, Member, Proxy, TlsMaterial, fresh_namespace};

const DEADLINE: Duration = Duration::from_secs(3);
/// What a busy machine may add: less than the 0.4 of a deadline by which an operation of two calls would be late.
const GRACE: Duration = Duration::from_secs(1);

fn options() -> ConnectOptions {
    let namespace = Namespace::new(&fresh_namespace("deadlines")).unwrap();
    ConnectOptions::default().namespace(namespace).deadline(DEADLINE)
}

/// What a call came to and how long it took.
struct Took {
    call: &'static str,
    time: Duration,
    result: Result<(), Error>,
}

async fn took<T: Debug>(call: &'static str, future: impl Future<Output = Result<T, Error>>) -> Took {
    let started = Instant::now();
    let result = tokio::time::timeout(10 * DEADLINE, future).await;
    let result = result.unwrap_or_else(|_| panic!("{call} does not end at all"));
    Took { call, time: started.elapsed(), result: result.map(|_| ()) }
}

/// Prints what took how long, and fails if anything took too long or ended in an untyped way.
fn judge(what: &str, calls: Vec<Took>, must_fail: bool) {
    let worst = calls.iter().map(|took| took.time).max().unwrap();
    println!("{what}: {} calls, the slowest ended after {worst:?} of {DEADLINE:?}", calls.len());
    let late: Vec<_> = calls.iter().filter(|took| took.time > DEADLINE + GRACE).collect();
    for Took { call, time, result } in &late {
        println!("  too late: {call} after {time:?} with {result:?}");
    }
    assert!(late.is_empty(), "{what}: {} calls ended too late", late.len());
    for Took { call, result, .. } in &calls {
        match result {
            Ok(()) => assert!(!must_fail, "{what}: {call} cannot have succeeded"),
            Err(
                Error::Unavailable { .. }
                | Error::Timeout { .. }
                | Error::OutcomeUnknown { .. }
                | Error::Contended { .. }
                | Error::SessionLost { .. }
                | Error::LeaseGone
                | Error::NameTaken,
            ) => {}
            Err(error) => panic!("{what}: {call} ended with {error:?}"),
        }
    }
}

/// Every verb of a client that asks etcd something.
async fn client_verbs(client: &Client) -> Vec<Took> {
    let prefix = client.namespace().prefix("d").unwrap();
    let key = prefix.key("k").unwrap();
    let put = Txn::new().then(Op::put(&key, "x"));
    let look = Txn::new().then(Op::get(&key));
    let timer = Timer::from_id(7, Duration::from_secs(9));
    let commit = async |txn: &Txn| match client.commit(txn).await {
        Ok(Outcome::Unknown(error)) => Err(error),
        other => other.map(|_| ()),
    };
    let (a, b) = tokio::join!(
        async {
            tokio::join!(
                took("get", client.get(&key)),
                took("range", client.range(&prefix)),
                took("range_keys", client.range_keys(&prefix)),
                took("range_at", client.range_at(&prefix, 1)),
                took("oldest", client.oldest(&prefix)),
                took("count", client.count(&prefix)),
                took("commit of a write", commit(&put)),
                took("commit of a reading", commit(&look)),
                took("settle", client.settle(&put)),
            )
        },
        async {
            tokio::join!(
                took("optimistic", async {
                    let round = || async { client.settle(&put).await.map(|_| Step::<()>::Conflict) };
                    client.optimistic(round).await
                }),
                took("watch", client.watch(&prefix)),
                took("timer", client.timer(Duration::from_secs(9))),
                took("Timer::renew", timer.renew(client)),
                took("Timer::revoke", timer.revoke(client)),
                took("Session::open", Session::open(client)),
            )
        }
    );
    let all = vec![a.0, a.1, a.2, a.3, a.4, a.5, a.6, a.7, a.8, b.0, b.1, b.2, b.3, b.4, b.5];
    // Subscribing asks nobody: it succeeds at once, however many wait for a stream already.
    let mut tails = Vec::new();
    for _ in 0..1000 {
        let started = Instant::now();
        tails.push(client.tail(&prefix, 1, Overflow::Pause).await.unwrap());
        assert!(started.elapsed() < GRACE, "tail took {:?}", started.elapsed());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn against_a_server_that_accepts_and_never_answers() {
    let hole = BlackHole::listen().await;
    let material = TlsMaterial::generate();
    let secure = hole.endpoint().replace("http://", "https://");
    let tls = || Tls::default().ca_pem(&material.ca.cert_pem);
    let plain = options().credentials("me", "secret");
    let encrypted = options().tls(tls()).credentials("me", "secret");
    let three = [hole.endpoint(), hole.endpoint(), hole.endpoint()];
    let lazy = Client::lazy([hole.endpoint()], plain.clone()).unwrap();
    let calls = tokio::join!(
        took("connect", Client::connect_with([hole.endpoint()], options())),
        took("connect to three", Client::connect_with(three, options())),
        took("connect with a password", Client::connect_with([hole.endpoint()], plain)),
        took("connect with TLS", Client::connect_with([secure.clone()], options().tls(tls()))),
        took("connect with TLS and a password", Client::connect_with([secure], encrypted)),
        took("etcd_client", async { lazy.etcd_client().await.map(|_| ()) }),
    );
    judge("connecting", vec![calls.0, calls.1, calls.2, calls.3, calls.4, calls.5], true);
    let client = Client::lazy([hole.endpoint()], options()).unwrap();
    judge("a lazy client", client_verbs(&client).await, true);
    judge("a lazy client with a password", client_verbs(&lazy).await, true);
    assert!(hole.accepted() > 0);
}

/// A session with a kept key, behind a proxy.
struct Stage {
    _member: Member,
    proxy: Proxy,
    client: Client,
    session: Session,
    kept: Presence,
}

impl Stage {
    async fn set() -> Self {
        let member = Member::single().await;
        let proxy = Proxy::to(member.endpoint()).await;
        let client = Client::connect_with([proxy.endpoint()], options()).await.unwrap();
        let session = Session::open_with(&client, SessionOptions::default()).await.unwrap();
        let key = client.namespace().prefix("kept").unwrap().key("k").unwrap();
        let kept = session.keep(&key, "x", Conflict::TakeOver).await.unwrap();
        Self { _member: member, proxy, client, session, kept }
    }

    async fn session_verbs(&self) -> Vec<Took> {
        let prefix = self.client.namespace().prefix("kept").unwrap();
        let (one, other) = (prefix.key("one").unwrap(), prefix.key("k").unwrap());
        let put = Txn::new().then(Op::put(&one, "x"));
        let calls = tokio::join!(
            took("live_epoch", self.session.live_epoch()),
            took("verify", self.session.verify()),
            took("keep", self.session.keep(&one, "x", Conflict::Refuse)),
            took("keep by taking over", self.session.keep(&other, "y", Conflict::TakeOver)),
            took("commit_once", self.session.commit_once(put)),
            took("Presence::update", self.kept.update("y")),
        );
        vec![calls.0, calls.1, calls.2, calls.3, calls.4, calls.5]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_the_wire_goes_black_after_connecting() {
    let stage = Stage::set().await;
    stage.proxy.blackhole().await;
    judge("a black wire", client_verbs(&stage.client).await, true);
    let session = stage.session_verbs().await.into_iter();
    let session = session.filter(|took| took.call != "live_epoch").collect();
    judge("a black wire under a session", session, true);
    let Stage { session, kept, _member, proxy, .. } = stage;
    let left = took("Presence::leave", kept.leave()).await;
    let closed = took("Session::close", session.close()).await;
    judge("leaving on a black wire", vec![left, closed], true);
    assert!(proxy.stats().frozen > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_answers_come_but_an_operation_of_several_takes_too_long() {
    let stage = Stage::set().await;
    // One round trip takes 0.7 of the deadline: an operation that gives each of its calls a whole one is found out.
    stage.proxy.delay(DEADLINE.mul_f64(0.35)).await;
    judge("a slow wire", client_verbs(&stage.client).await, false);
    judge("a slow wire under a session", stage.session_verbs().await, false);
    let Stage { session, kept, _member, proxy, .. } = stage;
    let left = took("Presence::leave", kept.leave()).await;
    let closed = took("Session::close", session.close()).await;
    judge("leaving on a slow wire", vec![left, closed], false);
    assert!(proxy.stats().delayed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_the_wire_goes_black_between_the_pages_of_a_reading() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = Client::connect_with([proxy.endpoint()], options()).await.unwrap();
    let prefix = client.namespace().prefix("d").unwrap();
    for chunk in 0..40 {
        let puts = (0..100).map(|n| {
            let key = prefix.key(format!("{chunk}-{n}")).unwrap();
            etcd_client::TxnOp::put(key.as_bytes(), "x", None)
        });
        let txn = etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>());
        oracle.client().txn(txn).await.unwrap();
    }
    assert_eq!(client.range(&prefix).await.unwrap().entries.len(), 4000);
    // Four pages, three of which would fit into a deadline each.
    proxy.delay(DEADLINE.mul_f64(0.2)).await;
    let calls = tokio::join!(
        took("range", client.range(&prefix)),
        took("range_keys", client.range_keys(&prefix)),
        took("range_at", client.range_at(&prefix, 2)),
        took("watch", client.watch(&prefix)),
    );
    judge("pages on a slow wire", vec![calls.0, calls.1, calls.2, calls.3], false);
}
