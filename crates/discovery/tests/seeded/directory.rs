//! Following a service under faults that a seed decides, and what lookups cost: no etcd is needed. `cargo xtask test --seed
//! <n>` plays a seed again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::common_directory::{Scene, host, host_with, next};
use serde_json::{Value, json};
use sereno_discovery::core::{Conflict, Op, Presence, Session, Txn, chance};
use sereno_discovery::{Change, Changes, Directory, DirectoryOptions, GuardOptions, Host, View};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// Hosts by uuid, as name and shard.
type Hosts = BTreeMap<String, (String, String)>;

fn face(host: &Host) -> (String, String) {
    (host.hostname.clone(), host.shard.clone())
}

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

/// A host whose name, shard and state are drawn.
fn drawn(uuid: &str) -> Value {
    let (name, shard) = (chance::below(20), ["", "x", "y"][chance::below(3)]);
    let draining = chance::below(8) == 0;
    host_with(uuid, &json!({ "name": format!("n{name}"), "shard": shard, "draining": draining }))
}

/// A host on a session's lease: registers, changes, writes itself again, leaves.
async fn leased(scene: Scene, session: Session, uuid: String) -> Option<Presence> {
    let mut here: Option<Presence> = None;
    let mut value = drawn(&uuid);
    for _ in 0..5 {
        idle(1500).await;
        here = match here {
            Some(presence) if chance::below(4) == 0 => {
                drop(presence.leave().await);
                None
            }
            Some(presence) => {
                if chance::below(3) > 0 {
                    value = drawn(&uuid);
                }
                drop(presence.update(value.to_string()).await);
                Some(presence)
            }
            None => session.keep(&scene.key(&uuid), value.to_string(), Conflict::TakeOver).await.ok(),
        };
    }
    here
}

/// A host without a lease, as a foreign hand writes it: sometimes what cannot be read. At last it can, or is not there.
async fn foreign(scene: Scene, uuid: String) {
    for _ in 0..6 {
        idle(1200).await;
        match chance::below(6) {
            0 => scene.write(Txn::new().then(Op::put(&scene.key(&uuid), "{"))).await,
            1 => scene.delete(&uuid).await,
            _ => scene.put(&drawn(&uuid)).await,
        }
    }
    match chance::below(2) {
        0 => scene.put(&drawn(&uuid)).await,
        _ => scene.delete(&uuid).await,
    }
}

