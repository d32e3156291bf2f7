//! Every fault does what its name says, to an etcd.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, EventType};
use sereno_testkit::{Cluster, Flaky, Member, Mode, Proxy, eventually, raw};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(120);
const MOMENT: Duration = Duration::from_millis(400);

async fn impatient(endpoint: &str) -> Client {
    let options = ConnectOptions::new().with_timeout(MOMENT).with_connect_timeout(MOMENT);
    Client::connect([endpoint], Some(options)).await.unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn stop_kill_and_restart_keep_the_data_and_the_address() {
    let member = Member::single().await;
    let endpoint = member.endpoint();
    member.oracle().await.put("k", "1").await;
    member.stop().await;
    assert!(!member.is_running().await);
    impatient(&endpoint).await.get("k", None).await.unwrap_err();
    member.start().await;
    assert_eq!(member.endpoint(), endpoint);
    assert_eq!(member.oracle().await.get("k").await.as_deref(), Some(b"1".as_slice()));
    let killed = Instant::now();
    member.kill().await;
    assert!(!member.is_running().await);
    println!("killed in {:?}", killed.elapsed());
    impatient(&endpoint).await.get("k", None).await.unwrap_err();
    member.start().await;
    println!("killed and back in {:?}", killed.elapsed());
    assert_eq!(member.oracle().await.get("k").await.as_deref(), Some(b"1".as_slice()));
    member.restart().await;
    assert_eq!(member.oracle().await.revision().await, 2);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_paused_member_takes_connections_and_answers_nobody_until_resumed() {
    let member = Member::single().await;
    let mut client = impatient(&member.endpoint()).await;
    client.put("k", "1", None).await.unwrap();
    member.pause().await;
    assert!(member.is_running().await);
    let address = member.endpoint().replace("http://", "");
    tokio::net::TcpStream::connect(address).await.unwrap();
    let asked = Instant::now();
    client.get("k", None).await.unwrap_err();
    assert!(asked.elapsed() >= MOMENT - Duration::from_millis(20), "a refusal instead of silence");
    member.resume().await;
    let resumed = Instant::now();
    eventually(SOON, "an answer", async || client.get("k", None).await.ok()).await;
    println!("answers {:?} after being resumed", resumed.elapsed());
    member.pause().await;
    member.kill().await;
    assert!(!member.is_running().await);
    member.start().await;
    member.pause().await;
    member.stop().await;
    assert!(!member.is_running().await);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_wiped_member_comes_back_empty_at_the_same_address() {
    let member = Member::single().await;
    member.oracle().await.put("k", "1").await;
    member.oracle().await.put("k", "2").await;
    member.wipe().await;
    member.start().await;
    let oracle = member.oracle().await;
    assert_eq!(oracle.get("k").await, None);
    assert_eq!(oracle.revision().await, 1);
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn a_cluster_survives_its_leader_killed_and_its_leader_frozen() {
    let cluster = Cluster::start(3).await;
    cluster.oracle().await.put("k", "1").await;
    let first = cluster.kill_leader().await;
    let second = cluster.leader_other_than(first).await;
    cluster.member(second).oracle().await.put("k", "2").await;
    cluster.start_all().await;
    let frozen = cluster.pause_leader().await;
    cluster.leader_other_than(frozen).await;
    cluster.member(frozen).resume().await;
    cluster.member(frozen).wait_ready().await;
    let value = cluster.member(frozen).oracle().await.get("k").await;
    assert_eq!(value.as_deref(), Some(b"2".as_slice()));
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn a_cluster_survives_rolling_restarts_and_a_blackout() {
    let cluster = Cluster::start(3).await;
    cluster.oracle().await.put("k", "1").await;
    cluster.rolling_restart().await;
    cluster.rolling_kill().await;
    cluster.kill_all().await;
    for member in cluster.members() {
        assert!(!member.is_running().await);
    }
    cluster.start_all().await;
    assert_eq!(cluster.oracle().await.get("k").await.as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_write_through_dropped_responses_is_applied_and_its_caller_does_not_know() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let mut client = impatient(&proxy.endpoint()).await;
    client.put("k", "before", None).await.unwrap();
    proxy.drop_responses().await;
    client.put("k", "unknown", None).await.unwrap_err();
    assert!(proxy.stats().responses_dropped > 0);
    assert_eq!(member.oracle().await.get("k").await.as_deref(), Some(b"unknown".as_slice()));
    let resets = proxy.stats().resets;
    proxy.pass().await;
    eventually(SOON, "a fresh connection", async || client.put("k", "after", None).await.ok()).await;
    assert!(proxy.stats().resets > resets, "a connection that lost bytes must not go on");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_black_hole_freezes_a_watch_and_loses_nothing_of_it() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let mut watcher = raw(&[proxy.endpoint()]).await;
    let mut stream = watcher.watch("k", None).await.unwrap();
    let created = timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap();
    assert!(created.created());
    proxy.blackhole().await;
    for n in 0..100 {
        oracle.put("k", n.to_string()).await;
    }
    assert!(timeout(MOMENT, stream.message()).await.is_err(), "nothing may come through a black hole");
    proxy.pass().await;
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let message = timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap();
        for event in message.events() {
            assert_eq!(event.event_type(), EventType::Put);
            seen.push(event.kv().unwrap().value_str().unwrap().parse::<usize>().unwrap());
        }
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(proxy.stats().connections, 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn retarget_puts_another_store_behind_the_same_address() {
    let (old, new) = tokio::join!(Member::single(), Member::single());
    old.oracle().await.put("k", "old").await;
    let proxy = Proxy::to(old.endpoint()).await;
    let mut client = impatient(&proxy.endpoint()).await;
    let before = client.get("k", None).await.unwrap();
    assert_eq!(before.count(), 1);
    proxy.retarget(new.endpoint());
    let after = eventually(SOON, "an answer of the new store", async || {
        client.get("k", None).await.ok().filter(|answer| answer.count() == 0)
    })
    .await;
    let cluster = |answer: &etcd_client::GetResponse| answer.header().unwrap().cluster_id();
    assert_ne!(cluster(&before), cluster(&after));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_flaky_wire_makes_naive_retries_count_twice() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let mut client = impatient(&proxy.endpoint()).await;
    client.put("n/first", "", None).await.unwrap();
    proxy.set(Mode::Flaky(Flaky::new(0.05, 7).lose_request(0.02))).await;
    // Each attempt writes a key of its own: one key more than increments is one increment applied twice.
    let (mut attempts, mut acknowledged) = (0, 0);
    while acknowledged < 200 && attempts < 2000 {
        attempts += 1;
        if client.put(format!("n/{attempts}"), "", None).await.is_ok() {
            acknowledged += 1;
        }
    }
    proxy.pass().await;
    let stats = proxy.stats();
    let applied = member.oracle().await.count_prefix("n/").await - 1;
    println!("{acknowledged} acknowledged, {applied} applied, {attempts} attempts, {stats:?}");
    assert_eq!(acknowledged, 200);
    assert!(stats.resets > 0 && stats.responses_dropped > 0 && stats.requests_dropped > 0);
    assert!(applied > acknowledged, "some lost response must belong to an applied write");
    assert!(applied < attempts, "some lost request must belong to a write that was not applied");
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn an_isolated_leader_answers_clients_and_cannot_write() {
    let cluster = Cluster::builder().size(3).splittable().start().await;
    let old = cluster.leader().await;
    cluster.oracle().await.put("k", "1").await;
    cluster.isolate(old).await;
    let mut cut_off = impatient(&cluster.member(old).endpoint()).await;
    cut_off.put("k", "lost", None).await.unwrap_err();
    let new = cluster.leader_other_than(old).await;
    cluster.member(new).oracle().await.put("k", "2").await;
    let stale = etcd_client::GetOptions::new().with_serializable();
    let answer = cut_off.get("k", Some(stale)).await.unwrap();
    assert_eq!(answer.kvs()[0].value(), b"1", "cut off, it must know only what it knew");
    cut_off.get("k", None).await.unwrap_err();
    cluster.heal().await;
    let healed = Instant::now();
    eventually(SOON, "the old leader to follow", async || {
        cut_off.get("k", None).await.ok().filter(|answer| answer.kvs()[0].value() == b"2")
    })
    .await;
    println!("back {:?} after healing", healed.elapsed());
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn an_isolated_follower_leaves_the_others_undisturbed() {
    let cluster = Cluster::builder().size(3).splittable().start().await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await[0];
    cluster.isolate(follower).await;
    let mut cut_off = impatient(&cluster.member(follower).endpoint()).await;
    cut_off.put("k", "lost", None).await.unwrap_err();
    cluster.member(leader).oracle().await.put("k", "1").await;
    assert_eq!(cluster.leader().await, leader);
    cluster.heal().await;
    eventually(SOON, "the follower to catch up", async || cut_off.get("k", None).await.ok()).await;
}
