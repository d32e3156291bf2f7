//! Members that know nothing of etcd: the tools of two other implementations, nngcat (NNG) and nanocat (nanomsg), read from
//! the advertised address.
//!
//! Cases of a tool that is not installed are told as skipped, or, with `SERENO_REQUIRE_INTEROP=1`, fail.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{LONG, destination, key, place, register, session, soon};
use sereno_pipes::Mode;
use sereno_testkit::{Tool, eventually};

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
    let dial = Tool::dial_flag(tool);
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
    for tool in Tool::installed() {
        play(tool, Mode::AtMostOnce).await;
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_plain_replier_reads_a_group_at_least_once() {
    for tool in Tool::installed() {
        play(tool, Mode::AtLeastOnce).await;
    }
}
