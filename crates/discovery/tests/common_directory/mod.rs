//! What the tests of the reading half share. Hosts are written as any foreign registrant would: raw keys, raw JSON.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sereno_discovery::core::{Client, ConnectOptions, Key, Namespace, Op, Outcome, Prefix, Txn};
use sereno_discovery::{Change, Changes, Directory, DirectoryOptions, Host, Subscription, View};
use sereno_testkit::{Oracle, Stage, fresh_namespace, shared};

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// What nobody may ever see.
pub(crate) const CANARY: &str = "canary-in-the-coal-mine";

/// Services of one test's own on an etcd.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) oracle: Oracle,
    pub(crate) root: String,
}

impl Place {
    /// On the shared etcd.
    pub(crate) async fn new(test: &str) -> Self {
        let endpoints = shared().await;
        Self::at(&endpoints[0], Oracle::connect(&endpoints).await, &fresh_namespace(test)).await
    }

    pub(crate) async fn at(endpoint: &str, oracle: Oracle, root: &str) -> Self {
        Self { client: client_of(endpoint).await, oracle, root: format!("/{root}") }
    }

    pub(crate) fn options(&self) -> DirectoryOptions {
        DirectoryOptions::default().root(&self.root)
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::with_options(&self.client, self.options())
    }

    /// The stored key of a host; the names as they are stored.
    pub(crate) fn key(&self, service: &str, uuid: &str) -> String {
        format!("{}/services/{service}/{uuid}", self.root)
    }

    pub(crate) fn info(&self, service: &str) -> String {
        format!("{}/services_infos/{service}", self.root)
    }

    pub(crate) async fn put(&self, service: &str, host: &Value) -> i64 {
        let uuid = host["uuid"].as_str().unwrap();
        self.oracle.put(self.key(service, uuid), host.to_string()).await
    }

    pub(crate) async fn delete(&self, service: &str, uuid: &str) {
        assert!(self.oracle.delete(self.key(service, uuid)).await, "{uuid} was not there");
    }

    pub(crate) async fn put_info(&self, service: &str, record: &Value) {
        self.oracle.put(self.info(service), record.to_string()).await;
    }
}

pub(crate) async fn client_of(endpoint: &str) -> Client {
    Client::connect_with([endpoint], ConnectOptions::default()).await.unwrap()
}

/// A host as the ancestor stores it.
pub(crate) fn host(uuid: &str) -> Value {
    json!({
        "name": format!("{uuid}.example.org"), "service_name": "api", "ports": {"http": "8080", "https": "8443"},
        "user": "svc", "password": CANARY, "private_hostname": format!("{uuid}.internal"),
        "private_ports": {"http": "80"}, "uuid": uuid,
    })
}

/// The same with some fields different.
pub(crate) fn host_with(uuid: &str, fields: &Value) -> Value {
    let mut host = host(uuid);
    for (name, value) in fields.as_object().unwrap() {
        host[name] = value.clone();
    }
    host
}

pub(crate) fn on_shard(uuid: &str, shard: &str) -> Value {
    host_with(uuid, &json!({ "shard": shard }))
}

/// The names of hosts, in the order given.
pub(crate) fn uuids(hosts: &[Arc<Host>]) -> Vec<&str> {
    hosts.iter().map(|host| host.uuid.as_str()).collect()
}

/// A short text for a change.
pub(crate) fn told(change: &Change) -> String {
    match change {
        Change::Snapshot(hosts) => format!("snapshot {}", uuids(hosts).join(",")),
        Change::Added(host) => format!("added {}", host.uuid),
        Change::Updated { old, new } => format!("updated {} {} -> {}", new.uuid, old.hostname, new.hostname),
        Change::Removed(host) => format!("removed {}", host.uuid),
        Change::ServiceChanged(service) => format!("service {:?}", service.hostname),
        Change::Malformed { key, .. } => format!("malformed {}", key.rsplit('/').next().unwrap()),
        Change::Resync => "resync".into(),
        Change::Guarded { held } => format!("guarded {held}"),
        Change::Released => "released".into(),
        other => format!("{other:?}"),
    }
}

/// The next change; it must come soon and be no error.
pub(crate) async fn next(changes: &mut Changes) -> Change {
    let change = tokio::time::timeout(LONG, changes.next()).await;
    change.expect("a change in time").expect("an open stream").expect("no error")
}

/// As [`next`], as a short text.
pub(crate) async fn tell(changes: &mut Changes) -> String {
    told(&next(changes).await)
}

pub(crate) async fn next_host(subscription: &mut Subscription) -> Arc<Host> {
    let host = tokio::time::timeout(LONG, subscription.next()).await;
    host.expect("a host in time").expect("an open stream").expect("no error")
}

/// Waits until the view is as it shall be.
pub(crate) async fn until(view: &View, what: &str, mut condition: impl FnMut(&View) -> bool) {
    let mut looked = view.clone();
    let waiting = async {
        while !condition(view) {
            // Not everything in a status is a change.
            let _ = tokio::time::timeout(Duration::from_millis(50), looked.changed()).await;
        }
    };
    tokio::time::timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come: {:?}", view.status()));
}

/// One service on a seeded stage.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    /// Writes, and is not what is tested.
    pub(crate) client: Client,
    pub(crate) hosts: Prefix,
    pub(crate) info: Key,
}

impl Scene {
    pub(crate) fn new(stage: &Stage) -> Self {
        let client = stage.client(Duration::from_secs(30));
        let hosts = Namespace::new("/services").unwrap().prefix("api").unwrap();
        let info = Namespace::new("/services_infos").unwrap().root().key("api").unwrap();
        Self { stage: stage.clone(), client, hosts, info }
    }

    pub(crate) fn reader(&self) -> Client {
        self.stage.client(Duration::from_secs(5))
    }

    pub(crate) fn key(&self, uuid: &str) -> Key {
        self.hosts.key(uuid).unwrap()
    }

    pub(crate) async fn put(&self, host: &Value) {
        let key = self.key(host["uuid"].as_str().unwrap());
        self.write(Txn::new().then(Op::put(&key, host.to_string()))).await;
    }

    pub(crate) async fn delete(&self, uuid: &str) {
        self.write(Txn::new().then(Op::delete(&self.key(uuid)))).await;
    }

    /// Writes what may be written twice, until it is known to be.
    pub(crate) async fn write(&self, txn: Txn) {
        for _ in 0..100 {
            match self.client.commit(&txn).await {
                Ok(Outcome::Applied(_)) => return,
                Ok(_) => {}
                Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("could not be written");
    }
}

/// The names of the files in a folder.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
