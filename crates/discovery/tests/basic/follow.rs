//! Following a service: the view, and what is told of it, while nothing breaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common_directory::{
    CANARY, LONG, Place, host, host_with, next, next_host, on_shard, tell, told, until, uuids,
};
use futures_core::Stream;
use serde_json::json;
use sereno_discovery::{Change, Changes, Directory, Error, Host, Service, Source};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn hosts_are_told_as_they_join_change_and_leave_and_heartbeats_are_not() {
    let place = Place::new("changes").await;
    place.put("api", &host("a")).await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert_eq!(tell(&mut changes).await, "snapshot a");
    let view = changes.view();
    assert_eq!(view.status().source, Source::Live);

    place.put("api", &host("b")).await;
    assert_eq!(tell(&mut changes).await, "added b");
    // What the ancestor does every four seconds; the fields' order is nothing either.
    for _ in 0..20 {
        place.put("api", &host("a")).await;
    }
    place.oracle.put(place.key("api", "b"), host("b").to_string().replace(',', " ,")).await;
    place.put("api", &host_with("a", &json!({"name": "elsewhere"}))).await;
    let change = next(&mut changes).await;
    assert_eq!(told(&change), "updated a a.example.org -> elsewhere");
    let Change::Updated { old, new } = change else { panic!("{change:?}") };
    assert!(old.user == "svc" && new.user == "svc" && old.password.expose() == CANARY);
    assert_eq!(view.all().unwrap()[0], new, "the view is not behind what was told");

    place.delete("api", "a").await;
    let Change::Removed(gone) = next(&mut changes).await else { panic!("it left") };
    assert_eq!(gone, new, "as it was at last");
    assert_eq!(uuids(&view.all().unwrap()), ["b"]);
    assert_eq!(view.status().resyncs, 0);
}

