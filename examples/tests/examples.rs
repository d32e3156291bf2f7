//! Every example runs as it stands and says what it promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sereno_testkit::{fresh_namespace, shared};

/// Cargo builds examples before tests, next to the folder of the tests.
fn program(name: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let path: PathBuf = here.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built", path.display());
    let mut command = Command::new(path);
    command.env("SERENO_NAMESPACE", fresh_namespace(name)).stdin(Stdio::null());
    command
}

/// Runs on a thread of its own: the runtime of the test may have to serve an etcd.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs an example on an etcd, and gives what it told when all `lines` were among it.
async fn says(name: &str, lines: &[&str]) -> String {
    let mut command = program(name);
    command.env("ETCD_ENDPOINTS", shared().await.join(","));
    check(command, lines).await
}

/// Runs an example that needs no etcd, and gives what it told when all `lines` were among it.
async fn says_alone(name: &str, lines: &[&str]) -> String {
    let mut command = program(name);
    // Nobody listens on port 1.
    command.env("ETCD_ENDPOINTS", "http://127.0.0.1:1");
    check(command, lines).await
}

async fn check(command: Command, lines: &[&str]) -> String {
    let output = run(command).await;
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{told}{errors}");
    assert!(output.status.success(), "{}", output.status);
    for line in lines {
        assert!(told.lines().any(|told| told == *line), "no line {line:?}");
    }
    told
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn counter_tells_every_addition_another_value() {
    let values = "ten additions of 1 were told [101, 102, 103, 104, 105, 106, 107, 108, 109, 110]";
    says("counter", &[values, "three back: 107", "not set to 0: it is not 100 but 107", "watched: 142"])
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn waitgroup_waits_and_notices_a_death() {
    let died = "node-3 died before it was done";
    says("waitgroup", &["node-3 has entered; 1 is outstanding", died, "nobody is waited for any more"]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn pubsub_delivers_to_those_who_were_there_and_those_who_come_late() {
    let bytes = r#"heard b"\xff\0" Some("application/octet-stream")"#;
    says("pubsub", &[r#"heard b"hello" None"#, bytes, r#"heard later: b"\xff\0""#]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn keepalive_shows_nodes_come_change_and_go() {
    let joined = r#"n2 joined with b"10.0.0.2:80""#;
    let changed = r#"n1 is now at b"10.0.0.1:8080""#;
    let back = r#"n1 joined with b"10.0.0.1:8080""#;
    let lines =
        ["0 were there before", "alive: n1 n2", joined, changed, "n1 left", back, "n2 left", "alive: 0"];
    says("keepalive", &lines).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn id_makes_no_id_twice() {
    let end = "no more ids: session epoch 1 was lost: it was closed";
    let told = says("id", &[end]).await;
    assert!(told.contains("10000 different ids of 10000 in "));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn session_loses_an_epoch_and_what_was_owned_but_not_its_presence() {
    let restored = "presence was restored 1 time(s)";
    let refused = "a late write of epoch 1 was refused";
    says("session", &["owned: true", restored, "owned is None", "epoch 2 has a higher token: true", refused])
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn seq_shares_the_shards_of_a_killed_process_out_anew() {
    let three = "3 workers have all 12 shards, each one once";
    says("seq", &[three, "worker 0 is killed", "2 workers have all 12 shards, each one once"]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn partitions_loses_no_order_of_a_killed_process() {
    let killed = "worker 0 is killed at its first order";
    let removed = "nobody uses the topics any more: they are removed";
    says("partitions", &[killed, "all 360 orders were handled", removed]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn http_service_loses_no_request_while_it_is_restarted() {
    let told = says("http_service", &["failed: 0"]).await;
    let number = |start: &str| -> u64 {
        let line = told.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        line.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(number("requests: ") >= 20_000, "{told}");
    assert!(number("restarts: ") >= 4, "{told}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn pipes_carry_each_message_to_every_group_and_again_when_it_was_not_acknowledged() {
    let billing = "billing has 100, of which 1 came again";
    says("pipes", &["group audit", "group billing", "audit has 100", billing]).await;
}

#[tokio::test]
async fn peers_ring_moves_only_the_keys_that_must_move() {
    let (three, four) = ("peers: cache-1 cache-2 cache-3", "peers: cache-1 cache-2 cache-3 cache-4");
    let agree = "all agree on every key: true";
    let moved = "all that moved went to cache-4: true";
    let told =
        says_alone("peers_ring", &[three, agree, four, moved, "every key is where it was: true"]).await;
    let count = told.lines().find_map(|line| line.strip_suffix(" of 1000 keys moved")).unwrap();
    let count: usize = count.parse().unwrap();
    assert!((150..350).contains(&count), "about a quarter: {count}");
}

#[tokio::test]
async fn peers_proxy_follows_its_backends_and_no_connection_fails() {
    let shared = "30 connections, each backend had [10, 10, 10]";
    let died = "one died: true, and of 30 connections 30 succeeded";
    let gone = "backends: 2, the dead one among them: false";
    says_alone("peers_proxy", &["backends: 3", shared, died, gone, "backends: 3, the new one is used: true"])
        .await;
}

#[test]
fn without_an_etcd_an_example_fails_with_a_reason() {
    let start = Instant::now();
    // All at once: each takes as long as a client tries to connect.
    let names = [
        "counter",
        "waitgroup",
        "pubsub",
        "keepalive",
        "id",
        "session",
        "seq",
        "partitions",
        "http_service",
        "pipes",
    ];
    let running = names.map(|name| {
        let mut command = program(name);
        // Nobody listens on port 1.
        command.env("ETCD_ENDPOINTS", "http://127.0.0.1:1").stdout(Stdio::null()).stderr(Stdio::piped());
        (name, command.spawn().unwrap())
    });
    for (name, child) in running {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.starts_with("Error: there is no etcd at ETCD_ENDPOINTS"), "{name}: {errors}");
    }
    assert!(start.elapsed() < Duration::from_secs(60), "took {:?}", start.elapsed());
}
