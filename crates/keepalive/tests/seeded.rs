//! Presence under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// A test may fail; helpers are test code too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use sereno_keepalive::core::{Client, PresenceState, Session, chance};
use sereno_keepalive::{Announcement, Error, Event, Group, KeepAlive, Members};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

const GROUP: &str = "workers";
/// The name that two sessions take from each other.
const CONTENDED: &str = "chief";

type View = BTreeMap<String, String>;

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

/// Announces, however often it takes.
async fn announce(session: &Session, node: &str, value: &str) -> Announcement {
    for _ in 0..100 {
        match KeepAlive::new(session, GROUP, node).announce(value.to_owned()).await {
            Ok(announcement) => return announcement,
            Err(error) => {
                let passing = error.is_retryable() || error.is_outcome_unknown() || error.is_session_lost();
                assert!(passing, "{error:?}");
            }
        }
        idle(200).await;
    }
    panic!("{node} cannot be announced");
}

/// A node of one session alone: joins, changes, leaves, and says at the end what it is, if it is there.
async fn node(session: Session, name: String) -> Option<(Announcement, String)> {
    let mut value = format!("{name} at first");
    let mut here = Some(announce(&session, &name, &value).await);
    let mut epoch = 0;
    for round in 0..5 {
        idle(1500).await;
        here = match here {
            Some(announcement) if chance::below(4) == 0 => {
                // One that does not know whether it has left will have, in the background or with its session.
                let left = announcement.leave().await;
                assert!(left.is_ok() || left.is_err_and(|error| !error.is_session_lost()));
                None
            }
            Some(announcement) => {
                value = format!("{name} in round {round}");
                // Whether or not it is told in time: the value is remembered.
                let updated = announcement.update(value.clone()).await;
                assert!(!matches!(updated, Err(Error::NameTaken { .. })), "nobody else has this name");
                let status = announcement.status();
                assert!(status.epoch >= epoch, "epochs grow: {epoch}, {status:?}");
                epoch = status.epoch;
                Some(announcement)
            }
            None => {
                value = format!("{name} again in round {round}");
                Some(announce(&session, &name, &value).await)
            }
        };
    }
    here.map(|announcement| (announcement, value))
}

/// Takes the contended name over and over again.
async fn contend(session: Session, who: usize) -> (Announcement, String) {
    let mut round = 0;
    loop {
        let value = format!("{who} in round {round}");
        let announcement = announce(&session, CONTENDED, &value).await;
        round += 1;
        if round == 3 {
            return (announcement, value);
        }
        let displaced = tokio::time::timeout(Duration::from_secs(2), async {
            while announcement.lost().await != PresenceState::Displaced {
                idle(100).await;
            }
        });
        if displaced.await.is_err() {
            drop(announcement.leave().await);
        }
    }
}

/// Follows a group until it is as it shall be, and says where an event does not fit what was told before.
async fn follow(mut members: Members, client: Client, end: tokio::sync::watch::Receiver<Option<View>>) {
    let mut view: Option<View> = None;
    let mut patience = 60;
    loop {
        if end.borrow().is_some() {
            patience -= 1;
            assert!(patience > 0, "what was told adds up to {view:?}, but it is {:?}", *end.borrow());
        }
        if end.borrow().is_some() && view == *end.borrow() {
            let told: View = members.alive().into_iter().map(|node| (node.name, text(&node.value))).collect();
            assert_eq!(Some(told), view, "the view is what the events add up to");
            return;
        }
        let event = tokio::time::timeout(Duration::from_secs(1), members.next());
        let Ok(event) = event.await else { continue };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}");
                continue;
            }
            None => {
                members = Group::new(&client, GROUP).watch().await.unwrap();
                view = None;
                continue;
            }
        };
        match (event, &mut view) {
            (Event::Snapshot(nodes), view @ None) => {
                *view = Some(nodes.into_iter().map(|node| (node.name, text(&node.value))).collect());
            }
            (Event::Joined(node), Some(view)) => {
                let before = view.insert(node.name.clone(), text(&node.value));
                assert_eq!(before, None, "{} joined and was there", node.name);
            }
            (Event::Changed { old, new }, Some(view)) => {
                let before = view.insert(new.name.clone(), text(&new.value));
                assert_eq!(before, Some(text(&old.value)), "{} changed from something else", new.name);
            }
            (Event::Left(node), Some(view)) => {
                let before = view.remove(&node.name);
                assert_eq!(before, Some(text(&node.value)), "{} left and was not there", node.name);
            }
            (Event::Resync, Some(_)) => {}
            (event, view) => panic!("{event:?} in {view:?}"),
        }
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).unwrap()
}

