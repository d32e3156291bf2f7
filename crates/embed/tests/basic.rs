//! What a client sees of a server that is left alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

mod common;

use std::time::Duration;

use common::{client, in_process, status};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions, LeaseGrantOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions,
};
use sereno_embed::{Clock, Error, Server};
use tonic::Code;

#[tokio::test]
async fn keys_have_revisions_versions_and_a_past() {
    let server = Server::start().await.unwrap();
    let mut client = client(&server).await;
    client.put("a", "1", None).await.unwrap();
    client.put("a", "2", None).await.unwrap();
    client.put("b", "3", None).await.unwrap();
    client.delete("a", None).await.unwrap();
    let now = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    assert_eq!((now.count(), now.header().unwrap().revision()), (1, 5));
    let then = client.get("a", Some(GetOptions::new().with_prefix().with_revision(3))).await.unwrap();
    let kv = &then.kvs()[0];
    let numbers = (kv.create_revision(), kv.mod_revision(), kv.version(), kv.value());
    assert_eq!(numbers, (2, 3, 2, &b"2"[..]));
    client.compact(4, None).await.unwrap();
    let error = client.get("a", Some(GetOptions::new().with_revision(3))).await.unwrap_err();
    assert_eq!(
        status(error),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted".to_owned())
    );
    assert_eq!(server.status().compacted, 4);
}

#[tokio::test]
async fn a_page_of_a_large_range_says_how_many_keys_there_are_in_all() {
    let server = in_process().await;
    let mut client = client(&server).await;
    for key in 0..1500 {
        client.put(format!("k/{key:04}"), "v", None).await.unwrap();
    }
    let options = GetOptions::new().with_prefix().with_limit(10).with_keys_only();
    let page = client.get("k/", Some(options)).await.unwrap();
    assert_eq!((page.kvs().len(), page.count(), page.more()), (10, 1500, true));
    let options =
        GetOptions::new().with_prefix().with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(1);
    let last = client.get("k/", Some(options)).await.unwrap();
    assert_eq!(last.kvs()[0].key(), b"k/1499");
    let gone = client.delete("k/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await.unwrap();
    assert_eq!((gone.deleted(), gone.prev_kvs().len()), (1500, 1500));
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let create = |value: &str| {
        Txn::new()
            .when([Compare::create_revision("lock", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("lock", value, None), TxnOp::put("log", value, None)])
            .or_else([TxnOp::get("lock", None)])
    };
    let first = client.txn(create("me")).await.unwrap();
    let second = client.txn(create("you")).await.unwrap();
    assert!(first.succeeded() && !second.succeeded());
    assert_eq!(server.status().revision, 2, "two keys, one revision");
    let bad = Txn::new()
        .and_then([TxnOp::put("x", "1", None), TxnOp::put("y", "1", Some(PutOptions::new().with_lease(7)))]);
    let error = client.txn(bad).await.unwrap_err();
    assert_eq!(status(error).1, "etcdserver: requested lease not found");
    assert_eq!(server.status().keys, 2, "nothing of it was done");
}

#[tokio::test]
async fn a_watch_tells_the_past_and_then_the_present() {
    let server = in_process().await;
    let mut client = client(&server).await;
    client.put("w/1", "a", None).await.unwrap();
    client.put("other", "b", None).await.unwrap();
    let options = WatchOptions::new().with_prefix().with_start_revision(1).with_prev_key();
    let mut stream = client.watch("w/", Some(options)).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    client.put("w/1", "c", None).await.unwrap();
    client.delete("w/1", None).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        for event in stream.message().await.unwrap().unwrap().events() {
            let kv = event.kv().unwrap();
            let before = event.prev_kv().map(|kv| kv.value().to_vec());
            events.push((
                event.event_type() == EventType::Put,
                kv.mod_revision(),
                kv.value().to_vec(),
                before,
            ));
        }
    }
    assert_eq!(
        events,
        [
            (true, 2, b"a".to_vec(), None),
            (true, 4, b"c".to_vec(), Some(b"a".to_vec())),
            (false, 5, b"".to_vec(), Some(b"c".to_vec())),
        ]
    );
}

#[tokio::test]
async fn a_watch_can_be_filtered_cancelled_and_asked_for_progress() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut stream = client.watch("k", Some(options)).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    client.put("k", "v", None).await.unwrap();
    client.delete("k", None).await.unwrap();
    let deletion = stream.message().await.unwrap().unwrap();
    assert_eq!(deletion.events()[0].event_type(), EventType::Delete);
    stream.request_progress().await.unwrap();
    let progress = stream.message().await.unwrap().unwrap();
    assert_eq!((progress.watch_id(), progress.header().unwrap().revision()), (-1, 3));
    assert_eq!(server.status().watches, 1);
    stream.cancel(0).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().canceled());
    assert_eq!(server.status().watches, 0);
}

