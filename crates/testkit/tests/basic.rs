//! Members, clusters and the helpers around them do what they say.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, PutOptions, TlsOptions};
use sereno_testkit::{
    BlackHole, ChildHost, Cluster, Member, Oracle, TlsMaterial, child, eventually, fresh_namespace, metrics,
    raw, raw_with, shared,
};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_single_member_takes_writes_and_tells_its_version() {
    let started = Instant::now();
    let member = Member::single().await;
    println!("started in {:?}", started.elapsed());
    let oracle = member.oracle().await;
    assert_eq!(oracle.revision().await, 1, "readiness must leave no trace");
    assert_eq!(oracle.put("a", "1").await, 2);
    assert_eq!(oracle.get("a").await.as_deref(), Some(b"1".as_slice()));
    let version = member.version().await;
    println!("version {version}");
    assert!(version.starts_with("3."), "{version}");
    assert_eq!(oracle.client().status().await.unwrap().version(), version);
}

#[tokio::test]
#[ignore = "needs a real etcd: data on disk"]
async fn a_dropped_member_is_gone_with_its_data() {
    let member = Member::single().await;
    let (endpoint, data) = (member.endpoint(), member.data_dir().to_path_buf());
    assert!(data.join("member").exists());
    drop(member);
    assert!(!data.exists());
    let address = endpoint.trim_start_matches("http://");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
#[ignore = "needs a real etcd: data on disk"]
async fn a_given_data_directory_outlives_the_member() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::builder().data_dir(folder.path()).fsync(true).start_one().await;
    member.oracle().await.put("kept", "yes").await;
    drop(member);
    assert!(folder.path().join("m0/member").exists());
    let member = Member::builder().data_dir(folder.path()).start_one().await;
    assert_eq!(member.oracle().await.get("kept").await.as_deref(), Some(b"yes".as_slice()));
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn three_members_agree_on_one_leader() {
    let started = Instant::now();
    let cluster = Cluster::start(3).await;
    println!("started in {:?}", started.elapsed());
    assert_eq!(cluster.endpoints().len(), 3);
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    assert_eq!(followers.len(), 2);
    assert!(!followers.contains(&leader));
    cluster.member(0).oracle().await.put("k", "v").await;
    assert!(cluster.member(2).oracle().await.get("k").await.is_some());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn shared_is_the_same_etcd_for_everybody() {
    let (first, second) = tokio::join!(shared(), shared());
    assert_eq!(first, second);
    let key = fresh_namespace("shared");
    raw(&first).await.put(key.as_str(), "x", None).await.unwrap();
    assert!(Oracle::connect(&second).await.delete(key.as_str()).await);
}

#[test]
fn namespaces_never_repeat() {
    let all: std::collections::BTreeSet<String> = (0..1000).map(|_| fresh_namespace("n")).collect();
    assert_eq!(all.len(), 1000);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_oracle_sees_and_changes_leases_keys_and_history() {
    let member = Member::single().await;
    let oracle = member.oracle().await;
    let lease = oracle.client().lease_grant(60, None).await.unwrap().id();
    oracle.put_with_lease("p/a", "1", lease).await;
    oracle.put("p/b", "2").await;
    oracle.put("q", "3").await;
    assert_eq!(oracle.leases().await, [lease]);
    assert_eq!(oracle.count_prefix("p/").await, 2);
    assert_eq!(oracle.range("p/").await.len(), 2);
    assert!(oracle.revoke(lease).await);
    assert!(!oracle.revoke(lease).await, "a lease is revoked once");
    assert_eq!(oracle.count_prefix("p/").await, 1);
    assert!(oracle.delete("p/b").await);
    assert!(!oracle.delete("p/b").await);
    let head = oracle.compact_to_head().await;
    assert_eq!(head, oracle.revision().await);
    assert_eq!(oracle.compact_to_head().await, head);
    let past = etcd_client::GetOptions::new().with_revision(2);
    let refused = oracle.client().get("q", Some(past)).await.unwrap_err().to_string();
    assert!(refused.contains("compacted"), "{refused}");
    assert_eq!(oracle.delete_prefix("q").await, 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn metrics_count_watchers_and_proposals() {
    let member = Member::single().await;
    let mut client = member.oracle().await.client();
    let before = member.metrics().await.get("etcd_server_proposals_committed_total").unwrap();
    let _watch = client.watch("w", None).await.unwrap();
    for _ in 0..5 {
        client.put("k", "v", None).await.unwrap();
    }
    let after = member.metrics().await;
    assert!(after.get("etcd_server_proposals_committed_total").unwrap() >= before + 5.0);
    assert_eq!(after.get("etcd_debugging_mvcc_watcher_total"), Some(1.0));
    assert_eq!(metrics(&member.endpoint(), "etcd_debugging_mvcc_watch_stream_total").await, 1.0);
}

#[tokio::test]
#[ignore = "needs a real etcd: etcd's flags"]
async fn options_reach_the_member() {
    let member = Member::builder().quota_backend_bytes(100_000).flag("--max-txn-ops=3").start_one().await;
    let mut client = member.oracle().await.client();
    let puts: Vec<_> = (0..4).map(|n| etcd_client::TxnOp::put(format!("{n}"), "", None)).collect();
    let refused = client.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap_err().to_string();
    assert!(refused.contains("too many operations"), "{refused}");
    let big = vec![0_u8; 60_000];
    let refused = eventually(Duration::from_secs(60), "the quota to bite", async || {
        client.put("big", big.clone(), None).await.err().map(|error| error.to_string())
    })
    .await;
    assert!(refused.contains("database space exceeded"), "{refused}");
}

#[tokio::test]
#[ignore = "needs a real etcd: authentication"]
async fn authentication_separates_prefixes_and_survives_a_restart() {
    let member =
        Member::builder().auth_token_ttl(Duration::from_secs(2)).flag("--bcrypt-cost=4").start_one().await;
    member.oracle().await.enable_auth("rootpw", "ada", "adapw", "mine/").await;
    let plain = raw(&[member.endpoint()]).await.put("mine/a", "1", None).await;
    assert!(plain.unwrap_err().to_string().contains("user name is empty"));
    let as_ada = || ConnectOptions::new().with_user("ada", "adapw");
    let mut ada = raw_with(&[member.endpoint()], as_ada()).await;
    ada.put("mine/a", "1", None).await.unwrap();
    assert!(ada.put("theirs", "1", None).await.unwrap_err().to_string().contains("permission denied"));
    member.kill().await;
    member.start().await;
    let mut ada = raw_with(&[member.endpoint()], as_ada()).await;
    assert_eq!(ada.get("mine/a", None).await.unwrap().count(), 1);
    let wrong = Client::connect([member.endpoint()], Some(ConnectOptions::new().with_user("ada", "x"))).await;
    assert!(wrong.is_err());
}

async fn put_over(endpoint: &str, tls: TlsOptions) -> Result<(), String> {
    let limit = Duration::from_secs(2);
    let options = ConnectOptions::new().with_tls(tls).with_timeout(limit).with_connect_timeout(limit);
    let mut client = Client::connect([endpoint], Some(options)).await.map_err(|error| error.to_string())?;
    client.put("k", "v", Some(PutOptions::new())).await.map(drop).map_err(|error| error.to_string())
}

fn trust(pem: &str) -> TlsOptions {
    TlsOptions::new().ca_certificate(etcd_client::Certificate::from_pem(pem))
}

fn show(identity: &sereno_testkit::Identity) -> etcd_client::Identity {
    etcd_client::Identity::from_pem(&identity.cert_pem, &identity.key_pem)
}

#[tokio::test]
#[ignore = "needs a real etcd: TLS"]
async fn tls_lets_in_who_trusts_the_right_authority() {
    let material = TlsMaterial::generate();
    let member = Member::builder().tls(&material).start_one().await;
    assert!(member.endpoint().starts_with("https://"));
    put_over(&member.endpoint(), trust(&material.ca.cert_pem)).await.unwrap();
    put_over(&member.endpoint(), trust(&material.other_ca.cert_pem)).await.unwrap_err();
    assert!(member.version().await.starts_with("3."));
}

#[tokio::test]
#[ignore = "needs a real etcd: TLS"]
async fn mutual_tls_lets_in_who_shows_a_good_certificate() {
    let material = TlsMaterial::generate();
    let cluster = Cluster::builder().size(3).mtls(&material).start().await;
    let endpoint = cluster.member(cluster.leader().await).endpoint();
    let ours = || trust(&material.ca.cert_pem);
    put_over(&endpoint, ours().identity(show(&material.client))).await.unwrap();
    put_over(&endpoint, ours()).await.unwrap_err();
    put_over(&endpoint, ours().identity(show(&material.other_client))).await.unwrap_err();
    put_over(&endpoint, ours().identity(show(&material.expired_client))).await.unwrap_err();
}

#[tokio::test]
#[ignore = "needs a real etcd: TLS"]
async fn a_bad_server_certificate_is_served_as_asked_and_refused_by_clients() {
    let material = TlsMaterial::generate();
    for bad in [&material.expired_server, &material.wrong_san_server] {
        let member = Member::builder().bad_tls(&material, bad).start_one().await;
        put_over(&member.endpoint(), trust(&material.ca.cert_pem)).await.unwrap_err();
    }
    // The very same client gets in when only the name it asks for is the one in the certificate.
    let member = Member::builder().bad_tls(&material, &material.wrong_san_server).start_one().await;
    let named = trust(&material.ca.cert_pem).domain_name("wrong.example");
    put_over(&member.endpoint(), named).await.unwrap();
}

#[tokio::test]
async fn a_black_hole_accepts_and_never_answers() {
    let hole = BlackHole::listen().await;
    let options = ConnectOptions::new().with_timeout(Duration::from_millis(300));
    let mut client = Client::connect([hole.endpoint()], Some(options)).await.unwrap();
    let started = Instant::now();
    client.get("k", None).await.unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(290));
    assert!(hole.accepted() >= 1);
}

#[tokio::test]
async fn eventually_returns_what_the_probe_found_and_gives_up_on_time() {
    let mut calls = 0;
    let found = eventually(Duration::from_secs(60), "three calls", async || {
        calls += 1;
        (calls == 3).then_some(calls)
    })
    .await;
    assert_eq!(found, 3);
    let hopeless =
        tokio::spawn(eventually(Duration::from_millis(50), "godot", async || std::future::pending().await));
    let started = Instant::now();
    let failure: Result<(), _> = hopeless.await;
    let message = failure.unwrap_err().into_panic();
    assert!(message.downcast_ref::<String>().unwrap().contains("godot"));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
#[ignore = "entry of child processes"]
async fn child_entry() {
    match child::role().as_deref() {
        Some("echo") => {
            child::say(&format!("hello {}", child::argument(0)));
            while let Some(line) = child::hear() {
                child::say(&format!("heard {line}"));
            }
        }
        Some("member") => {
            let member = Member::single().await;
            child::say(&format!("at {} {}", member.endpoint(), member.data_dir().display()));
            std::future::pending::<()>().await;
        }
        Some("shared") => child::say(&format!("at {}", shared().await[0])),
        Some(other) => panic!("no such role: {other}"),
        None => {}
    }
}

#[tokio::test]
async fn a_child_speaks_freezes_thaws_and_dies() {
    let mut echo = ChildHost::new("child_entry", "echo").argument("there").spawn();
    assert_eq!(echo.line().await, "hello there");
    echo.send("one");
    assert_eq!(echo.wait_for("heard", Duration::from_secs(10)).await, "one");
    echo.pause();
    echo.send("two");
    assert_eq!(echo.next_line(Duration::from_millis(300)).await, None, "a frozen child says nothing");
    echo.resume();
    assert_eq!(echo.line().await, "heard two");
    echo.pause();
    echo.kill();
    assert!(!echo.is_running());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn nothing_is_left_when_a_test_process_is_killed() {
    let mut host = ChildHost::new("child_entry", "member").spawn();
    let place = host.wait_for("at", Duration::from_secs(60)).await;
    let (endpoint, data) = place.split_once(' ').unwrap();
    raw(&[endpoint]).await.get("k", None).await.unwrap();
    host.kill();
    gone(endpoint).await;
    eventually(Duration::from_secs(60), "the data to go", async || (!Path::new(data).exists()).then_some(()))
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_shared_member_is_gone_when_its_process_has_ended() {
    let mut host = ChildHost::new("child_entry", "shared").env("ETCD_ENDPOINTS", "").spawn();
    let endpoint = host.wait_for("at", Duration::from_secs(60)).await;
    assert!(host.wait(Duration::from_secs(20)).await, "the child must end well");
    gone(&endpoint).await;
}

async fn gone(endpoint: &str) {
    let address = endpoint.trim_start_matches("http://");
    eventually(Duration::from_secs(60), "the member to go", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}