/// Each epoch's number and token are above those of the one before.
async fn grow(session: Session) {
    let mut last = (0, 0);
    while !session.is_closed() {
        let epoch = session.epoch();
        let now = (epoch.number(), epoch.token());
        assert!(now == last || now.0 > last.0 && now.1 > last.1, "{last:?}, then {now:?}");
        last = now;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn many_announce(stage: &Stage) {
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(stage.session().await);
    }
    let growing: Vec<_> = sessions.iter().map(|session| tokio::spawn(grow(session.clone()))).collect();
    let (end, over) = tokio::sync::watch::channel(None);
    let mut followers = Vec::new();
    for _ in 0..2 {
        let client = stage.client(Duration::from_secs(30));
        let members = Group::new(&client, GROUP).watch().await.unwrap();
        followers.push(tokio::spawn(follow(members, client, over.clone())));
    }
    stage.disturb();
    let mut nodes = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        for which in ["a", "b"] {
            nodes.push(tokio::spawn(node(session.clone(), format!("n{n}{which}"))));
        }
    }
    let contenders = [0, 1].map(|who| tokio::spawn(contend(sessions[who].clone(), who)));
    let (mut expected, mut held) = (View::new(), Vec::new());
    for node in nodes {
        if let Some((announcement, value)) = node.await.unwrap() {
            expected.insert(announcement.node().to_owned(), value);
            held.push(announcement);
        }
    }
    let mut chiefs = Vec::new();
    for contender in contenders {
        chiefs.push(contender.await.unwrap());
    }
    stage.calm();
    let settled = async || {
        let kept = |announcement: &Announcement| announcement.status().state == PresenceState::Kept;
        let mut chief = chiefs.iter().filter(|(announcement, _)| kept(announcement));
        let (first, second) = (chief.next(), chief.next());
        (held.iter().all(kept) && second.is_none()).then(|| first.map(|(_, value)| value.clone()))?
    };
    let chief = stage.until("every announcement to stand", settled).await;
    expected.insert(CONTENDED.to_owned(), chief);
    let group = Group::new(sessions[2].client(), GROUP);
    let shown = async || {
        let alive = group.alive().await.ok()?;
        let alive: View = alive.into_iter().map(|node| (node.name, text(&node.value))).collect();
        (alive == expected).then_some(())
    };
    stage.until("the group to be who is announced, with their last values", shown).await;
    end.send_replace(Some(expected));
    for follower in followers {
        stage.soon("a follower", follower).await.unwrap();
    }
    for session in &sessions {
        session.close().await.unwrap();
    }
    assert_eq!(Group::new(&stage.client(Duration::from_secs(5)), GROUP).alive().await.unwrap(), []);
    for growing in growing {
        growing.await.unwrap();
    }
}

#[test]
fn the_group_is_who_is_announced_and_what_is_told_of_it_adds_up() {
    let test = "the_group_is_who_is_announced_and_what_is_told_of_it_adds_up";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 110).run(many_announce);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_announce);
}

#[test]
fn a_node_whose_lease_ended_is_restored_under_the_next_epoch_with_its_last_value() {
    let test = "a_node_whose_lease_ended_is_restored_under_the_next_epoch_with_its_last_value";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        let node = announce(&session, "n1", "1").await;
        node.update("2").await.unwrap();
        let first = session.epoch();
        assert_eq!(stage.faults().expire_all_sessions(), 1);
        let restored = async || {
            let status = node.status();
            (status.state == PresenceState::Kept && status.epoch == 2).then_some(status)
        };
        assert_eq!(stage.until("the node to be restored", restored).await.restored, 1);
        assert!(session.epoch().token() > first.token());
        let alive = Group::new(session.client(), GROUP).alive().await.unwrap();
        assert_eq!(alive.iter().map(|node| text(&node.value)).collect::<Vec<_>>(), ["2"]);
    });
}

#[test]
fn a_compaction_while_the_watches_are_cut_costs_a_few_requests_and_no_more() {
    let test = "a_compaction_while_the_watches_are_cut_costs_a_few_requests_and_no_more";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        let (_still, busy) = (announce(&session, "still", "1").await, announce(&session, "busy", "1").await);
        for n in 0..5 {
            busy.update(format!("{n}")).await.unwrap();
        }
        stage.faults().compact();
        // A fault that does nothing but be counted.
        stage.faults().next(Call::Txn, 10_000, Fault::Delay(Duration::ZERO));
        stage.faults().cut_streams();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let transactions = stage.faults().injected().len();
        assert!(
            (1..10).contains(&transactions),
            "{transactions} transactions for two nodes that were not touched"
        );
    });
}

#[test]
fn a_node_that_leaves_and_is_compacted_while_the_watch_is_cut_off_does_not_stay_in_the_view() {
    let test = "a_node_that_leaves_and_is_compacted_while_the_watch_is_cut_off_does_not_stay_in_the_view";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        let node = announce(&session, "n1", "1").await;
        let client = stage.client(Duration::from_secs(5));
        let mut members = Group::new(&client, GROUP).watch().await.unwrap();
        assert!(matches!(members.next().await, Some(Ok(Event::Snapshot(nodes))) if nodes.len() == 1));
        stage.faults().next(Call::Watch, 6, Fault::LoseRequest);
        stage.faults().cut_streams();
        // The very next revision, and the last one.
        node.leave().await.unwrap();
        stage.faults().compact();
        let left = stage.soon("the node to leave", async {
            loop {
                match members.next().await.unwrap().unwrap() {
                    Event::Resync => {}
                    event => break event,
                }
            }
        });
        assert!(matches!(left.await, Event::Left(node) if node.name == "n1"));
        assert_eq!(members.alive(), []);
    });
}
