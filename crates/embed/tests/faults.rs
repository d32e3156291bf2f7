//! Every fault, and what a client sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

mod common;

use std::time::Duration;

use common::{client, eventually, in_process, status};
use etcd_client::{Client, EventType, GetOptions, PutOptions, WatchOptions};
use sereno_core::{ConnectOptions, LostReason, Namespace, Session};
use sereno_embed::{Call, Chaos, Event, Fault, RollBack, Server};
use tokio::time::{Instant, timeout};
use tonic::Code;

const SOON: Duration = Duration::from_millis(200);

/// What there is under a key, asked of the server itself.
async fn value(server: &Server, key: &str) -> Option<Vec<u8>> {
    let answer = client(server).await.get(key, None).await.unwrap();
    answer.kvs().first().map(|kv| kv.value().to_vec())
}

#[tokio::test]
async fn a_lost_request_is_not_applied_and_a_lost_reply_is() {
    for over_tcp in [true, false] {
        let server = if over_tcp { Server::start().await.unwrap() } else { in_process().await };
        let mut client = client(&server).await;
        server.faults().next(Call::Put, 1, Fault::LoseRequest);
        let (code, text) = status(client.put("a", "1", None).await.unwrap_err());
        assert!(!text.contains("etcdserver"), "no answer arrives, but {code:?} {text}");
        assert_eq!(value(&server, "a").await, None);
        server.faults().next(Call::Write, 1, Fault::LoseReply);
        let (_, text) = status(client.put("a", "2", None).await.unwrap_err());
        assert!(!text.contains("etcdserver"), "{text}");
        assert_eq!(value(&server, "a").await, Some(b"2".to_vec()));
        client.put("a", "3", None).await.expect("the client has connected again");
        let injected: Vec<String> = server.faults().injected().iter().map(ToString::to_string).collect();
        assert_eq!(injected, ["request 1 (Put): LoseRequest", "request 3 (Put): LoseReply"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_never_answered_and_the_connection_stays() {
    let server = in_process().await;
    let mut client = client(&server).await;
    for (fault, applied) in [(Fault::HangRequest, false), (Fault::HangReply, true)] {
        server.faults().next(Call::Put, 1, fault);
        let mut hanging = client.clone();
        let put = tokio::spawn(async move { hanging.put("a", "1", None).await.map(drop) });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!put.is_finished());
        assert_eq!(client.get("a", None).await.unwrap().count(), i64::from(applied));
        put.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_before_the_request_is_applied_or_after() {
    let server = in_process().await;
    let mut writer = client(&server).await;
    let second = Duration::from_secs(1);
    for (fault, applied) in [(Fault::Delay(second), false), (Fault::DelayReply(second), true)] {
        let revision = server.status().revision;
        server.faults().next(Call::Put, 1, fault);
        let began = Instant::now();
        let mut client = writer.clone();
        let put = tokio::spawn(async move { client.put("a", "1", None).await.map(drop) });
        tokio::time::sleep(second / 2).await;
        assert_eq!(server.status().revision - revision, i64::from(applied));
        put.await.unwrap().unwrap();
        assert!((1.0..1.1).contains(&began.elapsed().as_secs_f64()));
        writer.get("a", None).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_have_the_words_of_etcd_and_nothing_is_applied() {
    let server = in_process().await;
    let mut client = client(&server).await;
    for (fault, code, words) in [
        (Fault::Refuse, Code::Unavailable, "etcdserver: server stopped"),
        (Fault::NoLeader, Code::Unavailable, "etcdserver: no leader"),
        (Fault::OutOfSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    ] {
        server.faults().next(Call::Any, 2, fault);
        for _ in 0..2 {
            assert_eq!(status(client.put("a", "1", None).await.unwrap_err()), (code, words.to_owned()));
        }
        assert_eq!(server.status().revision, 1);
    }
    client.put("a", "1", None).await.unwrap();
}

#[tokio::test]
async fn streams_are_cut_alone_and_connections_with_all_that_is_on_them() {
    let server = Server::start().await.unwrap();
    let mut client = client(&server).await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let mut watch = client.watch("a", None).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    let (_keeper, mut keepalives) = client.lease_keep_alive(lease).await.unwrap();
    server.faults().cut_streams();
    assert_eq!(status(watch.message().await.unwrap_err()).1, "etcdserver: server stopped");
    assert_eq!(status(keepalives.message().await.unwrap_err()).1, "etcdserver: server stopped");
    let mut watch = client.watch("a", None).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    server.faults().cut_connections();
    let (_, text) = status(watch.message().await.unwrap_err());
    assert!(!text.contains("etcdserver"), "{text}");
    eventually("nothing is left of the streams", async || server.status().watch_streams == 0).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_who_wants_one_is_told_and_others_wait() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let lease = client.lease_grant(5, None).await.unwrap().id();
    let mut watch = client.watch("a", None).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    server.faults().no_leader(true);
    assert_eq!(status(watch.message().await.unwrap_err()).1, "etcdserver: no leader");
    assert_eq!(status(client.get("a", None).await.unwrap_err()).1, "etcdserver: no leader");
    let mut patient =
        Client::from_channel(etcd_client::Channel::Tonic(server.channel()), None).await.unwrap();
    let began = Instant::now();
    assert_eq!(status(patient.get("a", None).await.unwrap_err()).1, "etcdserver: request timed out");
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(server.status().leases, 1, "nobody could revoke it");
    server.faults().no_leader(false);
    assert_eq!(client.lease_time_to_live(lease, None).await.unwrap().ttl(), 5, "its whole time is before it");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(server.status().leases, 0);
}

#[tokio::test]
async fn a_full_database_takes_deletions_and_keepalives_only() {
    let server = in_process().await;
    let mut client = client(&server).await;
    client.put("a", "1", None).await.unwrap();
    let lease = client.lease_grant(60, None).await.unwrap().id();
    server.faults().out_of_space(true);
    assert_eq!(status(client.put("a", "2", None).await.unwrap_err()).0, Code::ResourceExhausted);
    assert_eq!(status(client.lease_grant(60, None).await.unwrap_err()).0, Code::ResourceExhausted);
    assert_eq!(client.delete("a", None).await.unwrap().deleted(), 1);
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 60);
    client.lease_revoke(lease).await.unwrap();
    server.faults().calm();
    client.put("a", "2", None).await.unwrap();
}

#[tokio::test]
async fn a_compaction_ends_the_watches_that_would_begin_before_it() {
    let server = in_process().await;
    let mut client = client(&server).await;
    for _ in 0..5 {
        client.put("a", "1", None).await.unwrap();
    }
    assert_eq!(server.faults().compact(), 6);
    assert_eq!(server.faults().compact(), 6);
    let mut watch = client.watch("a", Some(WatchOptions::new().with_start_revision(3))).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    let end = watch.message().await.unwrap().unwrap();
    assert_eq!((end.canceled(), end.compact_revision()), (true, 6));
    assert_eq!(server.status().changes, 1);
}

#[tokio::test]
async fn a_lease_ends_on_command_and_its_watchers_see_it() {
    let server = in_process().await;
    let mut client = client(&server).await;
    for (key, id) in [("x", 5), ("y", 6), ("z", 7)] {
        let options = etcd_client::LeaseGrantOptions::new().with_id(id);
        client.lease_grant(600, Some(options)).await.unwrap();
        client.put(key, "", Some(PutOptions::new().with_lease(id))).await.unwrap();
    }
    let mut watch = client.watch("", Some(WatchOptions::new().with_all_keys())).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    assert!(server.faults().expire_lease(5) && !server.faults().expire_lease(5));
    assert_eq!(server.faults().expire_all_sessions(), 0);
    assert_eq!(server.faults().expire_all_leases(), 2);
    for key in ["x", "y", "z"] {
        let deletion = watch.message().await.unwrap().unwrap();
        assert_eq!(deletion.events()[0].event_type(), EventType::Delete);
        assert_eq!(deletion.events()[0].kv().unwrap().key(), key.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_expires_on_command_and_leases_of_others_stay() {
    let server = in_process().await;
    let mut raw = client(&server).await;
    raw.lease_grant(600, None).await.unwrap();
    let namespaced = |namespace: &str| {
        let options = ConnectOptions::default().namespace(Namespace::new(namespace).unwrap());
        sereno_core::Client::connect_via(server.dialer(), options)
    };
    let here = Session::open(&namespaced("a").await.unwrap()).await.unwrap();
    let there = Session::open(&namespaced("b/c").await.unwrap()).await.unwrap();
    let (mine, other) = (here.epoch(), there.epoch());
    assert!(!server.faults().expire_session("") && !server.faults().expire_session("0"));
    assert!(server.faults().expire_session(mine.id()) && !server.faults().expire_session(mine.id()));
    assert_eq!(mine.lost().await, LostReason::Expired);
    assert!(other.is_valid());
    let next = here.next_epoch(1).await.unwrap();
    assert_eq!(server.faults().expire_all_sessions(), 2);
    assert_eq!(next.lost().await, LostReason::Expired);
    assert_eq!(other.lost().await, LostReason::Expired);
    here.close().await.unwrap();
    there.close().await.unwrap();
    assert_eq!(server.status().leases, 1, "the one that no session has");
}

#[tokio::test]
async fn the_store_can_be_rolled_back_to_any_revision_it_remembers() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    let leased = || Some(PutOptions::new().with_lease(lease));
    let mut pictures = Vec::new();
    for step in 0..40 {
        pictures.push(server.status());
        let key = format!("k{}", step % 7);
        match step % 5 {
            0 => drop(client.delete(key, None).await.unwrap()),
            1 => drop(client.put(key, step.to_string(), leased()).await.unwrap()),
            _ => drop(client.put(key, step.to_string(), None).await.unwrap()),
        }
    }
    for before in pictures.iter().rev() {
        server.faults().roll_back(before.revision).unwrap();
        let now = server.status();
        assert_eq!((now.revision, now.keys, now.hash), (before.revision, before.keys, before.hash));
    }
    assert_eq!(server.faults().roll_back(99), Err(RollBack::Future { revision: 99, current: 1 }));
    client.put("a", "1", None).await.unwrap();
    client.put("a", "2", None).await.unwrap();
    server.faults().compact();
    assert_eq!(server.faults().roll_back(2), Err(RollBack::Compacted { revision: 2, oldest: 3 }));
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data_its_address_and_its_leases() {
    let server = Server::start().await.unwrap();
    let mut client = client(&server).await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.put("a", "1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let before = server.status();
    server.freeze();
    server.kill().await;
    server.kill().await;
    let refused = tokio::net::TcpStream::connect(server.address().unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(server.dial().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(client.get("a", None).await.is_err());
    server.clock().advance(Duration::from_secs(3600));
    server.revive().await.unwrap();
    server.revive().await.unwrap();
    assert_eq!(client.get("a", None).await.unwrap().count(), 1);
    assert_eq!(server.status(), before);
    assert!((59..=60).contains(&client.lease_time_to_live(lease, None).await.unwrap().ttl()));
}

#[tokio::test]
async fn a_frozen_server_takes_connections_and_answers_nobody_until_it_thaws() {
    let server = Server::start().await.unwrap();
    let mut old = client(&server).await;
    let lease = old.lease_grant(60, None).await.unwrap().id();
    server.freeze();
    assert!(timeout(SOON, old.put("a", "1", None)).await.is_err());
    let mut new = timeout(Duration::from_secs(120), client(&server)).await.expect("connecting is lazy");
    assert!(timeout(SOON, new.get("a", None)).await.is_err());
    assert!(tokio::net::TcpStream::connect(server.address().unwrap()).await.is_ok());
    server.clock().advance(Duration::from_secs(61));
    assert_eq!(server.status().leases, 1, "nobody is awake to revoke it");
    server.thaw();
    new.put("b", "1", None).await.unwrap();
    assert_eq!(new.lease_time_to_live(lease, None).await.unwrap().ttl(), -1);
}

#[tokio::test]
async fn a_wiped_server_is_empty_under_its_old_name() {
    let server = in_process().await;
    let mut client = client(&server).await;
    client.put("a", "1", None).await.unwrap();
    let before = server.status();
    server.wipe();
    let answer = loop {
        // The first one finds its connection cut.
        if let Ok(answer) = client.get("", Some(GetOptions::new().with_all_keys())).await {
            break answer;
        }
    };
    let header = answer.header().unwrap();
    assert_eq!((answer.count(), header.revision(), header.cluster_id()), (0, 1, before.cluster_id));
}

/// What a run under chaos leaves behind: the faults, and the checksum of the store.
async fn run(seed: u64) -> (Vec<String>, u32) {
    let server = in_process().await;
    let chaos = Chaos::seed(seed)
        .lose_reply(0.05)
        .lose_request(0.05)
        .refuse(0.05)
        .delay(0.1, Duration::from_millis(50))
        .cut_streams(0.02)
        .expire_lease(0.05)
        .compact(0.05);
    server.faults().random(chaos);
    let mut client = client(&server).await;
    for step in 0..200 {
        // What fails is what this is about.
        let options = etcd_client::LeaseGrantOptions::new().with_id(step + 1);
        let _ = client.lease_grant(600, Some(options)).await;
        let _ =
            client.put(format!("k{}", step % 10), "v", Some(PutOptions::new().with_lease(step + 1))).await;
    }
    let injected = server.faults().injected();
    assert!(injected.iter().any(|fault| matches!(fault.event, Some(Event::ExpireLease(_)))));
    assert!(injected.iter().any(|fault| matches!(fault.event, Some(Event::Compact(_)))));
    assert!(injected.iter().any(|fault| fault.fault == Some(Fault::LoseReply)));
    (injected.iter().map(ToString::to_string).collect(), server.status().hash)
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_run_again() {
    let first = run(42).await;
    assert_eq!(first, run(42).await);
    assert_ne!(first.0, run(43).await.0);
}
