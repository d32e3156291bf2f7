//! Registering, updating and stopping while nothing breaks.

use std::time::{Duration, Instant};

use crate::common_register::{LONG, Place, private, public, registered, same};
use serde_json::{Value, json};
use sereno_discovery::core::{Change, Client, KeyError, Namespace, Watcher};
use sereno_discovery::{Credentials, Error, RegistrationState, Registry, core};
use sereno_testkit::{Member, eventually};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_registered_host_is_stored_as_etcd_discovery_stores_it() {
    let place = Place::shared("stored").await;
    let registry = Registry::open(&place.client().await, place.options());
    assert!(registry.session().is_none(), "no I/O yet");
    let registration = registered(&registry, "api", private("h-1")).await;
    assert!(registration.is_ready());
    assert!(registration.uuid().ends_with("-h-1"), "{}", registration.uuid());
    let stored = place.stored(&registration).await.unwrap();
    let expected = json!({
        "name": "h-1", "service_name": "api", "ports": {"http": "8080"}, "private_hostname": "h-1",
        "private_ports": {"http": "8080"}, "uuid": registration.uuid(),
    });
    assert_eq!(stored, expected, "nothing that is not set");
    assert_eq!(place.record("api").await.unwrap(), json!({"name": "api", "critical": false}));

    let lease = place.lease(&place.host_key(&registration)).await;
    let ttl = place.oracle.client().lease_time_to_live(lease, None).await.unwrap();
    println!("lease granted for {} s", ttl.granted_ttl());
    assert!((1..=5).contains(&ttl.granted_ttl()));
    assert_eq!(place.lease(&place.info_key("api")).await, 0, "the record outlives its registrants");

    let sharded = public("h-2", "secret").shard("s1").critical(true);
    let sharded = registered(&registry, "db", sharded).await;
    assert_eq!(place.stored(&sharded).await.unwrap()["shard"], "s1");
    let expected = json!({
        "name": "db", "critical": true, "hostname": "h-2.example.org", "user": "user of h-2",
        "password": "secret", "ports": {"http": "8080"}, "public": true,
    });
    assert_eq!(place.record("db").await.unwrap(), expected, "no shard in there");
    registry.close().await.unwrap();
    assert_eq!(place.hosts().await, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn two_hosts_of_a_service_are_both_there_field_for_field() {
    let place = Place::shared("two").await;
    let registry = place.registry().await;
    let hosts = [private("h-1").shard("s"), private("h-2").weight(2.5)];
    let [one, two] = hosts.map(|host| registry.register("api", host).unwrap());
    for registration in [&one, &two] {
        registration.ready().await.unwrap();
        assert!(same(&place.stored(registration).await.unwrap(), &registration.host()));
    }
    assert_eq!(place.stored(&two).await.unwrap()["weight"], 2.5);
    assert_eq!(place.hosts().await, 2);
    assert_ne!(one.uuid(), two.uuid());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_stopped_host_is_gone_when_stop_returns_and_was_marked_before() {
    let place = Place::shared("stop").await;
    let registry = place.registry().await;
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let registration = registered(&registry, "api", private(&format!("h-{round}"))).await;
        let mut watcher = watch(&place, "api").await;
        let started = Instant::now();
        registration.stop().await.unwrap();
        slowest = slowest.max(started.elapsed());
        assert_eq!(place.stored(&registration).await, None, "at once, and not after its time to live");
        let marked = change(&mut watcher).await;
        assert!(matches!(&marked, Change::Put { old: Some(_), new } if draining(&new.value)), "{marked:?}");
        let gone = change(&mut watcher).await;
        assert!(matches!(&gone, Change::Deleted { old } if draining(&old.value)), "{gone:?}");
        registration.stop().await.unwrap();
        assert_eq!(registration.status().state, RegistrationState::Stopped);
        assert!(!registration.is_ready());
        registration.ready().await.unwrap();
        let refused = registration.update(private("x")).await.unwrap_err();
        assert!(matches!(refused, Error::Deregistered), "{refused:?}");
    }
    println!("slowest of 20 stops: {slowest:?}");
    assert_eq!(place.record("api").await.unwrap()["name"], "api", "the record stays");
}

async fn watch(place: &Place, service: &str) -> Watcher {
    let hosts = Namespace::new(&format!("{}/services", place.root)).unwrap().prefix(service).unwrap();
    place.client().await.watch(&hosts).await.unwrap()
}

async fn change(watcher: &mut Watcher) -> Change {
    let update = tokio::time::timeout(LONG, watcher.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(update.changes.len(), 1);
    update.changes[0].clone()
}

fn draining(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(value).unwrap()["draining"] == true
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropping_a_registration_and_closing_the_session_are_ends_in_order_too() {
    let place = Place::shared("drop").await;
    let session = place.session(15).await;
    let registry = place.registry_on(&session);
    let dropped = registered(&registry, "api", private("h-1")).await;
    let mut closed = registered(&registry, "api", private("h-2")).await;
    let mut watcher = watch(&place, "api").await;
    drop(dropped);
    assert!(matches!(change(&mut watcher).await, Change::Put { new, .. } if draining(&new.value)));
    assert!(matches!(change(&mut watcher).await, Change::Deleted { .. }));
    session.close().await.unwrap();
    assert!(matches!(change(&mut watcher).await, Change::Put { new, .. } if draining(&new.value)));
    assert!(matches!(change(&mut watcher).await, Change::Deleted { .. }));
    let last = tokio::time::timeout(LONG, async {
        let mut last = closed.status();
        while let Some(status) = closed.changed().await {
            last = status;
        }
        last
    });
    assert_eq!(last.await.unwrap().state, RegistrationState::Stopped);
    assert!(closed.drain().await.unwrap_err().is_session_lost());
    closed.stop().await.unwrap();
    let refused = registry.register("api", private("h-3")).unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_last_registration_closes_the_session_that_was_opened_for_it() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let registry = Registry::open(&place.client().await, place.options());
    let (one, two) = (registry.register("a", private("h")), registry.register("b", private("h")));
    let (one, two) = (one.unwrap(), two.unwrap());
    one.ready().await.unwrap();
    two.ready().await.unwrap();
    assert_eq!(place.oracle.leases().await.len(), 1, "both on one session");
    drop(registry);
    one.stop().await.unwrap();
    assert_eq!(place.hosts().await, 1);
    drop((one, two));
    eventually(LONG, "the lease to be revoked", async || {
        (place.oracle.leases().await.is_empty() && place.hosts().await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn credentials_are_those_of_the_service_once_it_is_ready_and_empty_for_private_hosts() {
    let place = Place::shared("credentials").await;
    let registry = place.registry().await;
    let one = registry.register("api", public("h-1", "secret")).unwrap();
    assert!(matches!(one.credentials(), Err(Error::NotReady)));
    assert!(!one.is_ready());
    assert_eq!(one.status().state, RegistrationState::Starting);
    one.ready().await.unwrap();
    let credentials = one.credentials().unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("user of h-1", "secret"));
    one.modify(|host| host.user("new").password("changed")).await.unwrap();
    let credentials = one.credentials().unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("new", "changed"));
    assert_eq!(place.record("api").await.unwrap()["password"], "changed");
    assert_eq!(place.stored(&one).await.unwrap()["password"], "changed");
    let alone = registered(&registry, "batch", private("h-2").user("u").password("p")).await;
    assert_eq!(alone.credentials().unwrap(), Credentials::default());
    assert_eq!(place.stored(&alone).await.unwrap()["password"], "p", "its own URLs have them");
    assert_eq!(place.record("batch").await.unwrap(), json!({"name": "batch", "critical": false}));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_update_is_made_in_place_record_first_and_keeps_the_name() {
    let place = Place::shared("update").await;
    let registry = place.registry().await;
    let registration = registered(&registry, "api", public("h", "0")).await;
    let (key, info) = (place.host_key(&registration), place.info_key("api"));
    let uuid = registration.uuid().to_owned();
    let mut watcher = watch(&place, "api").await;
    for round in 1..=20 {
        registration.update(public("h", &round.to_string())).await.unwrap();
        assert!(place.writes(&info).await.1 < place.writes(&key).await.1, "the record was first");
        let Change::Put { old: Some(_), new } = change(&mut watcher).await else { panic!("a change") };
        assert_eq!(serde_json::from_slice::<Value>(&new.value).unwrap()["password"], round.to_string());
    }
    assert_eq!(place.writes(&key).await.0, 21, "one write per update, and never an absence");
    assert_eq!(registration.uuid(), uuid);
    assert_eq!(registration.host().uuid, uuid);
    // What says nothing new of the service leaves its record alone.
    let before = place.writes(&info).await;
    registration.modify(|host| host.weight(3.0)).await.unwrap();
    assert_eq!(place.stored(&registration).await.unwrap()["weight"], 3.0);
    assert_eq!(place.writes(&info).await, before);
    assert_eq!(registration.status().restored, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_draining_host_is_seen_as_such_until_it_resumes_whatever_else_is_updated() {
    let place = Place::shared("drain").await;
    let registry = place.registry().await;
    let registration = registered(&registry, "api", private("h")).await;
    assert_eq!(place.stored(&registration).await.unwrap().get("draining"), None);
    registration.drain().await.unwrap();
    assert_eq!(place.stored(&registration).await.unwrap()["draining"], true);
    registration.update(private("h").port("https", 8443)).await.unwrap();
    let stored = place.stored(&registration).await.unwrap();
    assert_eq!((&stored["draining"], &stored["ports"]["https"]), (&json!(true), &json!("8443")));
    registration.drain().await.unwrap();
    registration.resume().await.unwrap();
    assert_eq!(place.stored(&registration).await.unwrap().get("draining"), None);
    assert_eq!(place.writes(&place.host_key(&registration)).await.0, 4, "nothing is written twice");
    // One can also begin so, to be warmed up.
    let warming = registered(&registry, "api", private("h-2").draining(true)).await;
    assert_eq!(place.stored(&warming).await.unwrap()["draining"], true);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_cannot_be_registered_is_refused_before_anything_is_sent() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let registry = place.registry().await;
    let revision = place.oracle.revision().await;
    let refused = |service: &str, host| registry.register(service, host).unwrap_err();
    let mut zero = private("h");
    zero.ports.insert("http".into(), "0".into());
    for (field, host) in [
        ("name", private("a b")),
        ("name", private("a/../b")),
        ("private_hostname", private("h").private_hostname("evil@h")),
        ("ports", zero),
        ("user", private("h").user("a\nb")),
        ("weight", private("h").weight(f64::NAN)),
    ] {
        let error = refused("api", host);
        assert!(matches!(error, Error::InvalidHost { field: f, .. } if f == field), "{field}: {error:?}");
        assert!(!error.is_retryable());
    }
    let empty = refused("", private("h"));
    assert!(matches!(empty, Error::Core(core::Error::InvalidKey(KeyError::Empty))), "{empty:?}");
    let long = refused("api", private(&"h".repeat(230)));
    assert!(matches!(long, Error::Core(core::Error::InvalidKey(KeyError::TooLong { .. }))), "{long:?}");
    let large = refused("api", private("h").shard("x".repeat(70_000)));
    assert!(matches!(large, Error::Core(core::Error::TooLarge { what: "host", .. })), "{large:?}");
    let client = place.client().await;
    for (option, options) in [
        ("root", place.options().root("//")),
        ("root", place.options().root("/a b")),
        ("ttl", place.options().ttl(Duration::from_millis(999))),
    ] {
        let error = Registry::open(&client, options).register("api", private("h")).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: o, .. } if o == option), "{error:?}");
    }
    let registration = registered(&registry, "api", private("h")).await;
    assert_eq!(place.oracle.revision().await, revision + 2, "this one alone was sent");
    let refused = registration.modify(|host| host.user("a\rb")).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidHost { field: "user", .. }), "{refused:?}");
    let refused = registration.modify(|host| host.shard("x".repeat(70_000))).await.unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(registration.host().shard, "", "nothing is changed");
    registration.drain().await.unwrap();
}

#[test]
fn outside_of_a_runtime_nothing_is_registered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(async { Client::lazy(["127.0.0.1:1"], Default::default()).unwrap() });
    let refused = Registry::open(&client, Default::default()).register("api", private("h")).unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::Stopped)), "{refused:?}");
}

