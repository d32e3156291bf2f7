//! Servers, clients and subscribers against the tools of two other implementations: nngcat (NNG) and nanocat (nanomsg).
//!
//! Cases of a tool that is not installed are counted as skipped, or, with `SERENO_REQUIRE_INTEROP=1`, fail.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use common::{ANY, LONG, client, eager, next, quick, server, soon, until};
use sereno_peers::{Client, Server, Subscriber};
use sereno_testkit::eventually;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

const TOOLS: [&str; 2] = ["nngcat", "nanocat"];

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// The tools there are. Fails without them where they are required.
fn installed() -> Vec<&'static str> {
    let (there, missing): (Vec<_>, Vec<_>) = TOOLS.into_iter().partition(|tool| is_installed(tool));
    let required = std::env::var("SERENO_REQUIRE_INTEROP").is_ok_and(|value| value == "1");
    assert!(
        !required || missing.is_empty(),
        "{missing:?} must be installed, because SERENO_REQUIRE_INTEROP=1"
    );
    println!("interop: with {there:?}, skipped {missing:?}");
    there
}

/// A running tool, and what it has printed. Killed when dropped.
struct Tool {
    process: Child,
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
        Self { process, printed }
    }

    fn dial(tool: &str, url: &str, arguments: &[&str]) -> Self {
        let flag = if tool == "nngcat" { "--dial" } else { "--connect" };
        Self::start(tool, &[arguments, &[flag, url]].concat())
    }

    async fn prints(&self, text: &str) {
        eventually(LONG, text, async || self.printed.lock().unwrap().contains(text).then_some(())).await;
    }

    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_respondent_of_another_implementation_is_found_and_missed_when_it_dies() {
    for tool in installed() {
        let server = server().await;
        let onlooker = Subscriber::connect_with(server.pubsub_urls(), eager()).unwrap();
        let mut changes = onlooker.changes();
        assert_eq!(next(&mut changes).await, [""; 0]);
        let url = server.survey_urls()[0].to_string();
        let respondent = Tool::dial(tool, &url, &["--respondent", "--data", "theirs"]);
        let ours = client(&server, "ours");
        until(&mut changes, &["ours", "theirs"]).await;
        respondent.kill().await;
        assert_eq!(next(&mut changes).await, ["ours"]);
        ours.cancel().await;
    }
}

#[tokio::test]
async fn a_surveyor_of_another_implementation_gets_our_name() {
    for tool in installed() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("ipc://{}", folder.path().join("survey").display());
        // Before anybody listens.
        let ours = Client::connect(&url, "our name", eager()).unwrap();
        let flag = if tool == "nngcat" { "--listen" } else { "--bind" };
        let arguments = ["--surveyor", "--data", "", "--interval", "1", "--quoted", flag, &url];
        let surveyor = Tool::start(tool, &arguments);
        surveyor.prints("\"our name\"").await;
        ours.cancel().await;
    }
}

#[tokio::test]
async fn a_subscriber_of_another_implementation_reads_names_joined_by_bars() {
    for tool in installed() {
        let server = server().await;
        let clients = ["c", "a", "b"].map(|name| client(&server, name));
        until(&mut server.peers(), &["a", "b", "c"]).await;
        // It comes late and is told at once.
        let url = server.pubsub_urls()[0].to_string();
        let subscriber = Tool::dial(tool, &url, &["--sub", "--subscribe", "", "--quoted"]);
        subscriber.prints("\"a|b|c\"").await;
        for client in clients {
            client.cancel().await;
        }
        // Nobody is an empty message.
        subscriber.prints("\"\"").await;
    }
}

#[tokio::test]
async fn a_publisher_of_another_implementation_is_followed() {
    for tool in installed() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("ipc://{}", folder.path().join("pubsub").display());
        let flag = if tool == "nngcat" { "--listen" } else { "--bind" };
        let _publisher = Tool::start(tool, &["--pub", "--data", "z|y|z", "--interval", "1", flag, &url]);
        let onlooker = Subscriber::connect_with(&url, eager()).unwrap();
        assert_eq!(next(&mut onlooker.changes()).await, ["y", "z"]);
        onlooker.cancel().await;
    }
}

#[tokio::test]
async fn tools_share_a_server_with_each_other_and_with_us() {
    let tools = installed();
    let server = Server::bind(ANY, ANY, quick()).await.unwrap();
    let url = server.survey_urls()[0].to_string();
    let respondents: Vec<Tool> =
        tools.iter().map(|tool| Tool::dial(tool, &url, &["--respondent", "--data", tool])).collect();
    let ours = client(&server, "ours");
    let mut wanted = [tools, vec!["ours"]].concat();
    wanted.sort_unstable();
    until(&mut ours.peers().unwrap(), &wanted).await;
    soon("the end", ours.cancel()).await;
    drop(respondents);
}
