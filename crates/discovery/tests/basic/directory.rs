//! Looking services up. Each test does so twice: by reading etcd, and in a view that follows.

use std::collections::BTreeSet;

use crate::common_directory::{CANARY, Place, host, host_with, next_host, on_shard, until, uuids};
use serde_json::json;
use sereno_discovery::{Directory, DirectoryOptions, Error, Host, Lookup, Service, View, core};

/// A lookup of a service that is followed or is not.
async fn lookup(directory: &Directory, service: &str, followed: bool) -> (Lookup, Option<View>) {
    let lookup = directory.service(service);
    let view = if followed { Some(lookup.follow().await.unwrap()) } else { None };
    (lookup, view)
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_service_nobody_registered_is_not_found_by_any_verb() {
    let place = Place::new("unknown").await;
    for followed in [false, true] {
        let (lookup, _view) = lookup(&place.directory(), "nothing", followed).await;
        assert_eq!(lookup.name(), "nothing");
        let errors = [
            lookup.get().await.map(drop),
            lookup.all().await.map(drop),
            lookup.first().await.map(drop),
            lookup.one().await.map(drop),
            lookup.url("http", "/").await.map(drop),
            lookup.shard("x").all().await.map(drop),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert!(matches!(&error, Error::NoServiceFound { service } if service == "nothing"), "{error:?}");
            assert!(error.is_retryable());
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_service_is_known_without_hosts_and_hosts_are_found_without_a_record() {
    let place = Place::new("halves").await;
    place.put_info("record", &json!({"name": "record", "critical": true})).await;
    place.put("hosts", &host("a")).await;
    place.oracle.put(place.info("bad"), "{").await;
    for followed in [false, true] {
        let directory = place.directory();
        let (record, _view) = lookup(&directory, "record", followed).await;
        assert!(record.get().await.unwrap().critical);
        for error in [record.all().await.map(drop), record.shard("x").one().await.map(drop)] {
            assert!(matches!(error, Err(Error::NoHostFound { service }) if service == "record"));
        }
        let (hosts, _view) = lookup(&directory, "hosts", followed).await;
        assert_eq!(*hosts.get().await.unwrap(), Service::new("hosts"));
        assert_eq!(uuids(&hosts.all().await.unwrap()), ["a"]);
        let error = hosts.shard("x").all().await.unwrap_err();
        assert!(
            matches!(&error, Error::NoHostFoundOnShard { service, shard } if service == "hosts" && shard == "x"),
            "{error:?}"
        );
    }
    let bad = place.directory().service("bad");
    assert!(matches!(bad.get().await, Err(Error::Malformed { .. })));
    assert!(matches!(bad.all().await, Err(Error::NoHostFound { .. })), "something is said of it");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_service_whose_hosts_are_all_malformed_is_told_with_the_reason() {
    let place = Place::new("numeric").await;
    for name in ["b", "a"] {
        let mut numeric = host(name);
        numeric["ports"] = json!({"http": 80});
        place.put("numeric", &numeric).await;
    }
    for followed in [false, true] {
        let directory = place.directory();
        let (numeric, _view) = lookup(&directory, "numeric", followed).await;
        for error in
            [numeric.all().await.map(drop), numeric.one().await.map(drop), numeric.get().await.map(drop)]
        {
            let error = error.unwrap_err();
            let Error::NoReadableHost { malformed, key, reason, .. } = &error else { panic!("{error:?}") };
            assert_eq!(*malformed, 2, "{error}");
            assert!(key.ends_with("/a") && reason.contains("ports"), "{error}");
        }
    }
    place.put("numeric", &host("c")).await;
    assert_eq!(uuids(&place.directory().service("numeric").all().await.unwrap()), ["c"]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn two_hosts_are_found_field_for_field_the_older_registration_first() {
    let place = Place::new("fields").await;
    place.put("api", &host_with("z", &json!({"public": true, "critical": true, "unknown": [1, 2]}))).await;
    place.put("api", &host("a")).await;
    let mut first =
        Host::new("z.example.org").port("http", 8080).port("https", 8443).private_port("http", 80);
    first = first.user("svc").password(CANARY).private_hostname("z.internal").public(true).critical(true);
    first.service_name = "api".into();
    first.uuid = "z".into();
    first.extra.insert("unknown".into(), json!([1, 2]));
    for followed in [false, true] {
        let (lookup, _view) = lookup(&place.directory(), "api", followed).await;
        let all = lookup.all().await.unwrap();
        assert_eq!(uuids(&all), ["z", "a"]);
        assert_eq!(*all[0], first);
        assert_eq!(*lookup.first().await.unwrap(), first);
    }
    // Written again, it is the older one still; registered again, it is the younger one.
    place.put("api", &host("z")).await;
    assert_eq!(place.directory().service("api").first().await.unwrap().uuid, "z");
    place.delete("api", "z").await;
    place.put("api", &host("z")).await;
    assert_eq!(place.directory().service("api").first().await.unwrap().uuid, "a");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_shard_has_its_hosts_alone_for_every_verb() {
    let place = Place::new("shards").await;
    for host in [on_shard("a", "x"), on_shard("b", "y"), on_shard("c", "x"), host("d")] {
        place.put("api", &host).await;
    }
    place
        .put_info("api", &json!({"name": "api", "public": true, "hostname": "all", "ports": {"http": "1"}}))
        .await;
    for followed in [false, true] {
        let (lookup, _view) = lookup(&place.directory(), "api", followed).await;
        let x = lookup.shard("x");
        assert_eq!(uuids(&x.all().await.unwrap()), ["a", "c"]);
        assert_eq!(x.first().await.unwrap().uuid, "a");
        let y = lookup.shard("y");
        for _ in 0..20 {
            assert_eq!(y.one().await.unwrap().uuid, "b");
            let url = x.url("http", "/p").await.unwrap();
            assert!(url.contains("@a.example.org:8080/p") || url.contains("@c.example.org:8080/p"), "{url}");
        }
        assert_eq!(lookup.shard("").all().await.unwrap().len(), 4, "no name is no shard");
        assert!(matches!(lookup.shard("z").url("http", "").await, Err(Error::NoHostFoundOnShard { .. })));
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_url_is_the_public_services_own_and_else_that_of_a_host() {
    let place = Place::new("urls").await;
    place.put("api", &host("a")).await;
    place.put_info("api", &json!({"name": "api", "critical": false})).await;
    place.put("open", &host("b")).await;
    let record =
        json!({"name": "open", "public": true, "hostname": "open.example.org", "ports": {"https": "443"}});
    place.put_info("open", &record).await;
    for followed in [false, true] {
        let directory = place.directory();
        let (private, _view) = lookup(&directory, "api", followed).await;
        let url = format!("http://svc:{CANARY}@a.example.org:8080/x");
        assert_eq!(private.url("http", "/x").await.unwrap(), url);
        assert_eq!(private.url("", "/x").await.unwrap(), url);
        assert!(matches!(private.url("ftp", "").await, Err(Error::UnknownScheme { .. })));
        let (public, _view) = lookup(&directory, "open", followed).await;
        assert_eq!(public.url("", "/x").await.unwrap(), "https://open.example.org:443/x");
        assert!(matches!(public.url("http", "").await, Err(Error::UnknownScheme { .. })), "of the service");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn one_is_any_host_that_is_not_draining_and_all_has_the_others_too() {
    let place = Place::new("draining").await;
    for uuid in ["a", "b", "c"] {
        place.put("api", &host(uuid)).await;
    }
    place.put("api", &host_with("d", &json!({"draining": true}))).await;
    place.put("leaving", &host_with("e", &json!({"draining": true}))).await;
    for followed in [false, true] {
        let directory = place.directory();
        let (api, _view) = lookup(&directory, "api", followed).await;
        assert_eq!(uuids(&api.all().await.unwrap()), ["a", "b", "c", "d"]);
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            seen.insert(api.one().await.unwrap().uuid.clone());
        }
        assert_eq!(seen, ["a", "b", "c"].map(String::from).into(), "each of the three in 100 draws");
        let (leaving, _view) = lookup(&directory, "leaving", followed).await;
        assert!(matches!(leaving.one().await, Err(Error::NoHostFound { .. })));
        assert_eq!(leaving.all().await.unwrap().len(), 1);
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn entries_that_cannot_be_read_hide_nothing_and_are_counted_with_their_reasons() {
    let place = Place::new("malformed").await;
    place.put("api", &host("good-1")).await;
    let secret = format!("{{\"password\": \"{CANARY}\"");
    let large = host_with("large", &json!({"padding": "x".repeat(65 << 10)})).to_string();
    let bad = [
        ("json", secret.as_str(), "not JSON"),
        ("array", "[]", "object"),
        ("types", r#"{"name": 1}"#, "name"),
        ("number", r#"{"name": "h", "ports": {"http": 80}}"#, "ports"),
        ("port", r#"{"name": "h", "ports": {"http": "70000"}}"#, "ports"),
        ("control", "{\"name\": \"h\\u0000\"}", "name"),
        ("weight", r#"{"name": "h", "weight": -1}"#, "weight"),
        ("large", &large, "bytes"),
        ("nested/key", r#"{"name": "h"}"#, "directly"),
        ("", r#"{"name": "h"}"#, "directly"),
    ];
    for (key, value, _) in &bad {
        place.oracle.put(place.key("api", key), *value).await;
    }
    place.put("api", &host("good-2")).await;
    assert_eq!(uuids(&place.directory().service("api").all().await.unwrap()), ["good-1", "good-2"]);
    let view = place.directory().follow("api").await.unwrap();
    assert_eq!(uuids(&view.all().unwrap()), ["good-1", "good-2"]);
    let status = view.status();
    assert_eq!((status.hosts, status.malformed, status.recent_malformed.len()), (2, 10, 8), "{status:?}");
    for shown in &status.recent_malformed {
        let name = shown.key.split("/services/api/").nth(1).unwrap();
        let (_, _, reason) = bad.iter().find(|(key, _, _)| *key == name).unwrap();
        assert!(shown.reason.contains(reason), "{shown:?}");
    }
    assert!(!format!("{status:?} {view:?}").contains(CANARY));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_text_is_a_name_and_no_service_sees_another_ones_hosts() {
    let place = Place::new("names").await;
    // As they are stored.
    for (service, uuid) in [("a%2Fb", "1"), ("a", "2"), ("a2", "3"), ("%2E.", "4"), ("%F0%9F%A6%89", "5")] {
        place.put(service, &host(uuid)).await;
    }
    // What a writer that does not escape makes of a slash belongs to nobody.
    place.oracle.put(place.key("a/b", "6"), host("6").to_string()).await;
    // And a host whose name we would escape is a host.
    place.oracle.put(place.key("a2", "7-fe80::1"), host("7-fe80::1").to_string()).await;
    for (service, expected) in [
        ("a/b", vec!["1"]),
        ("a", vec!["2"]),
        ("a2", vec!["3", "7-fe80::1"]),
        ("..", vec!["4"]),
        ("🦉", vec!["5"]),
    ] {
        for followed in [false, true] {
            let (lookup, _view) = lookup(&place.directory(), service, followed).await;
            assert_eq!(uuids(&lookup.all().await.unwrap()), expected, "{service}");
        }
    }
    for name in ["", &"x".repeat(256)] {
        let error = place.directory().service(name).all().await.unwrap_err();
        assert!(matches!(error, Error::Core(core::Error::InvalidKey(_))), "{error:?}");
        assert!(place.directory().follow(name).await.is_err());
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_makes_no_sense_is_refused_by_the_verbs_and_not_by_the_constructors() {
    let place = Place::new("options").await;
    let directory = Directory::with_options(&place.client, DirectoryOptions::default().root("no spaces"));
    for error in [directory.service("api").all().await.map(drop), directory.follow("api").await.map(drop)] {
        assert!(matches!(error, Err(Error::Core(core::Error::InvalidKey(core::KeyError::BadNamespace)))));
    }
    let directory = Directory::with_options(&place.client, place.options().backlog(0));
    let error = directory.follow("api").await.unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "backlog", .. }), "{error:?}");
    let default = Directory::new(&place.client);
    assert!(matches!(default.service(&place.root).all().await, Err(Error::NoServiceFound { .. })));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn hosts_beyond_the_limit_are_not_taken_and_counted_until_there_is_room() {
    let place = Place::new("limit").await;
    for n in 0..5 {
        place.put("api", &host(&format!("h{n}"))).await;
    }
    let directory = Directory::with_options(&place.client, place.options().max_hosts(3).guard(None));
    assert_eq!(uuids(&directory.service("api").all().await.unwrap()), ["h0", "h1", "h2"]);
    let view = directory.follow("api").await.unwrap();
    assert_eq!(uuids(&view.all().unwrap()), ["h0", "h1", "h2"]);
    assert_eq!(view.status().untaken, 2);
    let mut new = view.subscribe_new();
    place.put("api", &host("h5")).await;
    place.delete("api", "h4").await;
    until(&view, "what is not taken", |view| view.status().untaken == 2).await;
    place.delete("api", "h1").await;
    assert_eq!(next_host(&mut new).await.uuid, "h3");
    assert_eq!(uuids(&view.all().unwrap()), ["h0", "h2", "h3"]);
    assert_eq!(view.status().untaken, 1);
}
