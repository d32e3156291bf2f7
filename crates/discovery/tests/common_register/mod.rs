//! What the tests of registering share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::Value;
use sereno_discovery::core::{Client, ConnectOptions, Session, SessionOptions};
use sereno_discovery::{Host, Registration, RegistrationState, Registry, RegistryOptions};
use sereno_testkit::{Member, Oracle, eventually, fresh_namespace, shared};

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A root of one's own in an etcd, and how to look at it.
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) root: String,
    pub(crate) oracle: Oracle,
}

impl Place {
    /// In the etcd that all tests share.
    pub(crate) async fn shared(test: &str) -> Self {
        let endpoints = shared().await;
        let oracle = Oracle::connect(&endpoints).await;
        Self { endpoint: endpoints[0].clone(), root: format!("/{}", fresh_namespace(test)), oracle }
    }

    /// In one of the test's own.
    pub(crate) async fn on(member: &Member) -> Self {
        Self { endpoint: member.endpoint(), root: "/own".into(), oracle: member.oracle().await }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect([&self.endpoint]).await.unwrap()
    }

    pub(crate) fn options(&self) -> RegistryOptions {
        RegistryOptions::default().root(&self.root)
    }

    /// A session with a time to live of so many seconds.
    pub(crate) async fn session(&self, ttl: u64) -> Session {
        session(&self.client().await, ttl).await
    }

    pub(crate) async fn registry(&self) -> Registry {
        self.registry_on(&self.session(15).await)
    }

    pub(crate) fn registry_on(&self, session: &Session) -> Registry {
        Registry::with_options(session, self.options())
    }

    pub(crate) fn host_key(&self, registration: &Registration) -> String {
        format!("{}/services/{}/{}", self.root, registration.service(), registration.uuid())
    }

    pub(crate) fn info_key(&self, service: &str) -> String {
        format!("{}/services_infos/{service}", self.root)
    }

    /// The stored host, if it is there.
    pub(crate) async fn stored(&self, registration: &Registration) -> Option<Value> {
        self.json(&self.host_key(registration)).await
    }

    /// The service's stored record, if it is there.
    pub(crate) async fn record(&self, service: &str) -> Option<Value> {
        self.json(&self.info_key(service)).await
    }

    pub(crate) async fn put_record(&self, service: &str, text: &str) -> i64 {
        self.oracle.put(self.info_key(service), text).await
    }

    async fn json(&self, key: &str) -> Option<Value> {
        let text = self.oracle.get(key).await?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// How often a key was written since its creation, and when last.
    pub(crate) async fn writes(&self, key: &str) -> (i64, i64) {
        let read = self.oracle.client().get(key, None).await.unwrap();
        read.kvs().first().map_or((0, 0), |kv| (kv.version(), kv.mod_revision()))
    }

    /// The lease a key is on.
    pub(crate) async fn lease(&self, key: &str) -> i64 {
        self.oracle.client().get(key, None).await.unwrap().kvs().first().expect("the key is there").lease()
    }

    /// How many hosts are stored.
    pub(crate) async fn hosts(&self) -> i64 {
        self.oracle.count_prefix(format!("{}/services/", self.root)).await
    }

    /// Waits until the stored host is as the registration says.
    pub(crate) async fn in_step(&self, registration: &Registration) -> Value {
        eventually(LONG, "the stored host to be the one registered", async || {
            let stored = self.stored(registration).await?;
            same(&stored, &registration.host()).then_some(stored)
        })
        .await
    }
}

pub(crate) async fn session(client: &Client, ttl: u64) -> Session {
    Session::open_with(client, SessionOptions::default().ttl(Duration::from_secs(ttl))).await.unwrap()
}

/// A client that fails fast.
pub(crate) fn impatient(endpoint: &str) -> Client {
    let options = ConnectOptions::default().deadline(Duration::from_secs(2));
    Client::lazy([endpoint], options).unwrap()
}

/// A public host with credentials.
pub(crate) fn public(name: &str, password: &str) -> Host {
    let host = Host::new(format!("{name}.example.org")).port("http", 8080).public(true);
    host.private_hostname(name).user(format!("user of {name}")).password(password)
}

pub(crate) fn private(name: &str) -> Host {
    Host::new(name).port("http", 8080)
}

/// Registers, and waits until it is there.
pub(crate) async fn registered(registry: &Registry, service: &str, host: Host) -> Registration {
    let registration = registry.register(service, host).unwrap();
    tokio::time::timeout(LONG, registration.ready()).await.expect("ready in time").unwrap();
    registration
}

/// Waits until a registration stands so.
pub(crate) async fn stands(registration: &Registration, state: RegistrationState) {
    eventually(LONG, &format!("{state:?}"), async || (registration.status().state == state).then_some(()))
        .await;
}

/// Whether a stored host says what a host does, as far as credentials, draining and names go.
pub(crate) fn same(stored: &Value, host: &Host) -> bool {
    let text = |name: &str| stored.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let flag = |name: &str| stored.get(name).and_then(Value::as_bool).unwrap_or(false);
    text("name") == host.hostname
        && text("private_hostname") == host.private_hostname
        && text("user") == host.user
        && text("password") == host.password.expose()
        && text("shard") == host.shard
        && text("uuid") == host.uuid
        && flag("public") == host.public
        && flag("draining") == host.draining
        && stored["ports"] == serde_json::to_value(&host.ports).unwrap()
}
