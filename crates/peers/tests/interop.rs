//! Servers, clients and subscribers against the tools of two other implementations: nngcat (NNG) and nanocat (nanomsg).
//!
//! Cases of a tool that is not installed are counted as skipped, or, with `SERENO_REQUIRE_INTEROP=1`, fail.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{ANY, client, eager, next, quick, server, soon, until};
use sereno_peers::{Client, Server, Subscriber};
use sereno_testkit::Tool;

fn dial(tool: &str, url: &str, arguments: &[&str]) -> Tool {
    Tool::start(tool, &[arguments, &[Tool::dial_flag(tool), url]].concat())
}

#[tokio::test]
async fn a_respondent_of_another_implementation_is_found_and_missed_when_it_dies() {
    for tool in Tool::installed() {
        let server = server().await;
        let onlooker = Subscriber::connect_with(server.pubsub_urls(), eager()).unwrap();
        let mut changes = onlooker.changes();
        assert_eq!(next(&mut changes).await, [""; 0]);
        let url = server.survey_urls()[0].to_string();
        let respondent = dial(tool, &url, &["--respondent", "--data", "theirs"]);
        let ours = client(&server, "ours");
        until(&mut changes, &["ours", "theirs"]).await;
        respondent.kill().await;
        assert_eq!(next(&mut changes).await, ["ours"]);
        ours.cancel().await;
    }
}

#[tokio::test]
async fn a_surveyor_of_another_implementation_gets_our_name() {
    for tool in Tool::installed() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("ipc://{}", folder.path().join("survey").display());
        // Before anybody listens.
        let ours = Client::connect(&url, "our name", eager()).unwrap();
        let flag = Tool::listen_flag(tool);
        // Not every second: that is how long nngcat waits for answers, and it deadlocks now and then (1 in 50 on a busy machine)
        // when the end of that wait and the next survey fall together.
        let arguments = ["--surveyor", "--data", "", "--interval", "2", "--quoted", flag, &url];
        let surveyor = Tool::start(tool, &arguments);
        surveyor.prints("\"our name\"").await;
        ours.cancel().await;
    }
}

#[tokio::test]
async fn a_subscriber_of_another_implementation_reads_names_joined_by_bars() {
    for tool in Tool::installed() {
        let server = server().await;
        let clients = ["c", "a", "b"].map(|name| client(&server, name));
        until(&mut server.peers(), &["a", "b", "c"]).await;
        // It comes late and is told at once.
        let url = server.pubsub_urls()[0].to_string();
        let subscriber = dial(tool, &url, &["--sub", "--subscribe", "", "--quoted"]);
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
    for tool in Tool::installed() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("ipc://{}", folder.path().join("pubsub").display());
        let flag = Tool::listen_flag(tool);
        let _publisher = Tool::start(tool, &["--pub", "--data", "z|y|z", "--interval", "1", flag, &url]);
        let onlooker = Subscriber::connect_with(&url, eager()).unwrap();
        assert_eq!(next(&mut onlooker.changes()).await, ["y", "z"]);
        onlooker.cancel().await;
    }
}

#[tokio::test]
async fn tools_share_a_server_with_each_other_and_with_us() {
    let tools = Tool::installed();
    let server = Server::bind(ANY, ANY, quick()).await.unwrap();
    let url = server.survey_urls()[0].to_string();
    let respondents: Vec<Tool> =
        tools.iter().map(|tool| dial(tool, &url, &["--respondent", "--data", tool])).collect();
    let ours = client(&server, "ours");
    let mut wanted = [tools, vec!["ours"]].concat();
    wanted.sort_unstable();
    until(&mut ours.peers().unwrap(), &wanted).await;
    soon("the end", ours.cancel()).await;
    drop(respondents);
}