/// Watches and subscriptions that have just been made miss nothing, whether or not the service was followed before.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_hundred_of_a_hundred_joins_right_after_watching_are_seen() {
    let place = Place::new("hundred").await;
    let directory = place.directory();
    for round in 0..100 {
        let service = format!("s{round}");
        let mut new = directory.service(&service).subscribe_new().await.unwrap();
        place.put(&service, &host("first")).await;
        let mut second = directory.service(&service).watch().await.unwrap();
        place.put(&service, &host("second")).await;
        assert_eq!(next_host(&mut new).await.uuid, "first", "round {round}");
        assert_eq!(next_host(&mut new).await.uuid, "second", "round {round}");
        // What was before it may be in its snapshot or come after it, once.
        let seen = [tell(&mut second).await, tell(&mut second).await];
        let third = if seen[0] == "snapshot " { Some(tell(&mut second).await) } else { None };
        let seen: Vec<&str> = seen.iter().chain(&third).map(String::as_str).collect();
        assert!(
            seen == ["snapshot first", "added second"]
                || seen == ["snapshot ", "added first", "added second"],
            "round {round}: {seen:?}"
        );
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn who_leaves_is_told_as_a_whole_host_and_who_joins_too() {
    let place = Place::new("subscriptions").await;
    let lookup = place.directory().service("api");
    let mut new = lookup.subscribe_new().await.unwrap();
    let mut down = lookup.subscribe_down().await.unwrap();
    for uuid in ["a", "b"] {
        place.put("api", &host(uuid)).await;
    }
    place.put("api", &host_with("a", &json!({"name": "moved"}))).await;
    place.delete("api", "a").await;
    assert_eq!(next_host(&mut new).await.hostname, "a.example.org");
    assert_eq!(next_host(&mut new).await.uuid, "b");
    let gone = next_host(&mut down).await;
    assert_eq!((gone.uuid.as_str(), gone.hostname.as_str()), ("a", "moved"));
    assert_eq!(gone.private_hostname, "a.internal");
    // The end of a lease is a departure as well.
    let lease = place.oracle.client().lease_grant(60, None).await.unwrap().id();
    place.oracle.put_with_lease(place.key("api", "c"), host("c").to_string(), lease).await;
    assert_eq!(next_host(&mut new).await.uuid, "c");
    assert!(place.oracle.revoke(lease).await);
    let started = Instant::now();
    assert_eq!(next_host(&mut down).await.uuid, "c");
    println!("the end of a lease was told {:?} after it was known to be over", started.elapsed());
}

/// What a stream tells, checked as it comes.
async fn add_up(changes: &mut Changes, last: &str) -> (Vec<String>, BTreeMap<String, Arc<Host>>) {
    let (mut history, mut hosts) = (Vec::new(), BTreeMap::<String, Arc<Host>>::new());
    loop {
        let change = next(changes).await;
        history.push(told(&change));
        match change {
            Change::Snapshot(all) => {
                assert!(hosts.is_empty() && history.len() == 1, "a snapshot comes first and once");
                hosts = all.into_iter().map(|host| (host.uuid.clone(), host)).collect();
            }
            Change::Added(host) => {
                assert!(hosts.insert(host.uuid.clone(), host).is_none(), "added and was there: {history:?}");
            }
            Change::Updated { old, new } => {
                assert_eq!(hosts.insert(new.uuid.clone(), new), Some(old), "{history:?}");
            }
            Change::Removed(host) => assert_eq!(hosts.remove(&host.uuid), Some(host), "{history:?}"),
            _ => {}
        }
        if hosts.contains_key(last) {
            return (history, hosts);
        }
    }
}

/// So many writes and deletions of ten hosts; then a last one.
async fn churn(place: &Place, rounds: usize) {
    for round in 0..rounds {
        let uuid = format!("h{}", round % 10);
        match round % 7 {
            6 => drop(place.oracle.delete(place.key("api", &uuid)).await),
            _ => drop(place.put("api", &host_with(&uuid, &json!({"name": format!("n{round}")}))).await),
        }
    }
    place.put("api", &host("last")).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn several_watchers_see_the_same_history_in_the_same_order() {
    let place = Place::new("churn").await;
    let directory = Directory::with_options(&place.client, place.options().guard(None));
    let other = Directory::with_options(&place.client, place.options().guard(None));
    let mut watchers = Vec::new();
    for directory in [&directory, &directory, &directory, &other] {
        let mut changes = directory.service("api").watch().await.unwrap();
        watchers.push(tokio::spawn(async move { add_up(&mut changes, "last").await }));
    }
    churn(&place, 400).await;
    let mut histories = Vec::new();
    for watcher in watchers {
        histories.push(tokio::time::timeout(LONG, watcher).await.unwrap().unwrap());
    }
    assert!(histories[0].0.len() > 380, "{}", histories[0].0.len());
    assert!(histories.iter().all(|history| *history == histories[0]));
    let stored = place.oracle.range(place.key("api", "")).await;
    let hosts = directory.service("api").all().await.unwrap();
    assert_eq!(stored.len(), hosts.len());
    assert_eq!(hosts.len(), histories[0].1.len());
}

/// One step of a host after the other, up to a last host.
async fn step_by_step(mut changes: Changes) -> BTreeMap<String, u32> {
    let mut steps = BTreeMap::new();
    let step = |host: &Host| format!("{}", host.weight).parse::<u32>().unwrap();
    while !steps.contains_key("last") {
        match next(&mut changes).await {
            Change::Snapshot(hosts) => steps.extend(hosts.iter().map(|host| (host.uuid.clone(), step(host)))),
            Change::Added(host) => assert_eq!(steps.insert(host.uuid.clone(), step(&host)), None),
            Change::Updated { new, .. } => {
                let before = steps.insert(new.uuid.clone(), step(&new)).unwrap();
                assert_eq!(before + 5, step(&new), "no step is left out, and none goes back");
            }
            other => panic!("{other:?}"),
        }
    }
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs etcd: cargo xtask test"]
async fn streams_that_are_made_while_hosts_change_see_every_step_from_there_on() {
    let place = Arc::new(Place::new("steps").await);
    let view = place.directory().follow("api").await.unwrap();
    let writer = tokio::spawn({
        let place = place.clone();
        async move {
            for n in 0..500 {
                place.put("api", &host_with(&format!("h{}", n % 5), &json!({ "weight": n }))).await;
            }
            place.put("api", &host("last")).await;
        }
    });
    let mut streams = Vec::new();
    while !writer.is_finished() {
        if streams.len() < 200 {
            streams.push(tokio::spawn(step_by_step(view.watch())));
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.await.unwrap();
    println!("{} streams made meanwhile", streams.len());
    for stream in streams {
        let steps = tokio::time::timeout(LONG, stream).await.unwrap().unwrap();
        let steps: Vec<u32> = steps.into_values().collect();
        assert_eq!(steps, [495, 496, 497, 498, 499, 1]);
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stream_that_is_not_read_gets_a_resync_is_right_and_holds_up_nobody() {
    let place = Place::new("slow").await;
    let options = place.options().backlog(16).guard(None);
    let directory = Directory::with_options(&place.client, options);
    place.put("api", &host("h0")).await;
    place.put("api", &host("gone")).await;
    let mut slow = directory.service("api").watch().await.unwrap();
    assert_eq!(tell(&mut slow).await, "snapshot h0,gone");
    // More than the wire's own queue takes, too.
    place.delete("api", "gone").await;
    churn(&place, 1501).await;
    until(&slow.view(), "the last host", |view| view.all().unwrap().iter().any(|host| host.uuid == "last"))
        .await;
    assert_eq!(tell(&mut slow).await, "resync");
    let mut expected = slow.view().all().unwrap();
    expected.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    let mut hosts: BTreeMap<String, Arc<Host>> = BTreeMap::new();
    let mut history = Vec::new();
    while history.last().is_none_or(|last| last != "removed gone") {
        let change = next(&mut slow).await;
        history.push(told(&change));
        match change {
            Change::Added(host) | Change::Updated { new: host, .. } => {
                drop(hosts.insert(host.uuid.clone(), host))
            }
            Change::Removed(host) => assert_eq!(host.uuid, "gone"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(history.len(), expected.len() + 1, "one event for each difference: {history:?}");
    assert_eq!(hosts.into_values().collect::<Vec<_>>(), expected);
    place.put("api", &host("later")).await;
    assert_eq!(tell(&mut slow).await, "added later");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_entry_that_turns_bad_keeps_its_last_good_version_until_it_is_deleted() {
    let place = Place::new("spoilt").await;
    place.put("api", &host("a")).await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert_eq!(tell(&mut changes).await, "snapshot a");
    let view = changes.view();
    place.oracle.put(place.key("api", "a"), format!("{{{CANARY}")).await;
    let change = next(&mut changes).await;
    assert_eq!(told(&change), "malformed a");
    assert!(!format!("{change:?}").contains(CANARY));
    // The same again is no news.
    place.oracle.put(place.key("api", "a"), format!("{{{CANARY}")).await;
    place.oracle.put(place.key("api", "b"), "[]").await;
    assert_eq!(tell(&mut changes).await, "malformed b");
    assert_eq!(view.first().unwrap().hostname, "a.example.org");
    assert_eq!(view.status().malformed, 2);
    assert_eq!(view.status().recent_malformed[0].key, place.key("api", "b"));

    place.put("api", &host("b")).await;
    assert_eq!(tell(&mut changes).await, "added b");
    assert_eq!(view.status().malformed, 1);
    place.delete("api", "a").await;
    assert_eq!(tell(&mut changes).await, "removed a");
    assert_eq!((view.status().malformed, view.len().unwrap()), (0, 1));
    // It also heals by being what it was.
    place.oracle.put(place.key("api", "b"), "").await;
    assert_eq!(tell(&mut changes).await, "malformed b");
    place.put("api", &host("b")).await;
    until(&view, "healing", |view| view.status().malformed == 0).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_record_is_told_when_it_changes_and_is_not_wiped_by_what_cannot_be_read() {
    let place = Place::new("record").await;
    place.put("api", &host("a")).await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert_eq!(tell(&mut changes).await, "snapshot a");
    let view = changes.view();
    assert_eq!(*view.get().unwrap(), Service::new("api"));
    let record = json!({"name": "api", "public": true, "hostname": "h", "user": "u", "password": CANARY});
    place.put_info("api", &record).await;
    let change = next(&mut changes).await;
    assert_eq!(told(&change), "service \"h\"");
    assert!(!format!("{change:?}").contains(CANARY));
    place.put_info("api", &record).await;
    place.oracle.put(place.info("api"), "nonsense").await;
    assert_eq!(tell(&mut changes).await, "malformed api");
    let kept = view.get().unwrap();
    assert_eq!((kept.user.as_str(), kept.password.expose()), ("u", CANARY));
    assert!(place.oracle.delete(place.info("api")).await);
    assert_eq!(tell(&mut changes).await, "service \"\"");
    assert_eq!(*view.get().unwrap(), Service::new("api"));
    assert_eq!(view.status().malformed, 0);
    place.delete("api", "a").await;
    assert_eq!(tell(&mut changes).await, "removed a");
    assert!(matches!(view.get(), Err(Error::NoServiceFound { .. })));
    assert!(view.is_empty().unwrap());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_stream_of_a_shard_tells_who_comes_into_it_and_who_leaves_it() {
    let place = Place::new("shard-stream").await;
    for host in [on_shard("a", "x"), on_shard("b", "y")] {
        place.put("api", &host).await;
    }
    let lookup = place.directory().service("api");
    let mut x = lookup.shard("x").watch().await.unwrap();
    assert_eq!(tell(&mut x).await, "snapshot a");
    place.put("api", &host_with("b", &json!({"shard": "y", "name": "unseen"}))).await;
    place.put("api", &on_shard("b", "x")).await;
    assert_eq!(tell(&mut x).await, "added b");
    place.put("api", &on_shard("a", "y")).await;
    assert_eq!(tell(&mut x).await, "removed a");
    assert_eq!(uuids(&x.view().all().unwrap()), ["b"]);
    assert_eq!(x.view().len().unwrap(), 1);
    place.delete("api", "a").await;
    place.delete("api", "b").await;
    assert_eq!(tell(&mut x).await, "removed b");
    place.put("api", &host("c")).await;
    until(&lookup.follow().await.unwrap(), "c", |view| view.len().unwrap() == 1).await;
    assert!(matches!(x.view().one(), Err(Error::NoHostFoundOnShard { .. })));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn changed_wakes_for_changes_alone_and_the_view_is_a_stream_too() {
    let place = Place::new("changed").await;
    place.put("api", &host("a")).await;
    let mut view = place.directory().follow("api").await.unwrap();
    view.ready().await.unwrap();
    let mut changes = Box::pin(view.watch());
    let mut through_stream =
        async || std::future::poll_fn(|cx| changes.as_mut().poll_next(cx)).await.unwrap().unwrap();
    assert_eq!(told(&through_stream().await), "snapshot a");
    let before = view.status().revision;
    place.put("api", &host("a")).await;
    // Nor is another spelling of the same.
    let last = place.oracle.put(place.key("api", "a"), host("a").to_string().replace(',', " ,")).await;
    until(&view.clone(), "the heartbeat", |view| view.status().revision >= last).await;
    assert!(before < last);
    let woken = tokio::time::timeout(Duration::from_millis(20), view.changed()).await;
    assert!(woken.is_err(), "a heartbeat is no change");
    place.put("api", &host("b")).await;
    tokio::time::timeout(LONG, view.changed()).await.unwrap();
    assert_eq!(uuids(&view.all().unwrap()), ["a", "b"]);
    assert_eq!(told(&through_stream().await), "added b");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_dropped_next_loses_nothing() {
    let place = Place::new("cancel").await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert_eq!(tell(&mut changes).await, "snapshot ");
    let mut seen = Vec::new();
    for n in 0..50 {
        place.put("api", &host(&format!("h{n:02}"))).await;
        // Most of these end before there is anything.
        if let Ok(Some(change)) = tokio::time::timeout(Duration::from_micros(50), changes.next()).await {
            seen.push(told(&change.unwrap()));
        }
    }
    while seen.len() < 50 {
        seen.push(tell(&mut changes).await);
    }
    assert_eq!(seen, (0..50).map(|n| format!("added h{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn nothing_shows_a_password() {
    let place = Place::new("secrets").await;
    place.put("api", &host("a")).await;
    let directory = place.directory();
    let mut changes = directory.service("api").watch().await.unwrap();
    let view = changes.view();
    let snapshot = next(&mut changes).await;
    let (new, lookup) = (view.subscribe_new(), directory.service("api"));
    let shown = format!(
        "{snapshot:?} {changes:?} {view:?} {:?} {:?} {new:?} {lookup:?} {directory:?} {:?}",
        view.status(),
        view.all(),
        view.get()
    );
    assert!(shown.contains("a.example.org") && !shown.contains(CANARY), "{shown}");
}
