//! Destinations and members in processes of their own, which are killed.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{
    LONG, MODES, at_least_once, client_of, destination, join, keys, register, session, soon, take, text, with,
};
use sereno_pipes::{Destination, Group, MemberState, Mode, WhenFull};
use sereno_testkit::{ChildHost, ChildProcess, child, eventually, fresh_namespace, shared};

/// A process that has registered, or joined; see [`child_entry`].
fn process(role: &str, namespace: &str, endpoint: &str, argument: &str) -> ChildProcess {
    ChildHost::new("child_entry", role).argument(endpoint).argument(namespace).argument(argument).spawn()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_destination_that_was_killed_is_taken_over_when_its_lease_ends_and_members_in_other_processes_rejoin()
 {
    let endpoints = shared().await;
    let namespace = fresh_namespace("restart");
    let client = client_of(&endpoints[0], &namespace).await;
    let oracle = sereno_testkit::Oracle::connect(&endpoints).await;
    // First the member: it waits for the destination.
    let mut member = process("member", &namespace, &endpoints[0], "acked");
    assert_eq!(member.line().await, "waiting");
    let mut first = process("destination", &namespace, &endpoints[0], "2");
    assert_eq!(first.line().await, "registered");
    assert_eq!(member.line().await, "joined");
    first.send("one");
    assert_eq!(member.line().await, "got one");

    first.kill();
    let started = Instant::now();
    let mut second = process("destination", &namespace, &endpoints[0], "2");
    assert_eq!(second.line().await, "registered");
    println!("taken over {:?} after the kill, lease 2 s", started.elapsed());
    second.wait_for("groups 1", LONG).await;
    second.send("two");
    assert_eq!(member.line().await, "got two");

    // In order: unregistered, registered again, and three messages.
    second.send("-unregister");
    second.wait_for("unregistered", LONG).await;
    second.send("-register");
    second.wait_for("registered", LONG).await;
    second.wait_for("groups 1", LONG).await;
    for body in ["three", "four", "five"] {
        second.send(body);
    }
    for body in ["three", "four", "five"] {
        assert_eq!(member.line().await, format!("got {body}"));
    }

    // The member's process ends and another one comes.
    member.kill();
    let mut again = process("member", &namespace, &endpoints[0], "acked");
    assert_eq!(again.line().await, "waiting");
    assert_eq!(again.line().await, "joined");
    second.send("six");
    // Acknowledgements that were still on their way may bring others before.
    again.wait_for("got six", LONG).await;
    again.send("-leave");
    again.wait_for("left", LONG).await;
    second.send("-unregister");
    second.wait_for("unregistered", LONG).await;
    // The killed member's key goes with its lease.
    eventually(LONG, "no key", async || keys(&client, &oracle, "d").await.is_empty().then_some(())).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn everything_of_a_killed_destination_goes_with_its_lease() {
    let endpoints = shared().await;
    let namespace = fresh_namespace("crash");
    let client = client_of(&endpoints[0], &namespace).await;
    let oracle = sereno_testkit::Oracle::connect(&endpoints).await;
    let session = session(&client, 15).await;
    let mut sender = process("destination", &namespace, &endpoints[0], "1");
    assert_eq!(sender.line().await, "registered");
    let member = join(&session, "d", "g", at_least_once()).await;
    sender.kill();
    soon("the member to see it", member.until(|status| status.state == MemberState::Waiting)).await;
    let left = keys(&client, &oracle, "d").await;
    assert!(left.len() == 1 && left[0].contains("member/"), "{left:?}");
    let next = register(&session, "d", destination()).await;
    soon("the group", next.wait_for(1)).await.unwrap();
    next.send("x").await.unwrap();
    assert_eq!(take(&member).await, "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn of_what_a_killed_member_had_nothing_is_lost_at_least_once_and_the_loss_at_most_once_is_counted() {
    const MESSAGES: usize = 20_000;
    let endpoints = shared().await;
    for mode in MODES {
        let namespace = fresh_namespace("killed");
        let client = client_of(&endpoints[0], &namespace).await;
        let session = session(&client, 15).await;
        let sender = register(&session, "d", destination().when_full(WhenFull::Wait)).await;
        let survivor = join(&session, "d", "g", with(mode)).await;
        let name = if mode == Mode::AtMostOnce { "push" } else { "acked" };
        let mut victim = process("counter", &namespace, &endpoints[0], name);
        assert_eq!(victim.line().await, "joined");
        eventually(LONG, "two connections", async || {
            (sender.stats().groups["g"].connections == 2).then_some(())
        })
        .await;
        let sending = tokio::spawn(async move {
            for n in 0..MESSAGES {
                sender.send(format!("{n}")).await.unwrap();
            }
            sender
        });
        // It tells what it has processed, one by one; what it told is what counts.
        victim.wait_for("got", LONG).await;
        let mut at_victim = 1;
        while at_victim < 500 {
            at_victim += usize::from(victim.next_line(LONG).await.is_some());
        }
        victim.kill();
        at_victim += victim.pending_lines().len();
        let mut seen: BTreeMap<String, bool> = BTreeMap::new();
        let mut repeated = 0;
        let (mut flagged, mut sending) = (0, Some(sending));
        let mut sender = None;
        let gather = async {
            loop {
                if sending.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
                    sender = Some(sending.take().unwrap().await.unwrap());
                }
                if sender
                    .as_ref()
                    .is_some_and(|sender: &sereno_pipes::Registration| sender.stats().groups["g"].queued == 0)
                    && survivor
                        .try_recv()
                        .map(|got| {
                            got.map(|got| {
                                flagged += usize::from(got.is_redelivered());
                                repeated +=
                                    usize::from(seen.insert(text(&got.ack().unwrap()), true).is_some());
                            })
                        })
                        .unwrap()
                        .is_none()
                {
                    // What is on its way between the two is with the survivor in a moment.
                    match tokio::time::timeout(Duration::from_millis(500), survivor.recv()).await {
                        Ok(got) => {
                            let got = got.unwrap();
                            flagged += usize::from(got.is_redelivered());
                            repeated += usize::from(seen.insert(text(&got.ack().unwrap()), true).is_some());
                        }
                        Err(_) => break,
                    }
                } else if let Ok(got) = tokio::time::timeout(Duration::from_millis(5), survivor.recv()).await
                {
                    let got = got.unwrap();
                    flagged += usize::from(got.is_redelivered());
                    repeated += usize::from(seen.insert(text(&got.ack().unwrap()), true).is_some());
                }
            }
        };
        tokio::time::timeout(LONG * 2, gather).await.expect("everything in time");
        let lost = (MESSAGES - seen.len()).saturating_sub(at_victim);
        let over = (seen.len() + at_victim).saturating_sub(MESSAGES);
        println!(
            "{mode}: killed after {at_victim}; survivor got {}, {flagged} of them flagged; lost {lost}, twice {over}",
            seen.len()
        );
        assert_eq!(repeated, 0, "the survivor got nothing twice");
        match mode {
            Mode::AtLeastOnce => {
                assert_eq!(lost, 0);
                assert!(over <= flagged, "what may have been processed before says so");
                assert!(flagged <= 256 + at_victim, "at most a window is sent again");
            }
            _ => {
                assert_eq!((over, flagged), (0, 0));
                assert!(lost < MESSAGES / 2, "no more than the buffers of one connection");
            }
        }
    }
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    let Some(role) = child::role() else { return }; // Run by hand.
    let client = client_of(&child::argument(0), &child::argument(1)).await;
    let argument = child::argument(2);
    let (said, mut heard) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        while let Some(line) = child::hear() {
            if said.blocking_send(line).is_err() {
                break;
            }
        }
    });
    match role.as_str() {
        "destination" => {
            let session = session(&client, argument.parse().unwrap()).await;
            let handle = Destination::new(&session, "d");
            let mut sender = Some(handle.register().await.unwrap());
            child::say("registered");
            let mut told = 0;
            loop {
                let groups = sender.as_ref().map_or(0, |sender| sender.groups().len());
                if groups != told {
                    told = groups;
                    child::say(&format!("groups {groups}"));
                }
                let Ok(line) = tokio::time::timeout(Duration::from_millis(10), heard.recv()).await else {
                    continue;
                };
                match line.as_deref() {
                    None => return,
                    Some("-unregister") => {
                        sender.take().unwrap().unregister().await.unwrap();
                        child::say("unregistered");
                    }
                    Some("-register") => {
                        sender = Some(handle.register().await.unwrap());
                        child::say("registered");
                    }
                    Some(body) => {
                        sender.as_ref().unwrap().send(body.to_owned()).await.unwrap();
                    }
                }
            }
        }
        "member" => {
            let session = session(&client, 2).await;
            child::say("waiting");
            let options = with(argument_mode(&argument));
            let member = Group::with_options(&session, "d", "g", options).join().await.unwrap();
            child::say("joined");
            loop {
                tokio::select! {
                    line = heard.recv() => {
                        member.leave().await.unwrap();
                        if line.is_some() {
                            child::say("left");
                        }
                        return;
                    }
                    got = member.recv() => child::say(&format!("got {}", text(&got.unwrap().ack().unwrap()))),
                }
            }
        }
        "counter" => {
            let session = session(&client, 2).await;
            let options = with(argument_mode(&argument));
            let member = Group::with_options(&session, "d", "g", options).join().await.unwrap();
            child::say("joined");
            while let Ok(delivery) = member.recv().await {
                // Said before it is acknowledged: of those that were said and not acknowledged some come again.
                child::say(&format!("got {}", text(delivery.body())));
                delivery.ack().unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

fn argument_mode(name: &str) -> Mode {
    name.parse().expect("a mode")
}