/// The record changes, too.
async fn record(scene: Scene) {
    for round in 0..4 {
        idle(2000).await;
        let text = if chance::below(4) == 0 {
            "nonsense".to_owned()
        } else {
            json!({"name": "api", "hostname": format!("r{round}")}).to_string()
        };
        scene.write(Txn::new().then(Op::put(&scene.info, text))).await;
    }
    scene.write(Txn::new().then(Op::put(&scene.info, r#"{"name": "api", "hostname": "last"}"#))).await;
}

/// What one stream has told adds up, always, and at the end to what is stored.
async fn add_up(
    mut changes: Changes,
    shard: &'static str,
    slow: bool,
    end: tokio::sync::watch::Receiver<Option<Hosts>>,
) {
    let mut told: Option<BTreeMap<String, Arc<Host>>> = None;
    let mut record = String::new();
    let mut patience = 150;
    loop {
        if let Some(mut expected) = end.borrow().clone() {
            expected.retain(|_, (_, on)| shard.is_empty() || on == shard);
            let sum = told
                .as_ref()
                .map(|told| told.iter().map(|(uuid, host)| (uuid.clone(), face(host))).collect());
            if sum.as_ref() == Some(&expected) && record == "last" {
                return;
            }
            patience -= 1;
            assert!(patience > 0, "what was told adds up to {sum:?} and {record}, but it is {expected:?}");
        }
        if slow {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let change = tokio::time::timeout(Duration::from_secs(1), changes.next());
        let Ok(change) = change.await else { continue };
        match (change.expect("streams do not end").expect("nor fail"), &mut told) {
            (Change::Snapshot(hosts), told @ None) => {
                *told = Some(hosts.into_iter().map(|host| (host.uuid.clone(), host)).collect());
                record = changes.view().get().map(|service| service.hostname.clone()).unwrap_or_default();
            }
            (Change::Added(host), Some(told)) => {
                assert!(shard.is_empty() || host.shard == shard);
                let before = told.insert(host.uuid.clone(), host);
                assert_eq!(before, None, "added and was there");
            }
            (Change::Updated { old, new }, Some(told)) => {
                assert_ne!(old, new, "a change that is none");
                assert_eq!(told.insert(new.uuid.clone(), new), Some(old), "changed from something else");
            }
            (Change::Removed(host), Some(told)) => {
                assert_eq!(told.remove(&host.uuid), Some(host), "removed and was not there");
            }
            (Change::ServiceChanged(service), Some(_)) => record.clone_from(&service.hostname),
            (
                Change::Malformed { .. } | Change::Resync | Change::Guarded { .. } | Change::Released,
                Some(_),
            ) => {}
            (change, told) => panic!("{change:?} in {told:?}"),
        }
    }
}

/// Follows, however often it takes.
async fn follow(directory: &Directory) -> View {
    for _ in 0..50 {
        match directory.follow("api").await {
            Ok(view) => return view,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    panic!("cannot be followed");
}

async fn many_hosts_come_and_go(stage: &Stage) {
    let scene = Scene::new(stage);
    scene.put(&host("old")).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        sessions.push(stage.session().await);
    }
    let options = DirectoryOptions::default().guard(GuardOptions::default().hold(Duration::from_secs(8)));
    let reader = scene.reader();
    let directory = Directory::with_options(&reader, options.clone());
    let lagging = Directory::with_options(&reader, options.clone().backlog(4));
    let (end, over) = tokio::sync::watch::channel(None);
    let views = [follow(&directory).await, follow(&lagging).await];
    let mut streams = Vec::new();
    for (view, shard, slow) in [
        (&views[0], "", false),
        (&views[0], "x", false),
        (&views[0], "", true),
        (&views[1], "", true),
        (&views[1], "y", true),
    ] {
        streams.push(tokio::spawn(add_up(view.shard(shard).watch(), shard, slow, over.clone())));
    }
    stage.disturb();
    // A view that is made in the middle of it.
    let late = tokio::spawn({
        let (scene, over) = (scene.clone(), over.clone());
        async move {
            idle(3000).await;
            let view = follow(&Directory::with_options(&scene.reader(), options)).await;
            let stream = tokio::spawn(add_up(view.watch(), "", false, over));
            (view, stream)
        }
    });
    let mut tasks = vec![tokio::spawn(record(scene.clone()))];
    let mut hosts = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        for which in 0..4 {
            hosts.push(tokio::spawn(leased(scene.clone(), session.clone(), format!("s{n}h{which}"))));
        }
    }
    for n in 0..2 {
        tasks.push(tokio::spawn(foreign(scene.clone(), format!("f{n}"))));
    }
    let mut kept = Vec::new();
    for host in hosts {
        kept.extend(stage.soon("a host", host).await.unwrap());
    }
    for task in tasks {
        stage.soon("a writer", task).await.unwrap();
    }
    stage.calm();
    let (late, stream) = late.await.unwrap();
    streams.push(stream);
    // Restored hosts and leftovers of departures settle; then what is stored is what is.
    let settled = async || {
        use sereno_discovery::core::PresenceState::Kept;
        kept.iter().all(|presence| presence.status().state == Kept).then_some(())
    };
    stage.until("every host to be kept", settled).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let stored = scene.client.range(&scene.hosts).await.unwrap().entries;
    let expected: Hosts = stored
        .iter()
        .map(|kv| {
            let json: Value = serde_json::from_slice(&kv.value).expect("what is stored at last can be read");
            let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            (text("uuid"), (text("name"), text("shard")))
        })
        .collect();
    assert!(expected.contains_key("old"));
    for view in views.iter().chain([&late]) {
        let seen = async || {
            let hosts = view.all().ok()?;
            let hosts: Hosts = hosts.iter().map(|host| (host.uuid.clone(), face(host))).collect();
            (hosts == expected && view.status().held == 0).then_some(())
        };
        stage.until("the view to be what is stored", seen).await;
        let status = view.status();
        assert_eq!((status.hosts, status.malformed, status.untaken), (expected.len(), 0, 0), "{status:?}");
        assert_eq!(view.get().unwrap().hostname, "last");
    }
    end.send_replace(Some(expected));
    for stream in streams {
        stage.soon("a stream", stream).await.unwrap();
    }
    drop((views, late));
    // The sessions' own watches go with them.
    for session in &sessions {
        drop(session.close().await);
    }
    stage.until("the watches to end", async || (stage.server().status().watches == 0).then_some(())).await;
}

#[test]
fn the_view_is_what_is_stored_and_what_is_told_adds_up_to_it() {
    let test = "the_view_is_what_is_stored_and_what_is_told_adds_up_to_it";
    Seeds::new(PACKAGE, test, 110).run(many_hosts_come_and_go);
}

#[test]
fn a_seed_of_following_is_played_the_same_again() {
    Seeds::new(PACKAGE, "a_seed_of_following_is_played_the_same_again", 5).repeat(many_hosts_come_and_go);
}

/// Has every reading counted by a fault that does nothing else.
fn count_reads(stage: &Stage) -> impl Fn() -> usize {
    stage.faults().next(Call::Range, 10_000, Fault::Delay(Duration::ZERO));
    let (stage, before) = (stage.clone(), stage.faults().injected().len());
    move || stage.faults().injected().len() - before
}

#[test]
fn a_cold_lookup_costs_one_read_and_a_followed_one_none() {
    Seeds::new(PACKAGE, "a_cold_lookup_costs_one_read_and_a_followed_one_none", 2).run(async |stage| {
        let scene = Scene::new(stage);
        let directory = Directory::new(&scene.reader());
        let lookup = directory.service("api");
        // The client looks once whether the store is there.
        drop(lookup.all().await);
        let reads = count_reads(stage);
        let mut last = 0;
        let mut cost = || {
            let cost = reads() - last;
            last += cost;
            cost
        };
        assert!(lookup.all().await.is_err());
        assert_eq!(cost(), 2, "nothing was found, so the record decides which error it is");
        scene.put(&host("a")).await;
        lookup.all().await.unwrap();
        assert_eq!(cost(), 1, "all");
        lookup.first().await.unwrap();
        lookup.shard("").one().await.unwrap();
        assert_eq!(cost(), 2, "first and one");
        assert!(lookup.shard("x").all().await.is_err());
        assert_eq!(cost(), 1, "a shard without hosts");
        lookup.get().await.unwrap();
        assert_eq!(cost(), 2, "a service without a record");
        lookup.url("http", "").await.unwrap();
        assert_eq!(cost(), 2, "a URL of a service without a record");
        scene.write(Txn::new().then(Op::put(&scene.info, r#"{"name": "api"}"#))).await;
        lookup.get().await.unwrap();
        assert_eq!(cost(), 1, "a record");

        let view = lookup.follow().await.unwrap();
        assert_eq!(cost(), 2, "following");
        let again = directory.clone().follow("api").await.unwrap();
        let mut changes = lookup.watch().await.unwrap();
        assert!(matches!(next(&mut changes).await, Change::Snapshot(_)));
        for _ in 0..100 {
            lookup.all().await.unwrap();
            lookup.one().await.unwrap();
            lookup.get().await.unwrap();
            lookup.url("http", "").await.unwrap();
            again.first().unwrap();
        }
        scene.put(&host("b")).await;
        assert!(matches!(next(&mut changes).await, Change::Added(_)));
        assert_eq!(cost(), 0, "in a followed service");
        let watches = stage.server().status().watches;
        assert_eq!(watches, 2, "hosts and record, whoever follows");

        // A view keeps it followed, and so does a stream.
        drop((view, again));
        tokio::time::sleep(Duration::from_secs(5)).await;
        lookup.all().await.unwrap();
        assert_eq!(cost(), 0);
        drop(changes);
        stage
            .until("the watches to end", async || (stage.server().status().watches == 0).then_some(()))
            .await;
        lookup.all().await.unwrap();
        assert_eq!(cost(), 1, "not followed any more");
        drop(lookup.follow().await.unwrap());
        assert_eq!(cost(), 2);
    });
}