#[tokio::test]
async fn a_watch_that_reads_late_is_told_everything_from_the_history() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let mut stream = client.watch("k", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    // More than the connection takes unread, and then more than the server keeps note of.
    for value in 0..11_000_u32 {
        client.put("k", value.to_be_bytes().repeat(512), None).await.unwrap();
    }
    let mut next = 0_u32;
    while next < 11_000 {
        for event in stream.message().await.unwrap().unwrap().events() {
            assert_eq!(event.kv().unwrap().value()[..4], next.to_be_bytes());
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_silent_watch_gets_progress_notices_at_the_interval_set() {
    let builder = Server::builder().in_process().progress_interval(Duration::from_millis(20));
    let server = builder.start().await.unwrap();
    let mut client = client(&server).await;
    let options = WatchOptions::new().with_progress_notify();
    let mut stream = client.watch("k", Some(options)).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    let notice = stream.message().await.unwrap().unwrap();
    assert_eq!((notice.watch_id(), notice.events().len()), (0, 0));
}

#[tokio::test]
async fn leases_end_by_the_clock_and_take_their_keys_along_in_one_revision() {
    let server = Server::builder().in_process().clock(Clock::manual()).start().await.unwrap();
    let mut client = client(&server).await;
    let lease = client.lease_grant(10, Some(LeaseGrantOptions::new().with_id(77))).await.unwrap();
    assert_eq!((lease.id(), lease.ttl()), (77, 10));
    for key in ["x", "y"] {
        client.put(key, "", Some(PutOptions::new().with_lease(77))).await.unwrap();
    }
    server.clock().advance(Duration::from_secs(9));
    let (mut keeper, mut answers) = client.lease_keep_alive(77).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 10);
    server.clock().advance(Duration::from_secs(9));
    assert_eq!(server.status().keys, 2);
    server.clock().advance(Duration::from_secs(1));
    let status = server.status();
    assert_eq!((status.keys, status.leases, status.revision), (0, 0, 4));
    keeper.keep_alive().await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 0);
    assert_eq!(client.lease_time_to_live(77, None).await.unwrap().ttl(), -1);
}

#[tokio::test(start_paused = true)]
async fn under_paused_time_a_lease_ends_with_no_waiting() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let lease = client.lease_grant(3600, None).await.unwrap().id();
    client.put("x", "", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let mut stream = client.watch("x", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    let began = tokio::time::Instant::now();
    let deletion = stream.message().await.unwrap().unwrap();
    assert_eq!(deletion.events()[0].event_type(), EventType::Delete);
    assert_eq!(began.elapsed().as_secs(), 3600);
}

#[tokio::test]
async fn a_quota_raises_the_alarm_and_deletions_still_work() {
    let server = Server::builder().in_process().quota_bytes(10_000).start().await.unwrap();
    let mut client = client(&server).await;
    let mut written = 0;
    let error = loop {
        match client.put(format!("k{written}"), vec![0; 1000], None).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100);
    };
    assert_eq!(status(error).1, "etcdserver: mvcc: database space exceeded");
    assert!((5..10).contains(&written));
    client.delete("k0", None).await.unwrap();
    assert!(client.lease_grant(10, None).await.is_err(), "the alarm stays until it is disarmed");
    server.faults().compact();
    server.faults().out_of_space(false);
    client.put("k0", "small", None).await.unwrap();
}

#[tokio::test]
async fn what_is_not_here_says_so() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let (code, text) = status(client.user_list().await.unwrap_err());
    assert_eq!(code, Code::Unimplemented);
    assert!(text.contains("no authentication") && text.contains("UserList"), "{text}");
    let (code, text) = status(client.lock("name", None).await.unwrap_err());
    assert_eq!(code, Code::Unimplemented);
    assert!(text.contains("v3lockpb.Lock/Lock needs a real etcd"), "{text}");
}

#[tokio::test]
async fn a_port_is_free_again_after_the_stop_and_others_are_refused_from_outside() {
    let server = Server::start().await.unwrap();
    let address = server.address().unwrap();
    let taken = Server::builder().listen(address).start().await.unwrap_err();
    assert!(matches!(taken, Error::Listen { .. }));
    let mut open = client(&server).await;
    let mut stream = open.watch("k", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    server.stop().await;
    assert!(stream.message().await.is_err(), "the stream has ended");
    let again = Server::builder().listen(address).start().await.unwrap();
    let mut client = client(&again).await;
    assert_eq!(client.get("k", None).await.unwrap().count(), 0, "nothing is kept");
    let outside = Server::builder().listen("0.0.0.0:0".parse().unwrap()).start().await.unwrap_err();
    assert!(matches!(outside, Error::NotLoopback { .. }));
}

#[tokio::test]
async fn dropping_a_server_frees_its_port() {
    let server = Server::start().await.unwrap();
    let address = server.address().unwrap();
    let mut client = client(&server).await;
    client.put("a", "1", None).await.unwrap();
    drop(server);
    common::eventually("the port is free", async || Server::builder().listen(address).start().await.is_ok())
        .await;
}

#[tokio::test]
async fn the_plain_pages_speak_as_etcds() {
    let server = Server::start().await.unwrap();
    let mut client: Client = client(&server).await;
    client.put("a", "1", None).await.unwrap();
    let address = server.address().unwrap();
    assert!(common::page(address, "/version").await.contains("\"etcdserver\":\"3.5.30\""));
    assert!(common::page(address, "/health").await.contains("\"true\""));
    let metrics = common::page(address, "/metrics").await;
    assert!(metrics.contains("etcd_debugging_mvcc_keys_total 1\n"), "{metrics}");
    assert!(metrics.contains("grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 1\n"), "{metrics}");
}
