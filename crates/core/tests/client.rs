//! The client on real clusters that lose members.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::{Duration, Instant};

use sereno_core::{Client, ConnectOptions, Error, Key, Namespace, Op, Txn};
use sereno_testkit::{Cluster, Member, eventually, fresh_namespace};

/// A call that takes longer counts as slow.
const SLOW: Duration = Duration::from_millis(250);
/// How far beyond its deadline a call may end.
const GRACE: Duration = Duration::from_secs(1);

fn options() -> ConnectOptions {
    ConnectOptions::default().namespace(Namespace::new(&fresh_namespace("client")).unwrap())
}

async fn id_of(member: &Member) -> u64 {
    member.oracle().await.client().status().await.unwrap().header().unwrap().member_id()
}

async fn used_by(client: &Client) -> u64 {
    let mut raw = client.etcd_client().await.unwrap();
    raw.status().await.unwrap().header().unwrap().member_id()
}

/// A client over all endpoints that talks to the wanted member.
async fn client_at(endpoints: &[String], wanted: u64) -> Client {
    for _ in 0..60 {
        let client = Client::connect_with(endpoints.to_vec(), options()).await.unwrap();
        if used_by(&client).await == wanted {
            return client;
        }
    }
    panic!("no client chose member {wanted:x} first");
}

fn key(client: &Client) -> Key {
    client.namespace().prefix("c").unwrap().key("k").unwrap()
}

async fn write(client: &Client) -> Result<(), Error> {
    client.settle(&Txn::new().then(Op::put(&key(client), "x"))).await.map(|_| ())
}

/// Makes `calls` calls, reads and settled writes in turn: index, time and error of those that failed or were slow.
async fn bad_calls(client: &Client, calls: usize) -> Vec<(usize, Duration, Option<Error>)> {
    let mut bad = Vec::new();
    for n in 0..calls {
        let started = Instant::now();
        let result = match n % 2 {
            0 => client.get(&key(client)).await.map(|_| ()),
            _ => write(client).await,
        };
        let took = started.elapsed();
        if result.is_err() || took > SLOW {
            bad.push((n, took, result.err()));
        }
    }
    bad
}

/// Which of these calls failed, slow ones apart.
fn failed(calls: &[(usize, Duration, Option<Error>)]) -> Vec<usize> {
    calls.iter().filter(|(_, _, error)| error.is_some()).map(|(n, ..)| *n).collect()
}

