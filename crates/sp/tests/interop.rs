//! Every kind of socket against the tools of two other implementations: nngcat (NNG) and nanocat (nanomsg).
//!
//! Cases of a tool that is not installed are counted as skipped, or, with `SERENO_REQUIRE_INTEROP=1`, fail.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{LONG, quick, soon};
use sereno_sp::{Pub, Pull, Push, Refusal, Rep, Req, Respondent, Sub, Surveyor};
use sereno_testkit::{Tool, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const ROLES: [&str; 8] = ["push", "pull", "pub", "sub", "surveyor", "respondent", "req", "rep"];
/// How many cases run at once: each has a process of its own.
const AT_ONCE: usize = 6;

/// One case: our role, the tool, and who listens where.
#[derive(Debug, Clone, Copy)]
struct Case {
    role: &'static str,
    tool: &'static str,
    ipc: bool,
    we_listen: bool,
}

/// A port that was free a moment ago, for tools that cannot tell which one they were given.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Connects one of our sockets and a tool, as the case has it.
macro_rules! meet {
    ($socket:expr, $case:expr, $folder:expr, $arguments:expr) => {{
        let case: Case = $case;
        let place = if case.ipc {
            format!("ipc://{}", $folder.path().join("socket").display())
        } else if case.we_listen {
            "tcp://127.0.0.1:0".to_owned()
        } else {
            format!("tcp://127.0.0.1:{}", free_port())
        };
        let place = if case.we_listen { $socket.listen(&place).await.unwrap().to_string() } else { place };
        let flag = if case.we_listen { Tool::dial_flag(case.tool) } else { Tool::listen_flag(case.tool) };
        let mut arguments: Vec<&str> = $arguments.to_vec();
        arguments.extend([flag, &place]);
        let tool = Tool::start(case.tool, &arguments);
        if !case.we_listen {
            $socket.dial(&place).unwrap();
        }
        tool
    }};
}

/// Passes when our socket and the tool's understand each other.
async fn play(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    match case.role {
        "push" => {
            let push = Push::with_options(quick());
            let tool = meet!(push, case, folder, ["--pull", "--quoted"]);
            for number in 0..3 {
                push.send(format!("pushed {number}")).await.unwrap();
            }
            tool.prints("pushed 2").await;
            assert_eq!(tool.printed().trim(), "\"pushed 0\"\n\"pushed 1\"\n\"pushed 2\"");
            assert_eq!(push.close().await.undelivered, 0);
        }
        "pull" => {
            let pull = Pull::with_options(quick());
            let _tool = meet!(pull, case, folder, ["--push", "--data", "from the tool", "--interval", "1"]);
            assert_eq!(pull.recv().await.unwrap(), "from the tool");
        }
        "pub" => {
            let publisher = Pub::with_options(quick());
            let tool = meet!(publisher, case, folder, ["--sub", "--subscribe", "news", "--quoted"]);
            eventually(LONG, "news", async || {
                publisher.send("olds: not wanted").await.unwrap();
                publisher.send("news: wanted").await.unwrap();
                tool.printed().contains("wanted").then_some(())
            })
            .await;
            assert!(!tool.printed().contains("olds"), "{}", tool.printed());
        }
        "sub" => {
            let subscriber = Sub::with_options(quick());
            subscriber.subscribe("news");
            let _tool = meet!(subscriber, case, folder, ["--pub", "--data", "news: 1", "--interval", "1"]);
            assert_eq!(subscriber.recv().await.unwrap(), "news: 1");
        }
        "surveyor" => {
            let surveyor = Surveyor::with_options(quick());
            let _tool = meet!(surveyor, case, folder, ["--respondent", "--data", "here"]);
            surveyor.connected(1).await.unwrap();
            // nngcat may be connected before it is ready to answer.
            let answer = eventually(LONG, "an answer", async || {
                surveyor.survey("who?").unwrap().next().await.map(Result::unwrap)
            })
            .await;
            assert_eq!(answer.body, "here");
        }
        "respondent" => {
            let respondent = Respondent::with_options(quick());
            // Not every second: that is how long nngcat waits for answers, and it deadlocks now and then when the end of that wait
            // and the next survey fall together.
            let arguments = ["--surveyor", "--data", "who?", "--interval", "2", "--quoted"];
            let tool = meet!(respondent, case, folder, arguments);
            let answering = async {
                loop {
                    let question = respondent.recv().await.unwrap();
                    assert_eq!(question.body(), "who?");
                    question.reply("we are").unwrap();
                }
            };
            tokio::select! {
                biased;
                () = tool.prints("\"we are\"") => {}
                () = answering => {}
            }
        }
        "req" => {
            let req = Req::with_options(quick());
            let _tool = meet!(req, case, folder, ["--rep", "--data", "answer"]);
            let tickets = [req.send("1").await.unwrap(), req.send("2").await.unwrap()];
            for ticket in tickets {
                assert_eq!(ticket.await.unwrap(), "answer");
            }
        }
        "rep" => {
            let rep = Rep::with_options(quick());
            let arguments = ["--req", "--data", "question", "--interval", "1", "--quoted"];
            let tool = meet!(rep, case, folder, arguments);
            let request = rep.recv().await.unwrap();
            assert_eq!(request.body(), "question");
            request.reply("our answer").unwrap();
            tool.prints("\"our answer\"").await;
        }
        other => panic!("unknown role {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_socket_talks_to_nngcat_and_nanocat_both_ways_over_tcp_and_ipc() {
    let there = Tool::installed();
    let mut cases = Vec::new();
    for tool in Tool::NAMES {
        for role in ROLES {
            for ipc in [false, true] {
                for we_listen in [true, false] {
                    cases.push(Case { role, tool, ipc, we_listen });
                }
            }
        }
    }
    let count = cases.len();
    let (playable, skipped): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| there.contains(&case.tool));
    let (seats, mut running) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for case in playable {
        let seats = Arc::clone(&seats);
        running.spawn(async move {
            let _seat = seats.acquire_owned().await.unwrap();
            let runtime = tokio::runtime::Handle::current();
            // On a thread of its own, so that a case may fail without the others.
            let playing = move || runtime.block_on(soon("the case", play(case)));
            let outcome = tokio::task::spawn_blocking(playing).await;
            (case, outcome.map_err(|error| error.to_string()))
        });
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    while let Some(outcome) = running.join_next().await {
        match outcome.unwrap() {
            (_, Ok(())) => passed += 1,
            (case, Err(error)) => failed.push(format!("{case:?}: {error}")),
        }
    }
    println!("interop: {count} cases, {passed} passed, {} skipped", skipped.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(passed + skipped.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_in_the_wrong_role_is_refused_and_delivers_nothing() {
    for tool in Tool::installed() {
        let folder = tempfile::tempdir().unwrap();
        let case = Case { role: "pull", tool, ipc: false, we_listen: true };
        let pull = Pull::with_options(quick());
        let _tool = meet!(pull, case, folder, ["--pub", "--data", "wrong", "--interval", "1"]);
        eventually(LONG, "the refusal", async || {
            (pull.stats().refused(Refusal::WrongProtocol) > 0).then_some(())
        })
        .await;
        assert_eq!(pull.stats().accepted, 0);
        assert_eq!(pull.try_recv().unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_nothing_of_a_foreign_prefix_from_a_tool() {
    for tool in Tool::installed() {
        let folder = tempfile::tempdir().unwrap();
        let case = Case { role: "sub", tool, ipc: true, we_listen: true };
        let subscriber = Sub::with_options(quick());
        subscriber.subscribe("other");
        let _tool = meet!(subscriber, case, folder, ["--pub", "--data", "news", "--interval", "1"]);
        eventually(LONG, "a publication", async || (subscriber.stats().messages_in > 0).then_some(())).await;
        let received = tokio::time::timeout(Duration::from_millis(100), subscriber.recv()).await;
        assert!(received.is_err(), "{received:?}");
    }
}
