//! The tour counts right whatever happens to its processes, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sereno_testkit::{Oracle, eventually, fresh_namespace, shared};
use tempfile::TempDir;

/// A folder with so many texts, of `300 * files` lines in all.
fn texts(files: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..files {
        let text = format!("some words {number}\n").repeat(300);
        fs::write(folder.path().join(format!("{number:04}.txt")), text).unwrap();
    }
    folder
}

async fn tour(namespace: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tour"));
    command.env("ETCD_ENDPOINTS", shared().await.join(",")).env("SERENO_NAMESPACE", namespace);
    command.arg("--input").arg(folder).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

async fn finish(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    println!("{told}");
    assert!(output.status.success(), "{}", output.status);
    // The folder's path stands in a line of its own, however long it is.
    let long = told.lines().find(|line| line.chars().count() > 80 && !line.starts_with("  /"));
    assert_eq!(long, None);
    told
}

/// The keys below a namespace that are not the core's or the ids' own.
async fn left_behind(namespace: &str) -> Vec<String> {
    let oracle = Oracle::connect(&shared().await).await;
    let entries = oracle.range(format!("{namespace}/")).await.into_iter();
    let keys = entries.map(|(key, _)| String::from_utf8(key).unwrap());
    keys.filter(|key| !key.starts_with(&format!("{namespace}/id/"))).collect()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_job_counts_what_one_process_counts_and_leaves_no_keys() {
    let (folder, namespace) = (texts(200), fresh_namespace("tour"));
    let told = finish(tour(&namespace, folder.path()).await).await;
    assert!(told.contains("check: OK"));
    assert!(told.lines().any(|line| line.split_whitespace().eq(["lines", "60,000", "60,000"])));
    assert_eq!(left_behind(&namespace).await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_job_counts_right_though_a_worker_is_killed() {
    let (folder, namespace) = (texts(200), fresh_namespace("tour-kill"));
    let mut command = tour(&namespace, folder.path()).await;
    command.args(["--kill", "--workers", "3"]);
    let told = finish(command).await;
    assert!(told.contains("was killed with SIGKILL"));
    assert!(told.contains("is dead: its lease has expired"));
    assert!(told.contains("check: OK"));
    assert!(told.lines().any(|line| line.split_whitespace().eq(["files", "200", "200"])));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn workers_end_when_their_leader_is_killed() {
    let (folder, namespace) = (texts(2000), fresh_namespace("tour-orphans"));
    let mut leader = tour(&namespace, folder.path()).await.spawn().unwrap();
    let lines = BufReader::new(leader.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap).skip_while(|line| !line.starts_with("4 workers have joined"));
    let workers = lines.nth(1).unwrap();
    let workers: Vec<&str> =
        workers.split_whitespace().map(|worker| worker.split_once(':').unwrap().1).collect();
    assert_eq!(workers.len(), 4);
    leader.kill().unwrap();
    leader.wait().unwrap();
    let is_there = |id: &&str| {
        let status = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // One that has ended and that nobody has asked after yet is not there.
        !status.is_empty() && !status.contains(") Z ")
    };
    eventually(Duration::from_secs(10), "the end of all workers", async || {
        (!workers.iter().any(is_there)).then_some(())
    })
    .await;
}
