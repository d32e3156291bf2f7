//! An embedded member is driven like any other, and says what it cannot do. Needs no etcd.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use sereno_testkit::{Builder, Cluster, Member, Source, TlsMaterial};

async fn member() -> Member {
    Member::builder().source(Source::Embed).start_one().await
}

/// Whether somebody answers there within half a second.
async fn answers(member: &Member) -> bool {
    let limit = Duration::from_millis(500);
    let options = ConnectOptions::new().with_timeout(limit).with_connect_timeout(limit);
    let mut client = Client::connect([member.endpoint()], Some(options)).await.unwrap();
    client.get("k", None).await.is_ok()
}

#[tokio::test]
async fn it_keeps_its_address_and_what_it_knew_when_it_is_killed_stopped_and_frozen() {
    let member = member().await;
    let endpoint = member.endpoint();
    assert_eq!(member.oracle().await.put("k", "1").await, 2);
    for round in 0..3 {
        match round {
            0 => member.kill().await,
            1 => member.stop().await,
            _ => {
                member.pause().await;
                assert!(member.is_running().await && !answers(&member).await);
                member.kill().await;
            }
        }
        assert!(!member.is_running().await && !answers(&member).await);
        member.start().await;
        assert_eq!(member.endpoint(), endpoint);
        assert!(member.is_running().await && answers(&member).await);
        assert_eq!(member.oracle().await.get("k").await.as_deref(), Some(b"1".as_slice()));
        assert_eq!(member.oracle().await.revision().await, 2);
    }
    member.pause().await;
    member.resume().await;
    assert!(answers(&member).await);
    drop(member);
    let address = endpoint.trim_start_matches("http://");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "gone when it is dropped");
}

#[tokio::test]
async fn it_comes_back_empty_when_it_was_wiped() {
    let member = member().await;
    member.oracle().await.put("k", "1").await;
    let cluster = async || {
        let status = member.oracle().await.client().status().await.unwrap();
        (status.header().unwrap().cluster_id(), status.header().unwrap().member_id())
    };
    let before = cluster().await;
    member.wipe().await;
    assert!(!member.is_running().await);
    member.start().await;
    assert_eq!(member.oracle().await.get("k").await, None);
    assert_eq!(member.oracle().await.revision().await, 1);
    assert_eq!(cluster().await, before, "a member of the same name, as with a real etcd");
}

#[tokio::test]
async fn its_quota_and_its_shortest_lease_are_as_asked() {
    let asked = Member::builder().quota_backend_bytes(100_000);
    let asked = asked.timings(Duration::from_millis(100), Duration::from_secs(2)).source(Source::Embed);
    let member = asked.start_one().await;
    let mut client = member.oracle().await.client();
    assert_eq!(client.lease_grant(1, None).await.unwrap().ttl(), 3);
    let mut refused = None;
    for _ in 0..10 {
        refused = refused.or(client.put("big", vec![0_u8; 60_000], None).await.err());
    }
    let refused = refused.expect("600 kB do not fit in 100").to_string();
    assert!(refused.contains("database space exceeded"), "{refused}");
}

#[tokio::test]
async fn what_it_cannot_do_is_a_panic_that_names_it() {
    let material = TlsMaterial::generate();
    for (asked, word) in [
        (Cluster::builder().size(3), "no 3 members"),
        (Cluster::builder().splittable(), "no wires between members"),
        (Member::builder().tls(&material), "no TLS"),
        (Member::builder().auth_token_ttl(Duration::from_secs(2)), "no authentication"),
        (Member::builder().flag("--max-txn-ops=3"), "no --max-txn-ops=3"),
        (Member::builder().data_dir("/tmp"), "no data directory"),
    ] {
        let refused = refusal(asked.source(Source::Embed)).await;
        assert!(refused.contains("this needs a real etcd") && refused.contains(word), "{refused}");
    }
}

async fn refusal(asked: Builder) -> String {
    let failure = tokio::spawn(asked.start()).await.unwrap_err();
    failure.into_panic().downcast_ref::<String>().unwrap().clone()
}
