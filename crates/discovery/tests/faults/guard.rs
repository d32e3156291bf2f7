//! Many hosts going at once: on paused time, against a server in the process. No etcd is needed.

use std::time::Duration;

use crate::common_directory::{Scene, host, host_with, next, tell, told, uuids};
use serde_json::json;
use sereno_discovery::core::{Conflict, Presence, Session};
use sereno_discovery::{Change, Directory, DirectoryOptions, Error, GuardOptions, View};
use sereno_testkit::{Seeds, Stage};
use tokio::time::Instant;

const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// Hosts on the lease of one session.
async fn register(scene: &Scene, uuids: &[String]) -> (Session, Vec<Presence>) {
    let session = scene.stage.session().await;
    let mut kept = Vec::new();
    for uuid in uuids {
        kept.push(session.keep(&scene.key(uuid), host(uuid).to_string(), Conflict::TakeOver).await.unwrap());
    }
    (session, kept)
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("h{n:02}")).collect()
}

async fn follow(scene: &Scene, options: DirectoryOptions) -> View {
    Directory::with_options(&scene.reader(), options).follow("api").await.unwrap()
}

fn run(test: &'static str, scenario: impl AsyncFn(&Stage) + Send + Sync + 'static) {
    Seeds::new(PACKAGE, test, 3).run(scenario);
}

#[test]
fn ten_hosts_whose_lease_is_revoked_are_held_and_removed_when_they_do_not_come_back() {
    let test = "ten_hosts_whose_lease_is_revoked_are_held_and_removed_when_they_do_not_come_back";
    run(test, async |stage| {
        let scene = Scene::new(stage);
        let (session, _kept) = register(&scene, &names(0..10)).await;
        let view = follow(&scene, DirectoryOptions::default()).await;
        let mut changes = view.watch();
        assert!(matches!(next(&mut changes).await, Change::Snapshot(hosts) if hosts.len() == 10));
        let gone = Instant::now();
        session.close().await.unwrap();
        assert_eq!(scene.client.range(&scene.hosts).await.unwrap().entries.len(), 0);
        // Fewer than three go always.
        assert_eq!(tell(&mut changes).await, "removed h00");
        assert_eq!(tell(&mut changes).await, "removed h01");
        assert_eq!(tell(&mut changes).await, "guarded 8");
        let status = view.status();
        assert_eq!((status.hosts, status.held), (8, 8));
        assert_eq!(uuids(&view.held().unwrap()), names(2..10));
        assert!(view.is_held("h05") && !view.is_held("h00") && !view.is_held("nobody"));
        view.one().unwrap();
        for which in names(2..10) {
            let change = tokio::time::timeout(Duration::from_secs(90), changes.next()).await.unwrap();
            assert_eq!(told(&change.unwrap().unwrap()), format!("removed {which}"));
        }
        let held = gone.elapsed();
        assert!((60..63).contains(&held.as_secs()), "{held:?}");
        assert_eq!(tell(&mut changes).await, "released");
        assert!(matches!(view.all(), Err(Error::NoServiceFound { .. })));
        assert_eq!(view.status().held, 0);
    });
}

#[test]
fn hosts_that_are_registered_again_within_the_hold_were_never_gone() {
    run("hosts_that_are_registered_again_within_the_hold_were_never_gone", async |stage| {
        let scene = Scene::new(stage);
        let (_session, _kept) = register(&scene, &names(0..20)).await;
        let view = follow(&scene, DirectoryOptions::default()).await;
        let mut changes = view.watch();
        assert!(matches!(next(&mut changes).await, Change::Snapshot(hosts) if hosts.len() == 20));
        // The session's lease; the hosts are restored under its next one.
        assert!(stage.faults().expire_all_sessions() > 0);
        let mut history = Vec::new();
        while history.last().is_none_or(|last| last != "released") {
            assert!(view.len().unwrap() >= 17, "{history:?}");
            history.push(tell(&mut changes).await);
        }
        assert!(history.contains(&"guarded 17".to_owned()), "{history:?}");
        let count = |what: &str| history.iter().filter(|told| told.starts_with(what)).count();
        assert!(count("removed") == 3 && count("added") <= 3 && count("updated") == 0, "{history:?}");
        stage.until("all hosts", async || (view.len().unwrap() == 20).then_some(())).await;
        assert_eq!(view.status().held, 0);
        // And they stay, when their time would have been over.
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(view.len().unwrap(), 20);
    });
}

