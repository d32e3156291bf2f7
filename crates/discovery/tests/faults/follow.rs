//! What breaks underneath, and what a view says then.

use std::time::{Duration, Instant};

use crate::common_directory::{LONG, Place, Scene, client_of, host, host_with, tell, told, until, uuids};
use serde_json::json;
use sereno_discovery::core;
use sereno_discovery::{Directory, DirectoryOptions, Error, Source};
use sereno_testkit::{Member, Proxy, Seeds};

const PACKAGE: &str = env!("CARGO_PKG_NAME");

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn while_etcd_is_dead_the_view_serves_and_after_it_is_back_nothing_has_flapped() {
    let member = Member::single().await;
    let place = Place::at(&member.endpoint(), member.oracle().await, "killed").await;
    for uuid in ["a", "b", "c", "d"] {
        place.put("api", &host(uuid)).await;
    }
    let directory = place.directory();
    let view = directory.follow("api").await.unwrap();
    let mut changes = view.watch();
    assert_eq!(tell(&mut changes).await, "snapshot a,b,c,d");
    member.kill().await;
    let mut last = Duration::ZERO;
    until(&view, "staleness", |view| {
        let status = view.status();
        assert!(status.source != Source::Live || status.age < Duration::from_secs(4), "{status:?}");
        assert_eq!(view.len().unwrap(), 4);
        last = status.age;
        status.source == Source::Stale
    })
    .await;
    assert!(last > Duration::from_secs(2) && view.status().age >= last, "the age grows");
    // Lookups of a followed service do not need etcd either.
    let started = Instant::now();
    assert_eq!(directory.service("api").first().await.unwrap().uuid, "a");
    assert!(started.elapsed() < Duration::from_secs(4));
    member.start().await;
    until(&view, "a live view", |view| view.status().source == Source::Live).await;
    assert!(view.status().age < Duration::from_secs(3));
    place.put("api", &host("e")).await;
    assert_eq!(tell(&mut changes).await, "added e", "and nothing in between");
    assert_eq!(view.status().resyncs, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_store_that_was_wiped_is_told_and_the_view_is_never_empty() {
    let member = Member::single().await;
    let place = Place::at(&member.endpoint(), member.oracle().await, "wiped").await;
    for round in 0..3 {
        place.put("api", &host_with("a", &json!({"name": format!("n{round}")}))).await;
    }
    let options = place.options().serve_stale_for(Duration::from_secs(8));
    let directory = Directory::with_options(&place.client, options);
    let view = directory.follow("api").await.unwrap();
    let mut changes = view.watch();
    assert_eq!(tell(&mut changes).await, "snapshot a");
    member.kill().await;
    member.wipe().await;
    member.start().await;
    let end = tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap();
    assert!(matches!(end, Err(Error::Core(core::Error::StoreRolledBack { .. }))), "{end:?}");
    assert!(changes.next().await.is_none());
    let status = view.status();
    assert!(matches!(status.error, Some(Error::Core(core::Error::StoreRolledBack { .. }))), "{status:?}");
    assert_ne!(status.source, Source::Live);
    until(&view, "the end of its time", |view| match view.all() {
        Ok(hosts) => {
            assert_eq!(uuids(&hosts), ["a"]);
            false
        }
        Err(error) => matches!(error, Error::Stale { .. }) || panic!("{error:?}"),
    })
    .await;
    assert!(matches!(directory.service("api").one().await, Err(Error::Stale { .. })));
    let late = view.watch().next().await.unwrap().unwrap();
    assert_eq!(told(&late), "snapshot a", "what is known can be looked at");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_absence_with_a_compaction_is_a_resync_and_the_difference() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let mut place = Place::at(&member.endpoint(), member.oracle().await, "compacted").await;
    place.client = client_of(&proxy.endpoint()).await;
    for uuid in ["stays", "same", "goes", "again"] {
        place.put("api", &host(uuid)).await;
    }
    place.put_info("api", &json!({"name": "api", "hostname": "before"})).await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    let view = changes.view();
    assert_eq!(tell(&mut changes).await, "snapshot stays,same,goes,again");
    // One that nobody lags behind is invisible.
    place.oracle.compact_to_head().await;
    place.put("api", &host_with("stays", &json!({"name": "seen"}))).await;
    assert_eq!(tell(&mut changes).await, "updated stays stays.example.org -> seen");

    proxy.refuse().await;
    // What is on its way may still arrive.
    until(&view, "the cut", |view| view.status().source == Source::Stale).await;
    place.put("api", &host_with("stays", &json!({"name": "unseen"}))).await;
    place.put("api", &host_with("stays", &json!({"name": "new"}))).await;
    place.delete("api", "goes").await;
    // Registered again as it was: nothing that anybody would have to know.
    place.delete("api", "again").await;
    place.put("api", &host("again")).await;
    place.put("api", &host("comes")).await;
    place.put("api", &host("passing")).await;
    place.delete("api", "passing").await;
    place.put_info("api", &json!({"name": "api", "hostname": "after"})).await;
    place.oracle.put(place.key("api", "bad"), "{").await;
    place.oracle.compact_to_head().await;
    proxy.pass().await;

    let mut difference = Vec::new();
    while difference.len() < 6 {
        difference.push(tell(&mut changes).await);
        assert!(view.len().unwrap() >= 4, "never emptier than it is");
    }
    difference.retain(|told| told != "service \"after\"");
    assert_eq!(difference[0], "resync");
    difference.sort();
    let expected = ["added comes", "malformed bad", "removed goes", "resync", "updated stays seen -> new"];
    assert_eq!(difference, expected);
    assert_eq!(view.get().unwrap().hostname, "after");
    assert_eq!(uuids(&view.all().unwrap()), ["stays", "same", "again", "comes"]);
    place.put("api", &host("live")).await;
    assert_eq!(tell(&mut changes).await, "added live");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_happens_while_the_watch_is_cut_is_told_in_order_afterwards() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let mut place = Place::at(&member.endpoint(), member.oracle().await, "cut").await;
    place.client = client_of(&proxy.endpoint()).await;
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert_eq!(tell(&mut changes).await, "snapshot ");
    for round in 0..6 {
        if round % 2 == 0 {
            proxy.blackhole().await
        } else {
            proxy.refuse().await
        }
        for n in 0..20 {
            place.put("api", &host(&format!("r{round}n{n}"))).await;
        }
        place.delete("api", &format!("r{round}n3")).await;
        proxy.reset();
        proxy.pass().await;
        for n in 0..20 {
            assert_eq!(tell(&mut changes).await, format!("added r{round}n{n}"));
        }
        assert_eq!(tell(&mut changes).await, format!("removed r{round}n3"));
    }
}

#[test]
fn a_view_serves_as_long_as_it_may_and_then_fails_instead_of_being_empty() {
    let test = "a_view_serves_as_long_as_it_may_and_then_fails_instead_of_being_empty";
    Seeds::new(PACKAGE, test, 3).run(async |stage| {
        let scene = Scene::new(stage);
        for uuid in ["a", "b"] {
            scene.put(&host(uuid)).await;
        }
        let options = DirectoryOptions::default().serve_stale_for(Duration::from_secs(120));
        let directory = Directory::with_options(&scene.reader(), options);
        let view = directory.follow("api").await.unwrap();
        // Nothing happens for a long time, and it is as fresh as ever.
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(view.status().source, Source::Live);
        stage.server().kill().await;
        let gone = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(110)).await;
        assert_eq!(uuids(&view.all().unwrap()), ["a", "b"]);
        let age = view.status().age;
        assert!((109..115).contains(&age.as_secs()), "{age:?}");
        let stale = || match view.one() {
            Ok(_) => None,
            Err(Error::Stale { service, age }) => Some((service, age)),
            Err(error) => panic!("{error:?}"),
        };
        let (service, age) = stage.until("the end of its time", async || stale()).await;
        assert!(service == "api" && age > Duration::from_secs(120), "{age:?}");
        assert!(gone.elapsed() < Duration::from_secs(125));
        let errors = [
            view.all().map(drop),
            view.first().map(drop),
            view.get().map(drop),
            view.len().map(drop),
            view.held().map(drop),
            view.url("http", "").map(drop),
            directory.service("api").all().await.map(drop),
            directory.service("api").shard("x").one().await.map(drop),
        ];
        for error in errors {
            assert!(matches!(error, Err(Error::Stale { .. })), "{error:?}");
        }
        stage.server().revive().await.unwrap();
        stage.until("life", async || view.all().ok()).await;
        stage.until("a live view", async || (view.status().source == Source::Live).then_some(())).await;
        assert_eq!(uuids(&view.all().unwrap()), ["a", "b"]);
    });
}
