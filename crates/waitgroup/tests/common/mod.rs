//! What all tests of this crate begin with.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use sereno_testkit::{Oracle, fresh_namespace, shared};
use sereno_waitgroup::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};

/// Long enough for anything that happens at all.
pub(crate) const SOON: Duration = Duration::from_secs(120);
/// Time in which something that must not happen would have happened.
pub(crate) const MOMENT: Duration = Duration::from_millis(200);

/// A place of its own in some etcd.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
}

impl Place {
    /// On the etcd that other tests use too.
    pub(crate) async fn shared(test: &str) -> Self {
        Self { endpoints: shared().await, namespace: fresh_namespace(test) }
    }

    pub(crate) fn at(endpoint: String, test: &str) -> Self {
        Self { endpoints: vec![endpoint], namespace: fresh_namespace(test) }
    }

    pub(crate) fn through(&self, endpoint: String) -> Self {
        Self { endpoints: vec![endpoint], namespace: self.namespace.clone() }
    }

    /// A client and a session of its own, as another process would have.
    pub(crate) async fn session(&self) -> Session {
        self.session_for(Duration::from_secs(15)).await
    }

    pub(crate) async fn session_for(&self, ttl: Duration) -> Session {
        self.open(ttl, ConnectOptions::default()).await
    }

    /// A session whose calls may take long: for tests in which many get in each other's way on a slow machine.
    pub(crate) async fn patient_session(&self) -> Session {
        self.open(Duration::from_secs(15), ConnectOptions::default().deadline(Duration::from_secs(30))).await
    }

    async fn open(&self, ttl: Duration, options: ConnectOptions) -> Session {
        let options = options.namespace(Namespace::new(&self.namespace).unwrap());
        let client = Client::connect_with(self.endpoints.clone(), options).await.unwrap();
        Session::open_with(&client, SessionOptions::default().ttl(ttl)).await.unwrap()
    }

    pub(crate) async fn oracle(&self) -> Oracle {
        Oracle::connect(&self.endpoints).await
    }

    /// The keys of a group, as a person would list them.
    pub(crate) async fn listing(&self, group: &str) -> Vec<String> {
        let prefix = format!("{}/waitgroup/{group}/", self.namespace);
        let keys = self.oracle().await.range(prefix.clone()).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        keys.into_iter()
            .map(|(key, value)| format!("{} {}", text(key).replace(&prefix, ""), text(value)))
            .collect()
    }
}

/// Runs `future` to its end, which must come soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it must end soon")
}

/// Whether `future` is still waiting after a moment.
pub(crate) async fn still_waiting<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(MOMENT, future).await.is_err()
}

/// The middle, and the ninety-ninth of a hundred.
pub(crate) fn p50_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[(times.len() * 99 / 100).min(times.len() - 1)])
}
