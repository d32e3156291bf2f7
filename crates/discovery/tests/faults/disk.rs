//! A view on disk, and what is logged of what cannot be used.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common_directory::{CANARY, LONG, Place, Scene, files, host, host_with, next, tell};
use serde_json::{Value, json};
use sereno_discovery::core::{Client, ConnectOptions};
use sereno_discovery::{Change, Directory, DirectoryOptions, Error, Source};
use sereno_testkit::{Member, Seeds, fresh_namespace};

const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// A client of an etcd that is not there.
fn nowhere() -> Client {
    Client::lazy(["127.0.0.1:1"], ConnectOptions::default().deadline(Duration::from_millis(500))).unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_service_that_starts_without_etcd_has_what_was_on_disk_and_becomes_live() {
    let member = Member::single().await;
    let folder = tempfile::tempdir().unwrap();
    let place = Place::at(&member.endpoint(), member.oracle().await, &fresh_namespace("disk")).await;
    let cache = folder.path().join("made/on/demand");
    let options = place.options().cache_dir(&cache);
    place.put("api", &host("b")).await;
    place.put("api", &host_with("a", &json!({"weight": 2.5, "draining": true, "other": {"x": 1}}))).await;
    place.put("api", &host("gone")).await;
    place
        .put_info("api", &json!({"name": "api", "public": true, "hostname": "h", "ports": {"http": "1"}}))
        .await;
    let view = Directory::with_options(&place.client, options.clone()).follow("api").await.unwrap();
    let before = (view.all().unwrap(), view.get().unwrap());
    // The task writes a last time when nobody needs it any more.
    drop(view);
    let written = sereno_testkit::eventually(LONG, "the file", async || {
        let names = files(&cache);
        (names.len() == 1 && !names[0].ends_with(".tmp")).then(|| cache.join(&names[0]))
    })
    .await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    }
    member.kill().await;

    let endpoint = member.endpoint();
    let late = Client::lazy([endpoint], ConnectOptions::default().deadline(Duration::from_secs(1))).unwrap();
    let without = Directory::with_options(&late, place.options());
    let refused = without.follow("api").await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    let started = Instant::now();
    let directory = Directory::with_options(&late, options.clone());
    let view = directory.follow("api").await.unwrap();
    println!("a view from disk after {:?}", started.elapsed());
    let status = view.status();
    assert_eq!(status.source, Source::Disk);
    assert!(status.error.is_some() && status.age > Duration::ZERO && status.age < LONG, "{status:?}");
    assert_eq!((view.all().unwrap(), view.get().unwrap()), before);
    assert_ne!(view.one().unwrap().uuid, "a", "it was draining");
    assert_eq!(directory.service("api").first().await.unwrap().uuid, "b");
    let mut changes = view.watch();
    assert_eq!(tell(&mut changes).await, "snapshot b,a,gone");
    let waiting = tokio::spawn({
        let view = view.clone();
        async move { view.ready().await }
    });

    member.start().await;
    tokio::time::timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(tell(&mut changes).await, "resync");
    place.delete("api", "gone").await;
    assert_eq!(tell(&mut changes).await, "removed gone", "nothing else was different");
    assert_eq!(view.status().source, Source::Live);
    assert_eq!(view.status().error.map(|error| error.to_string()), None);
}

