//! What the tests of the counter share.

#![allow(dead_code)] // Not every test file needs all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use sereno_counter::Counter;
use sereno_counter::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};
use sereno_testkit::{Oracle, fresh_namespace, shared};

pub(crate) const SOON: Duration = Duration::from_secs(120);
pub(crate) const NAME: &str = "jobs";

/// A place of one test's own in an etcd.
pub(crate) struct Place {
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) deadline: Duration,
    pub(crate) ttl: Duration,
}

impl Place {
    /// In the etcd that all tests share.
    pub(crate) async fn shared(test: &str) -> Self {
        Self::at(test, shared().await)
    }

    pub(crate) fn at(test: &str, endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            namespace: fresh_namespace(test),
            deadline: Duration::from_secs(10),
            ttl: Duration::from_secs(60),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_at(self.endpoints.clone()).await
    }

    pub(crate) async fn client_at(&self, endpoints: Vec<String>) -> Client {
        let options = ConnectOptions::default()
            .namespace(Namespace::new(&self.namespace).unwrap())
            .deadline(self.deadline)
            .attempt(Duration::from_millis(300));
        Client::connect_with(endpoints, options).await.unwrap()
    }

    /// A session with a client of its own, as another process would have.
    pub(crate) async fn session(&self) -> Session {
        self.session_at(self.endpoints.clone()).await
    }

    pub(crate) async fn session_at(&self, endpoints: Vec<String>) -> Session {
        let client = self.client_at(endpoints).await;
        Session::open_with(&client, SessionOptions::default().ttl(self.ttl)).await.unwrap()
    }

    pub(crate) async fn counter(&self) -> Counter {
        Counter::new(&self.session().await, NAME)
    }

    pub(crate) async fn oracle(&self) -> Oracle {
        Oracle::connect(&self.endpoints).await
    }

    /// Everything of the counter as it is stored: keys below its prefix, and values, as text.
    pub(crate) async fn stored(&self) -> Vec<(String, String)> {
        let prefix = self.key("");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let all = self.oracle().await.range(prefix.clone()).await;
        all.iter().map(|(key, value)| (text(&key[prefix.len()..]), text(value))).collect()
    }

    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}/counter/{NAME}/{rest}", self.namespace)
    }

    /// Ends a session's lease as an operator, or a clock, would.
    pub(crate) async fn revoke(&self, session: &Session) {
        let mut client = self.oracle().await.client();
        let read = client.get(session.epoch().key().as_bytes(), None).await.unwrap();
        let lease = read.kvs().first().expect("a live session has its key").lease();
        assert!(self.oracle().await.revoke(lease).await);
    }
}

/// Adds 1 so many times from each of so many tasks, and gives what they were told.
pub(crate) async fn hammer(counter: &Counter, tasks: usize, each: usize) -> Vec<i64> {
    let task = |counter: Counter| async move {
        let mut told = Vec::with_capacity(each);
        for _ in 0..each {
            told.push(counter.add(1).await.unwrap());
        }
        assert!(told.is_sorted(), "one task after another sees the value grow");
        told
    };
    let tasks: Vec<_> = (0..tasks).map(|_| tokio::spawn(task(counter.clone()))).collect();
    let mut told = Vec::with_capacity(tasks.len() * each);
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    told
}

/// Nobody was told what another was told, and nothing is missing.
pub(crate) fn assert_gapless(told: impl IntoIterator<Item = i64>, first: i64, count: usize) {
    let told: Vec<i64> = told.into_iter().collect();
    let distinct: BTreeSet<i64> = told.iter().copied().collect();
    assert_eq!(distinct.len(), told.len(), "two were told the same");
    assert_eq!(told.len(), count);
    assert_eq!(distinct.first().copied(), Some(first));
    assert_eq!(distinct.last().copied(), Some(first + (count as i64 - 1)));
}