#[test]
fn whoever_waits_is_told_when_the_runtime_is_shut_down() {
    let client = Client::lazy(["127.0.0.1:1"], Default::default()).unwrap();
    let registry = Registry::open(&client, Default::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registration = runtime.block_on(async { registry.register("api", private("h")).unwrap() });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = other.block_on(registration.ready()).unwrap_err();
    assert!(matches!(ended, Error::Core(core::Error::Stopped)), "{ended:?}");
    assert_eq!(registration.status().state, RegistrationState::Failed);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_registration_dropped_at_once_leaves_no_host() {
    let place = Place::shared("early").await;
    let registry = place.registry().await;
    drop(registry.register("api", private("dropped")).unwrap());
    for _ in 0..50 {
        let registration = registry.register("api", private("h")).unwrap();
        let ready = registration.ready();
        // Somewhere in between.
        let _ = tokio::time::timeout(Duration::from_micros(300), ready).await;
        drop(registration);
    }
    let never = registry.register("api", private("stopped")).unwrap();
    never.stop().await.unwrap();
    assert!(matches!(never.ready().await, Err(Error::Deregistered)));
    assert!(matches!(never.credentials(), Err(Error::Deregistered)));
    let last = registered(&registry, "api", private("last")).await;
    eventually(LONG, "the others to be gone", async || (place.hosts().await == 1).then_some(())).await;
    last.stop().await.unwrap();
    assert_eq!(place.hosts().await, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn no_task_is_left_of_what_was_stopped_in_whatever_state() {
    let place = Place::shared("tasks").await;
    let session = place.session(15).await;
    let registry = place.registry_on(&session);
    registered(&registry, "warm", private("up")).await.stop().await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // What the session and its client need, and perhaps the end of the one before.
    let before = tasks();
    const ROUNDS: usize = 20;
    for round in 0..ROUNDS {
        let registration = registry.register("api", public("h", "s")).unwrap();
        if round % 2 == 0 {
            registration.ready().await.unwrap();
        }
        if round % 3 == 0 {
            registration.drain().await.unwrap();
        }
        let _changes = registration.changes();
        registration.stop().await.unwrap();
    }
    // The client may have made a new connection meanwhile, which is a few tasks. One for each round would be more.
    eventually(LONG, "every task to have ended", async || (tasks() < before + ROUNDS).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_news_of_a_service_are_a_stream_that_ends_with_the_registration() {
    let place = Place::shared("news").await;
    let registry = place.registry().await;
    let registration = registry.register("api", public("h", "0")).unwrap();
    let mut changes = registration.changes();
    let mut passwords = Vec::new();
    for round in 1..=20 {
        registration.modify(|host| host.password(round.to_string())).await.unwrap();
        // Most of these end before there is anything, or after: nothing is lost.
        for _ in 0..3 {
            if let Ok(Some(news)) = tokio::time::timeout(Duration::from_micros(50), changes.next()).await {
                passwords.push(news.unwrap().credentials.password.expose().to_owned());
            }
        }
    }
    let mut stream = std::pin::Pin::new(&mut changes);
    while passwords.last().is_none_or(|last| last != "20") {
        let next = std::future::poll_fn(|cx| futures_core::Stream::poll_next(stream.as_mut(), cx));
        let news = tokio::time::timeout(LONG, next).await.unwrap().unwrap().unwrap();
        passwords.push(news.credentials.password.expose().to_owned());
    }
    let mut sorted = passwords.clone();
    sorted.sort_by_key(|password| password.parse::<u32>().unwrap());
    assert_eq!(passwords, sorted, "never backwards");
    registration.stop().await.unwrap();
    assert!(changes.next().await.is_none());
    assert!(changes.next().await.is_none());
    // Who comes late hears the latest, and the end.
    let mut late = registration.changes();
    assert_eq!(late.next().await.unwrap().unwrap().credentials.password.expose(), "20");
    assert!(late.next().await.is_none());
}
