//! Members that know nothing of etcd: the tools of two other implementations, nngcat (NNG) and nanocat (nanomsg), read from
//! the advertised address.
//!
//! Cases of a tool that is not installed are told as skipped, or, with `SERENO_REQUIRE_INTEROP=1`, fail.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use common::{LONG, destination, key, place, register, session, soon};
use sereno_pipes::Mode;
use sereno_testkit::eventually;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let required = std::env::var("SERENO_REQUIRE_INTEROP").is_ok_and(|value| value == "1");
    assert!(there || !required, "{tool} must be installed, because SERENO_REQUIRE_INTEROP=1");
    if !there {
        println!("skipped: {tool} is not installed");
    }
    there
}

/// A running tool, and what it has printed. Killed when dropped.
struct Tool {
    _process: Child,
    printed: Arc<Mutex<String>>,
}

impl Tool {
    fn start(tool: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(tool)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (mut stdout, text) = (process.stdout.take().unwrap(), Arc::clone(&printed));
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { _process: process, printed }
    }

    async fn prints(&self, text: &str) {
        eventually(LONG, text, async || self.printed.lock().unwrap().contains(text).then_some(())).await;
    }
}

/// Sends to a group whose only member is a tool that dials what etcd says.
async fn play(tool: &str, mode: Mode) {
    let (client, oracle) = place("tool").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination().standing("g", mode)).await;
    soon("the group", sender.wait_for(1)).await.unwrap();
    let stored = oracle.get(key(&client, "d", "group/g/address")).await.unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["mode"], if mode == Mode::AtMostOnce { "push" } else { "acked" });
    let url = stored["url"].as_str().unwrap();
    let dial = if tool == "nngcat" { "--dial" } else { "--connect" };
    let arguments: &[&str] = match mode {
        Mode::AtMostOnce => &["--pull", "--quoted", dial, url],
        _ => &["--rep", "--data", "done", "--quoted", dial, url],
    };
    let running = Tool::start(tool, arguments);
    for body in ["first", "second", "third"] {
        assert_eq!(sender.send(format!("the {body} message")).await.unwrap(), 1);
    }
    for body in ["first", "second", "third"] {
        running.prints(&format!("\"the {body} message\"")).await;
    }
    eventually(LONG, "everything to be acknowledged", async || {
        (sender.stats().groups["g"].queued == 0).then_some(())
    })
    .await;
    // Killed and started again: what is sent meanwhile waits.
    drop(running);
    eventually(LONG, "its end", async || (sender.stats().groups["g"].connections == 0).then_some(())).await;
    sender.send("meanwhile").await.unwrap();
    let running = Tool::start(tool, arguments);
    running.prints("\"meanwhile\"").await;
    sender.unregister().await.unwrap();
    println!("{tool}, {mode}: passed");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_plain_puller_reads_a_group_at_most_once() {
    for tool in ["nngcat", "nanocat"] {
        if is_installed(tool) {
            play(tool, Mode::AtMostOnce).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_plain_replier_reads_a_group_at_least_once() {
    for tool in ["nngcat", "nanocat"] {
        if is_installed(tool) {
            play(tool, Mode::AtLeastOnce).await;
        }
    }
}
