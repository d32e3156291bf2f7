//! Pipes under faults of etcd that a seed decides, with the messages inside the process: no etcd is needed.
//! `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sereno_pipes::core::{Client, Session, chance};
use sereno_pipes::{
    Destination, DestinationOptions, Error, Group, GroupOptions, Member, Mode, Registration,
    RegistrationState, WhenFull,
};
use sereno_testkit::{Seeds, Stage};

const NAME: &str = "d";
const MESSAGES: usize = 120;

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.is_outcome_unknown() || error.is_session_lost()
}

fn options(stage: &Stage, test: &str) -> DestinationOptions {
    DestinationOptions::default()
        .listen(format!("inproc://{test}-{}", stage.seed()))
        .wait(Duration::from_secs(60))
        .reregister(true)
        .when_full(WhenFull::Wait)
        .standing("kept", Mode::AtLeastOnce)
}

/// Registers, however often it takes.
async fn register(session: &Session, options: &DestinationOptions) -> Registration {
    for _ in 0..100 {
        match Destination::with_options(session, NAME, options.clone()).register().await {
            Ok(registration) => return registration,
            Err(error) => assert!(may_pass(&error), "{error:?}"),
        }
        idle(200).await;
    }
    panic!("the destination cannot be registered");
}

async fn join(session: &Session, group: &str, mode: Mode) -> Member {
    for _ in 0..100 {
        match Group::with_options(session, NAME, group, GroupOptions::default().mode(mode)).join().await {
            Ok(member) => return member,
            Err(error) => assert!(may_pass(&error), "{error:?}"),
        }
        idle(200).await;
    }
    panic!("{group} cannot be joined");
}

/// What members got: how often each message, and how often with the flag.
type Got = Arc<Mutex<BTreeMap<usize, Vec<bool>>>>;

/// A member that comes and goes, and acknowledges most of what it gets.
async fn member(session: Session, got: Got, over: tokio::sync::watch::Receiver<bool>) {
    while !*over.borrow() {
        let member = join(&session, "kept", Mode::AtLeastOnce).await;
        let rounds = 5 + chance::below(60);
        for _ in 0..rounds {
            let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), member.recv()).await else {
                break;
            };
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => {
                    assert!(may_pass(&error), "{error:?}");
                    break;
                }
            };
            let n: usize = String::from_utf8(delivery.body().to_vec()).unwrap().parse().unwrap();
            got.lock().unwrap().entry(n).or_default().push(delivery.is_redelivered());
            if chance::below(10) > 0 {
                // Whether or not the connection is still there.
                drop(delivery.ack());
            }
        }
        // One that does not know whether it has left will have, with its session.
        drop(member.leave().await);
    }
}

async fn everything_arrives(stage: &Stage) {
    let options = options(stage, "everything");
    let sending = stage.session().await;
    let sender = Arc::new(register(&sending, &options).await);
    let (over, ends) = tokio::sync::watch::channel(false);
    let got = Got::default();
    stage.disturb();
    let mut members = Vec::new();
    for _ in 0..2 {
        let session = stage.session().await;
        members.push((session.clone(), tokio::spawn(member(session, got.clone(), ends.clone()))));
    }
    for n in 0..MESSAGES {
        if n % 10 == 0 {
            idle(400).await;
        }
        assert_eq!(sender.send(n.to_string()).await.unwrap(), 1, "the group stands");
    }
    stage.calm();
    stage
        .until("everything to be acknowledged", async || {
            (sender.stats().groups.get("kept")?.queued == 0).then_some(())
        })
        .await;
    over.send_replace(true);
    for (_, member) in &mut members {
        stage.soon("a member", member).await.unwrap();
    }
    let got = got.lock().unwrap().clone();
    assert!(got.keys().copied().eq(0..MESSAGES), "lost: {} of {MESSAGES} came", got.len());
    for (n, flags) in &got {
        let unflagged = flags.iter().filter(|flag| !**flag).count();
        assert!(unflagged <= 1, "message {n} came {unflagged} times as if it was new");
    }
    let stats = sender.stats();
    assert_eq!((stats.dropped, stats.lost), (0, 0));
    let settled = async || (sender.status().state == RegistrationState::Registered).then_some(());
    stage.until("the registration to stand", settled).await;
    sender.unregister().await.unwrap();
    for (session, _) in members {
        session.close().await.unwrap();
    }
    sending.close().await.unwrap();
    nothing_is_left(&stage.client(Duration::from_secs(5))).await;
}

async fn nothing_is_left(client: &Client) {
    let prefix = client.namespace().prefix("pipes").unwrap();
    assert_eq!(client.range_keys(&prefix).await.unwrap().entries, [], "everything was on a lease");
}

#[test]
fn nothing_is_lost_at_least_once_and_what_comes_again_says_so() {
    let test = "nothing_is_lost_at_least_once_and_what_comes_again_says_so";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 60).run(everything_arrives);
}

/// Takes the destination over and over again.
async fn own(session: Session, options: DestinationOptions, holders: Arc<Mutex<Vec<i64>>>) {
    for _ in 0..4 {
        let held = register(&session, &options).await;
        let token = held.status().token;
        if held.status().state == RegistrationState::Registered && session.valid_epoch().is_ok() {
            holders.lock().unwrap().push(token);
        }
        idle(500).await;
        drop(held.unregister().await);
    }
}

#[test]
fn the_destination_has_its_owners_one_after_the_other_and_is_free_at_the_end() {
    let test = "the_destination_has_its_owners_one_after_the_other_and_is_free_at_the_end";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 60).run(async |stage| {
        let holders = Arc::new(Mutex::new(Vec::new()));
        let mut owners = Vec::new();
        stage.disturb();
        for who in 0..3 {
            let session = stage.session().await;
            let options = options(stage, &format!("owners-{who}")).reregister(false);
            owners.push((session.clone(), tokio::spawn(own(session, options, holders.clone()))));
        }
        for (_, owner) in &mut owners {
            tokio::time::timeout(Duration::from_secs(3600), owner).await.expect("its turns").unwrap();
        }
        stage.calm();
        let holders = holders.lock().unwrap().clone();
        assert!(holders.is_sorted_by(|a, b| a < b), "tokens grow from owner to owner: {holders:?}");
        for (session, _) in owners {
            session.close().await.unwrap();
        }
        nothing_is_left(&stage.client(Duration::from_secs(5))).await;
    });
}