/// What etcd-client's own balancer does meanwhile: per cent of calls that fail, within a timeout as short as ours are slow.
async fn raw_failures(endpoints: &[String], calls: usize) -> usize {
    let options = etcd_client::ConnectOptions::new().with_timeout(SLOW);
    let mut raw = etcd_client::Client::connect(endpoints, Some(options)).await.unwrap();
    let mut failed = 0;
    for _ in 0..calls {
        failed += usize::from(raw.get("raw", None).await.is_err());
    }
    failed * 100 / calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn a_dead_or_stopped_member_costs_one_call_at_the_onset_and_then_none() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    for (role, stopped) in [("follower", false), ("follower", true), ("leader", false), ("leader", true)] {
        let leader = cluster.leader().await;
        let index = if role == "leader" { leader } else { (leader + 1) % 3 };
        let member = cluster.member(index);
        let hit = client_at(&endpoints, id_of(member).await).await;
        let spared = client_at(&endpoints, id_of(cluster.member((leader + 2) % 3)).await).await;
        assert!(failed(&bad_calls(&hit, 20).await).is_empty(), "before the fault");
        match stopped {
            true => member.pause().await,
            false => member.kill().await,
        }
        let fault = if stopped { "SIGSTOP" } else { "kill -9" };
        let (hit, spared, raw) =
            tokio::join!(bad_calls(&hit, 220), bad_calls(&spared, 220), raw_failures(&endpoints, 60));
        println!(
            "{fault} of a {role}: {} of 220 calls failed or slow ({hit:?}), {} for a client on another member; \
             raw etcd-client: {raw} %",
            hit.len(),
            spared.len()
        );
        assert!(failed(&hit).len() <= 1 && failed(&hit).iter().all(|n| *n < 2), "not at the onset: {hit:?}");
        // Those who talk to somebody else notice an election at most.
        assert!(failed(&spared).len() <= usize::from(role == "leader"), "{spared:?}");
        // Some are slow where the machine is; a client that went on with that member would be with every third call at least.
        assert!(hit.len() <= 11 && spared.len() <= 11, "{hit:?} {spared:?}");
        match stopped {
            true => member.resume().await,
            false => member.start().await,
        }
        member.wait_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn a_restored_member_is_used_again_when_it_is_needed() {
    let cluster = Cluster::start(3).await;
    let endpoints = [cluster.member(0).endpoint(), cluster.member(1).endpoint()];
    let ids = [id_of(cluster.member(0)).await, id_of(cluster.member(1)).await];
    let client = client_at(&endpoints, ids[0]).await;
    let mut worst = Duration::ZERO;
    for round in 0..4 {
        let down = cluster.member(round % 2);
        down.kill().await;
        let started = Instant::now();
        write(&client).await.unwrap();
        worst = worst.max(started.elapsed());
        assert_eq!(used_by(&client).await, ids[(round + 1) % 2]);
        assert!(failed(&bad_calls(&client, 20).await).is_empty());
        down.start().await;
    }
    println!("four changes between two members, the slowest call took {worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn after_the_loss_of_the_leader_writes_succeed_again_in_bounded_time() {
    let cluster = Cluster::start(3).await;
    let client = Client::connect_with(cluster.endpoints(), options()).await.unwrap();
    write(&client).await.unwrap();
    for stopped in [false, true] {
        let lost = if stopped { cluster.pause_leader().await } else { cluster.kill_leader().await };
        let started = Instant::now();
        write(&client).await.unwrap();
        let took = started.elapsed();
        println!("leader {}: a write succeeded after {took:?}", if stopped { "stopped" } else { "killed" });
        match stopped {
            true => cluster.member(lost).resume().await,
            false => cluster.member(lost).start().await,
        }
        cluster.member(lost).wait_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real etcd: three members"]
async fn with_every_member_down_calls_end_in_time_with_a_typed_error_and_work_again_afterwards() {
    let cluster = Cluster::start(3).await;
    let deadline = Duration::from_secs(3);
    let client = Client::connect_with(cluster.endpoints(), options().deadline(deadline)).await.unwrap();
    write(&client).await.unwrap();
    for stopped in [false, true] {
        for member in cluster.members() {
            if stopped { member.pause().await } else { member.kill().await }
        }
        let started = Instant::now();
        let read = client.get(&key(&client)).await;
        let reading = started.elapsed();
        let written = write(&client).await;
        let writing = started.elapsed() - reading;
        println!("stopped {stopped}: read {reading:?} {read:?}, write {writing:?} {written:?}");
        assert!(matches!(read, Err(Error::Unavailable { .. } | Error::Timeout { .. })), "{read:?}");
        assert!(
            matches!(written, Err(Error::Unavailable { .. } | Error::OutcomeUnknown { .. })),
            "{written:?}"
        );
        assert!(reading < deadline + GRACE && writing < deadline + GRACE, "{reading:?} {writing:?}");
        for member in cluster.members() {
            match stopped {
                true => member.resume().await,
                false => member.spawn().await,
            }
        }
        cluster.start_all().await;
        let back = Instant::now();
        eventually(Duration::from_secs(60), "writes to succeed again", async || write(&client).await.ok())
            .await;
        println!("a write succeeded {:?} after the members were back", back.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_lazy_client_starts_before_etcd_and_works_once_it_is_there() {
    let member = Member::single().await;
    member.kill().await;
    let client = Client::lazy([member.endpoint()], options().deadline(Duration::from_secs(1))).unwrap();
    let error = client.get(&key(&client)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    // A watch may be wanted before there is anything to watch, too.
    let range = client.namespace().prefix("c").unwrap();
    let mut tail = client.tail(&range, 1, sereno_core::Overflow::Pause).await.unwrap();
    member.start().await;
    eventually(Duration::from_secs(60), "a write to succeed", async || write(&client).await.ok()).await;
    let seen = tokio::time::timeout(Duration::from_secs(60), tail.next()).await;
    assert!(matches!(seen, Ok(Some(Ok(_)))), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn members_of_another_cluster_are_noticed_and_void_the_client() {
    let (one, other) = (Member::single().await, Member::single().await);
    let endpoints = [one.endpoint(), other.endpoint()];
    let client = client_at(&endpoints, id_of(&one).await).await;
    write(&client).await.unwrap();
    let mut watcher = client.watch(client.namespace().root()).await.unwrap();
    one.kill().await;
    let result = client.get(&key(&client)).await;
    assert!(matches!(result, Err(Error::StoreRolledBack { .. })), "{result:?}");
    assert!(matches!(write(&client).await, Err(Error::StoreRolledBack { .. })));
    let ended = tokio::time::timeout(Duration::from_secs(60), watcher.next()).await.unwrap();
    assert!(matches!(ended, Some(Err(Error::StoreRolledBack { .. }))), "{ended:?}");
    // For good: not even the first store is trusted again by this client.
    one.start().await;
    assert!(matches!(write(&client).await, Err(Error::StoreRolledBack { .. })));
}