#[tokio::test]
async fn without_etcd_and_without_a_file_following_fails_within_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let options = DirectoryOptions::default().cache_dir(folder.path());
    let directory = Directory::with_options(&nowhere(), options);
    let started = Instant::now();
    let (one, two) = tokio::join!(directory.follow("api"), directory.follow("api"));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(matches!(error, Error::Core(ref error) if error.is_retryable()), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(directory.service("api").all().await.unwrap_err().is_retryable());
    assert!(files(folder.path()).is_empty());
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("sereno_discovery")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields<'a>(&'a mut String);
        impl tracing::field::Visit for Fields<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        event.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_file_that_is_corrupt_foreign_or_too_old_is_ignored_and_told() {
    let test = "a_file_that_is_corrupt_foreign_or_too_old_is_ignored_and_told";
    Seeds::new(PACKAGE, test, 1).run(async |stage| {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(stage);
        scene.put(&host("a")).await;
        let options = DirectoryOptions::default().cache_dir(folder.path());
        drop(Directory::with_options(&scene.reader(), options.clone()).follow("api").await.unwrap());
        let path = stage.until("the file", async || {
            let names = files(folder.path());
            (names.len() == 1 && !names[0].ends_with(".tmp")).then(|| folder.path().join(&names[0]))
        });
        let path = path.await;
        stage.until("the task to end", async || (stage.server().status().watches == 0).then_some(())).await;
        let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        stage.server().kill().await;
        let try_with = async |text: String| {
            std::fs::write(&path, text).unwrap();
            let log = Log::default();
            let _logged = tracing::subscriber::set_default(log.clone());
            let client = scene.reader();
            let followed = Directory::with_options(&client, options.clone()).follow("api").await;
            (followed.map(|view| view.len().unwrap()), log.0.lock().unwrap().clone())
        };
        let (followed, _) = try_with(whole.to_string()).await;
        assert_eq!(followed.unwrap(), 1, "as it was written, it is good");
        let with = |name: &str, value: Value| {
            let mut json = whole.clone();
            json[name] = value;
            json.to_string()
        };
        let mut bad_host = whole.clone();
        bad_host["hosts"][0]["host"]["ports"] = json!({"http": "0"});
        let as_of = whole["as_of_ms"].as_u64().unwrap();
        let bad = [
            (whole.to_string()[..50].to_owned(), "not JSON"),
            (String::new(), "not JSON"),
            ("[]".to_owned(), "no version"),
            (with("version", json!(2)), "version"),
            (with("service", json!("other")), "another service"),
            (with("keys", json!("/prod/services/api/")), "another service"),
            (with("hosts", json!({})), "no hosts"),
            (with("as_of_ms", json!(as_of + 3_600_000)), "future"),
            (with("as_of_ms", json!(as_of - 601_000)), "old"),
            (bad_host.to_string(), "ports"),
        ];
        for (text, reason) in bad {
            let (followed, log) = try_with(text).await;
            assert!(followed.unwrap_err().is_retryable(), "{reason}");
            assert!(log.contains(reason) && !log.contains(CANARY), "{reason}: {log}");
        }
        // The time before the process was started counts.
        let (client, text) = (scene.reader(), with("as_of_ms", json!(as_of - 480_000)));
        std::fs::write(&path, text).unwrap();
        let view = Directory::with_options(&client, options.clone()).follow("api").await.unwrap();
        assert!(view.status().age >= Duration::from_secs(480));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(matches!(view.all(), Err(Error::Stale { .. })));
    });
}

#[test]
fn the_file_follows_the_view_at_its_pace_and_says_of_when_it_is() {
    let test = "the_file_follows_the_view_at_its_pace_and_says_of_when_it_is";
    Seeds::new(PACKAGE, test, 1).run(async |stage| {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(stage);
        scene.put(&host("h0")).await;
        let options = DirectoryOptions::default().cache_dir(folder.path());
        let view = Directory::with_options(&scene.reader(), options).follow("api").await.unwrap();
        let stored = || {
            let names = files(folder.path());
            let whole = names.iter().find(|name| !name.ends_with(".tmp"))?;
            let json: Value =
                serde_json::from_slice(&std::fs::read(folder.path().join(whole)).unwrap()).unwrap();
            Some((json["hosts"].as_array().unwrap().len(), json["as_of_ms"].as_u64().unwrap()))
        };
        let first = stage.until("the first file", async || stored()).await;
        assert_eq!(first.0, 1);
        // Many changes within five seconds are one file.
        let mut versions = std::collections::BTreeSet::new();
        for n in 1..=100 {
            scene.put(&host(&format!("h{n}"))).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            versions.insert(stored());
        }
        println!("{} files in 20 s", versions.len());
        assert!((2..=6).contains(&versions.len()), "{versions:?}");
        stage.until("all of them", async || stored().filter(|stored| stored.0 == 101)).await;
        // Without a change it is renewed as well, though not as often.
        let quiet = stored().unwrap().1;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let renewed = stored().unwrap().1 - quiet;
        assert!((200_000..=300_000).contains(&renewed), "{renewed} ms");
        assert_eq!(view.status().cache_error, None);
        // And a folder that cannot be written is told.
        let nowhere = DirectoryOptions::default().cache_dir("/dev/null/folder");
        let other = Directory::with_options(&scene.reader(), nowhere).follow("api").await.unwrap();
        stage.until("the error", async || other.status().cache_error).await;
        assert_eq!(other.len().unwrap(), 101);
    });
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn what_is_passed_over_is_logged_without_its_value() {
    let place = Place::new("logged").await;
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(log.clone());
    place.oracle.put(place.key("api", "bad-one"), format!("{{\"password\": \"{CANARY}\"")).await;
    place.oracle.put(place.info("api"), format!("[\"{CANARY}\"]")).await;
    drop(place.directory().service("api").all().await);
    let cold = log.0.lock().unwrap().clone();
    assert!(cold.contains("bad-one") && !cold.contains(CANARY), "{cold}");
    let mut changes = place.directory().service("api").watch().await.unwrap();
    assert!(matches!(next(&mut changes).await, Change::Snapshot(_)));
    let log = log.0.lock().unwrap()[cold.len()..].to_owned();
    assert!(log.contains("bad-one") && log.contains("services_infos") && !log.contains(CANARY), "{log}");
}