#[test]
fn hosts_that_were_draining_are_gone_at_once_and_not_counted() {
    run("hosts_that_were_draining_are_gone_at_once_and_not_counted", async |stage| {
        let scene = Scene::new(stage);
        for uuid in names(0..20) {
            scene.put(&host(&uuid)).await;
        }
        let view = follow(&scene, DirectoryOptions::default()).await;
        let mut down = view.subscribe_down();
        let started = Instant::now();
        for uuid in names(0..10) {
            scene.put(&host_with(&uuid, &json!({"draining": true}))).await;
            scene.delete(&uuid).await;
            assert_eq!(stage.soon("a departure", down.next()).await.unwrap().unwrap().uuid, uuid);
        }
        assert!(started.elapsed() < Duration::from_secs(5), "at once: {:?}", started.elapsed());
        assert_eq!((view.len().unwrap(), view.status().held), (10, 0));
        // None of them was counted.
        for uuid in names(10..13) {
            scene.delete(&uuid).await;
        }
        stage.until("the third one to be held", async || (view.status().held == 1).then_some(())).await;
        assert_eq!(uuids(&view.held().unwrap()), ["h12"]);
    });
}

#[test]
fn in_a_small_fleet_a_host_that_goes_is_gone() {
    run("in_a_small_fleet_a_host_that_goes_is_gone", async |stage| {
        let scene = Scene::new(stage);
        let (first, _one) = register(&scene, &names(0..1)).await;
        let (second, _two) = register(&scene, &names(1..2)).await;
        let view = follow(&scene, DirectoryOptions::default()).await;
        let mut down = view.subscribe_down();
        for session in [first, second] {
            session.close().await.unwrap();
            stage.soon("a departure", down.next()).await.unwrap().unwrap();
        }
        assert_eq!((view.len().unwrap(), view.status().held), (0, 0));
    });
}

#[test]
fn the_guard_is_what_its_options_say() {
    run("the_guard_is_what_its_options_say", async |stage| {
        let scene = Scene::new(stage);
        let (session, _kept) = register(&scene, &names(0..10)).await;
        let off = follow(&scene, DirectoryOptions::default().guard(None)).await;
        let hold = Duration::from_secs(5);
        let options =
            GuardOptions::default().share(0.5).at_least(1).window(Duration::from_secs(1)).hold(hold);
        let own = follow(&scene, DirectoryOptions::default().guard(options)).await;
        session.close().await.unwrap();
        stage.until("no host", async || off.is_empty().unwrap().then_some(())).await;
        stage.until("held hosts", async || (own.status().held > 0).then_some(())).await;
        assert_eq!((off.status().held, own.status().held, own.len().unwrap()), (0, 5, 5));
        let started = Instant::now();
        stage.until("their end", async || own.is_empty().unwrap().then_some(())).await;
        assert!(started.elapsed() > Duration::from_secs(4) && started.elapsed() < Duration::from_secs(7));
    });
}

#[test]
fn the_hold_does_not_run_out_while_etcd_is_away() {
    run("the_hold_does_not_run_out_while_etcd_is_away", async |stage| {
        let scene = Scene::new(stage);
        let (session, _kept) = register(&scene, &names(0..10)).await;
        let view = follow(&scene, DirectoryOptions::default()).await;
        session.close().await.unwrap();
        stage.until("held hosts", async || (view.status().held == 8).then_some(())).await;
        stage.server().kill().await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(view.status().held, 8);
        stage.server().revive().await.unwrap();
        let back = Instant::now();
        for uuid in names(2..6) {
            scene.put(&host(&uuid)).await;
        }
        stage.until("four to be back", async || (view.status().held == 4).then_some(())).await;
        assert_eq!(view.len().unwrap(), 8);
        stage.until("the others to go", async || (view.len().unwrap() == 4).then_some(())).await;
        println!("{:?} after etcd was back", back.elapsed());
        assert!(back.elapsed() <= Duration::from_secs(70));
        assert_eq!(uuids(&view.all().unwrap()).len(), 4);
    });
}

#[test]
fn a_difference_found_after_a_compaction_is_guarded_too() {
    run("a_difference_found_after_a_compaction_is_guarded_too", async |stage| {
        let scene = Scene::new(stage);
        let (session, _kept) = register(&scene, &names(0..10)).await;
        let view = follow(&scene, DirectoryOptions::default()).await;
        let mut changes = view.watch();
        assert!(matches!(next(&mut changes).await, Change::Snapshot(_)));
        stage.faults().next(sereno_testkit::embed::Call::Watch, 6, sereno_testkit::embed::Fault::LoseRequest);
        stage.faults().cut_streams();
        session.close().await.unwrap();
        scene.put(&host("new")).await;
        stage.faults().compact();
        let mut history = Vec::new();
        while history.last().is_none_or(|last: &String| !last.starts_with("guarded")) {
            history.push(told(&stage.soon("a change", changes.next()).await.unwrap().unwrap()));
        }
        assert_eq!(history, ["resync", "added new", "removed h00", "removed h01", "guarded 8"]);
        assert_eq!((view.status().resyncs, view.len().unwrap()), (1, 9));
    });
}
