//! The record of a service: shared by its public hosts, wiped by nobody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::common_register::{LONG, Place, private, public, registered, same};
use serde_json::json;
use sereno_discovery::core::{Client, Namespace};
use sereno_discovery::{Credentials, RecordState, Registration, ServiceNews};
use sereno_testkit::{Member, Proxy, eventually};

/// Waits until nothing is written below the root any more.
async fn rest(place: &Place) {
    let (client, all) = (place.client().await, Namespace::new(&place.root).unwrap());
    let written = async || {
        let read = client.range(all.root()).await.unwrap();
        read.entries.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect::<Vec<_>>()
    };
    let mut last = (written().await, Instant::now());
    tokio::time::timeout(LONG, async {
        while last.1.elapsed() < Duration::from_millis(700) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = written().await;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    })
    .await
    .expect("an end of the writing");
}

async fn has(registration: &Registration, password: &str) {
    eventually(LONG, "the credentials", async || {
        (registration.credentials().unwrap().password.expose() == password).then_some(())
    })
    .await;
}

async fn news(registration: &Registration, found: impl Fn(&ServiceNews) -> bool) -> ServiceNews {
    eventually(LONG, "news of the service", async || registration.news().filter(|news| found(news))).await
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_credentials_of_the_second_instance_reach_the_first_and_both_hosts_are_rewritten() {
    let place = Place::shared("second").await;
    // Two processes: a session each.
    let (first, second) = (place.registry().await, place.registry().await);
    let one = registered(&first, "api", public("h-1", "old")).await;
    let mut changes = one.changes();
    assert_eq!(changes.next().await.unwrap().unwrap().credentials.password.expose(), "old");
    let started = Instant::now();
    let two = registered(&second, "api", public("h-2", "new")).await;
    has(&one, "new").await;
    println!("the second instance's credentials reached the first after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let told = tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(
        (told.credentials.user.as_str(), told.service.hostname.as_str()),
        ("user of h-2", "h-2.example.org")
    );
    for registration in [&one, &two] {
        let stored = eventually(LONG, "the host to be rewritten", async || {
            place.stored(registration).await.filter(|stored| stored["password"] == "new")
        });
        assert_eq!(stored.await["user"], "user of h-2");
        assert_eq!(registration.host().password.expose(), "new");
    }
    assert_eq!(one.host().hostname, "h-1.example.org", "each keeps its own name");
    // And back again.
    one.modify(|host| host.password("newest")).await.unwrap();
    has(&two, "newest").await;
    place.in_step(&two).await;
    assert_eq!(one.status().restored + two.status().restored, 0, "all of it in place");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_private_registrant_beside_public_ones_wipes_nothing() {
    let place = Place::shared("beside").await;
    let (first, second) = (place.registry().await, place.registry().await);
    let shared = registered(&first, "api", public("h-1", "secret")).await;
    let record = place.record("api").await.unwrap();
    let writes = place.writes(&place.info_key("api")).await;
    let alone = registered(&second, "api", private("h-2").critical(true).user("x").password("y")).await;
    alone.modify(|host| host.password("z").critical(false)).await.unwrap();
    alone.stop().await.unwrap();
    rest(&place).await;
    assert_eq!(place.record("api").await.unwrap(), record);
    assert_eq!(place.writes(&place.info_key("api")).await, writes, "it is not even touched");
    has(&shared, "secret").await;
    // A private record is refreshed by private hosts, and made public by a public one.
    let alone = registered(&second, "batch", private("h-2")).await;
    assert_eq!(place.record("batch").await.unwrap()["critical"], false);
    alone.modify(|host| host.critical(true)).await.unwrap();
    assert_eq!(place.record("batch").await.unwrap()["critical"], true);
    let shared = registered(&first, "batch", public("h-1", "secret")).await;
    assert_eq!(place.record("batch").await.unwrap()["public"], true);
    assert_eq!(alone.credentials().unwrap(), Credentials::default());
    // A host that becomes private has no part in them any more; one that becomes public has.
    shared.modify(|host| host.public(false)).await.unwrap();
    assert_eq!(shared.credentials().unwrap(), Credentials::default());
    shared.modify(|host| host.public(true)).await.unwrap();
    has(&shared, "secret").await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_record_that_another_library_made_private_is_made_public_again_and_nobody_loses_credentials() {
    let place = Place::shared("overwritten").await;
    let registry = place.registry().await;
    let one = registered(&registry, "api", public("h-1", "secret")).await;
    let two = registered(&registry, "api", public("h-2", "secret").user("user of h-1")).await;
    for round in 0..5_u64 {
        // As the Go library's private registrants do, unconditionally.
        place.put_record("api", r#"{"name":"api","critical":true,"team":"core"}"#).await;
        let mended = eventually(LONG, "a public record", async || {
            place.record("api").await.filter(|record| record["public"] == true)
        });
        let mended = mended.await;
        assert_eq!((&mended["password"], &mended["user"]), (&json!("secret"), &json!("user of h-1")));
        assert_eq!(
            (&mended["critical"], &mended["team"]),
            (&json!(true), &json!("core")),
            "others' words stay"
        );
        rest(&place).await;
        let writes = place.writes(&place.info_key("api")).await.0;
        println!("round {round}: {writes} writes");
        // Two at the beginning; then one by the other library, one of ours.
        assert_eq!(writes as u64, 2 + 2 * (round + 1), "one of the two answers, once");
    }
    for registration in [&one, &two] {
        has(registration, "secret").await;
        assert_eq!(place.writes(&place.host_key(registration)).await.0, 1, "no host was rewritten");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_deleted_record_is_made_again_by_those_who_are_there_and_takes_nothing_from_anybody() {
    let place = Place::shared("deleted").await;
    let registry = place.registry().await;
    let one = registered(&registry, "api", public("h-1", "old")).await;
    let two = registered(&registry, "api", public("h-2", "secret")).await;
    let alone = registered(&registry, "api", private("h-3")).await;
    has(&one, "secret").await;
    for round in 1..=5_u64 {
        rest(&place).await;
        assert!(place.oracle.delete(place.info_key("api")).await);
        for registration in [&one, &two, &alone] {
            let told =
                news(registration, |news| news.deleted == round && news.state == RecordState::Present).await;
            assert_eq!(told.service.name, "api");
        }
        let record = eventually(LONG, "a public record", async || {
            place.record("api").await.filter(|record| record["public"] == true)
        });
        assert_eq!(record.await["password"], "secret");
        rest(&place).await;
        let writes = place.writes(&place.info_key("api")).await.0;
        println!("round {round}: made again by {writes} write(s)");
        // Made by one of them, and made public if that one was private.
        assert!(writes <= 2, "{writes}");
        has(&one, "secret").await;
        has(&two, "secret").await;
        assert_eq!(place.in_step(&one).await["password"], "secret");
    }
    assert_eq!(alone.credentials().unwrap(), Credentials::default());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_malformed_record_is_told_and_left_alone_until_somebody_registers_publicly() {
    let place = Place::shared("malformed").await;
    let registry = place.registry().await;
    let one = registered(&registry, "api", public("h-1", "secret")).await;
    let alone = registered(&registry, "api", private("h-2")).await;
    let bad = ["", "{", "null", "[]", r#"{"ports":{"http":80}}"#, r#"{"password":7}"#, "\u{0}"];
    for (bad, malformed) in bad.into_iter().zip(0..) {
        place.put_record("api", "{}").await;
        news(&one, |news| news.state == RecordState::Present && news.malformed == malformed).await;
        let malformed = malformed + 1;
        let revision = place.put_record("api", bad).await;
        let told = news(&one, |news| news.malformed == malformed).await;
        assert_eq!(told.state, RecordState::Malformed);
        assert!(told.revision >= revision, "{told:?}");
        assert_eq!(told.credentials.password.expose(), "secret");
        alone
            .modify(|host| {
                let critical = !host.critical;
                host.critical(critical)
            })
            .await
            .unwrap();
        let late = registered(&registry, "api", private("h-3")).await;
        late.stop().await.unwrap();
        assert_eq!(place.writes(&place.info_key("api")).await.1, revision, "nobody touches {bad:?}");
        assert_eq!(place.in_step(&one).await["password"], "secret");
        let two = registered(&registry, "api", public("h-4", "secret").user("user of h-1")).await;
        assert_eq!(place.record("api").await.unwrap()["public"], true);
        has(&two, "secret").await;
        two.stop().await.unwrap();
    }
    // An update that says something of the service mends it, too.
    place.put_record("api", "bad").await;
    news(&one, |news| news.state == RecordState::Malformed).await;
    one.modify(|host| host.password("new")).await.unwrap();
    assert_eq!(place.record("api").await.unwrap()["password"], "new");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn unknown_fields_and_odd_cases_of_a_record_are_read_and_survive_being_rewritten() {
    let place = Place::shared("unknown").await;
    let registry = place.registry().await;
    place.put_record("api", r#"{"Critical":true,"USER":null,"team":{"name":"core"},"since":12}"#).await;
    let one = registered(&registry, "api", public("h-1", "secret")).await;
    let record = place.record("api").await.unwrap();
    assert_eq!((&record["team"]["name"], &record["since"]), (&json!("core"), &json!(12)));
    assert_eq!((&record["critical"], &record["user"]), (&json!(false), &json!("user of h-1")));
    assert_eq!((record.get("Critical"), record.get("USER")), (None, None));
    // Another library changes the credentials, written its way.
    let text =
        r#"{"Name":"api","Public":true,"User":"u\u0026","PASSWORD":"p\u003c","ports":null,"critical":null}"#;
    place.put_record("api", text).await;
    has(&one, "p<").await;
    assert_eq!(one.credentials().unwrap().user, "u&");
    assert_eq!(place.in_step(&one).await["user"], "u&");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_changes_while_the_watch_is_cut_off_is_not_missed_compacted_or_not() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let proxy = Proxy::to(member.endpoint()).await;
    let client = Client::connect([proxy.endpoint()]).await.unwrap();
    let registry = place.registry_on(&crate::common_register::session(&client, 30).await);
    let one = registered(&registry, "api", public("h-1", "0")).await;
    for round in 1..=4 {
        let password = round.to_string();
        has(&one, &(round - 1).to_string()).await;
        place.in_step(&one).await;
        proxy.refuse().await;
        let record = |password: &str| format!(r#"{{"name":"api","public":true,"password":"{password}"}}"#);
        place.put_record("api", &record("unseen")).await;
        place.put_record("api", &record(&password)).await;
        if round % 2 == 0 {
            place.oracle.put("elsewhere", "").await;
            place.oracle.compact_to_head().await;
        }
        proxy.pass().await;
        has(&one, &password).await;
        assert_eq!(place.in_step(&one).await["password"], password);
    }
    assert_eq!(one.status().restored, 0);
    // And a deletion, whose history is gone as well.
    proxy.refuse().await;
    place.oracle.delete(place.info_key("api")).await;
    place.oracle.put("elsewhere", "").await;
    place.oracle.compact_to_head().await;
    proxy.pass().await;
    news(&one, |news| news.deleted == 1 && news.state == RecordState::Present).await;
    assert_eq!(place.record("api").await.unwrap()["password"], "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn eight_public_registrants_at_once_all_end_with_the_credentials_of_one_of_them() {
    const HOSTS: usize = 8;
    let place = Place::shared("eight").await;
    let mut registries = Vec::new();
    for _ in 0..HOSTS {
        registries.push(place.registry().await);
    }
    let started = Instant::now();
    let hosts = (0..HOSTS).map(|n| public(&format!("h-{n}"), &format!("secret of h-{n}")));
    let registrations: Vec<Registration> =
        hosts.zip(&registries).map(|(host, registry)| registry.register("api", host).unwrap()).collect();
    let private = registries[0].register("api", private("alone")).unwrap();
    for registration in registrations.iter().chain([&private]) {
        tokio::time::timeout(LONG, registration.ready()).await.unwrap().unwrap();
    }
    rest(&place).await;
    println!("{HOSTS} public registrants were in step and at rest after {:?}", started.elapsed());
    let record = place.record("api").await.unwrap();
    let (user, password) = (record["user"].as_str().unwrap(), record["password"].as_str().unwrap());
    assert_eq!(format!("user of {}", password.strip_prefix("secret of ").unwrap()), user, "of one of them");
    let mut users = BTreeSet::new();
    for registration in &registrations {
        has(registration, password).await;
        let stored = place.in_step(registration).await;
        assert!(same(&stored, &registration.host()));
        users.insert(stored["user"].as_str().unwrap().to_owned());
    }
    assert_eq!(users, BTreeSet::from([user.to_owned()]));
    let writes = place.writes(&place.info_key("api")).await.0;
    println!("{writes} writes of the record");
    assert!(writes as usize <= HOSTS + 1, "each writes once at most, and a private one before them");
    for registration in &registrations {
        let writes = place.writes(&place.host_key(registration)).await.0;
        assert!(writes as usize <= HOSTS, "{writes} writes of a host");
    }
    assert_eq!(private.credentials().unwrap(), Credentials::default());

    // All of them at once again, updating: the same.
    let updates: Vec<_> = registrations
        .into_iter()
        .enumerate()
        .map(|(n, registration)| {
            tokio::spawn(async move {
                registration.modify(|host| host.password(format!("new of {n}"))).await.unwrap();
                registration
            })
        })
        .collect();
    let mut registrations = Vec::new();
    for update in updates {
        registrations.push(tokio::time::timeout(LONG, update).await.unwrap().unwrap());
    }
    rest(&place).await;
    let password = place.record("api").await.unwrap()["password"].as_str().unwrap().to_owned();
    assert!(password.starts_with("new of "), "{password}");
    for registration in &registrations {
        has(registration, &password).await;
        place.in_step(registration).await;
    }
    let writes = place.writes(&place.info_key("api")).await.0 - writes;
    assert!(writes as usize <= HOSTS, "{writes} writes for {HOSTS} updates");
}
