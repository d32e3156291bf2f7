//! What the tests of topics share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use sereno_pubsub::core::{Client, ConnectOptions, Namespace, Session, SessionOptions};
use sereno_pubsub::{Delivery, Message, Subscription, Topic};
use sereno_testkit::{Oracle, fresh_namespace, shared};
use tokio::time::timeout;

pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A place of one's own in the shared etcd.
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) endpoints: Vec<String>,
}

impl Place {
    pub(crate) async fn new(test: &str) -> Self {
        Self { namespace: fresh_namespace(test), endpoints: shared().await }
    }

    pub(crate) fn at(test: &str, endpoints: Vec<String>) -> Self {
        Self { namespace: fresh_namespace(test), endpoints }
    }

    pub(crate) async fn client(&self) -> Client {
        let options = ConnectOptions::default().namespace(Namespace::new(&self.namespace).unwrap());
        Client::connect_with(&self.endpoints, options).await.unwrap()
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.client().await).await.unwrap()
    }

    pub(crate) async fn session_ttl(&self, ttl: Duration) -> Session {
        Session::open_with(&self.client().await, SessionOptions::default().ttl(ttl)).await.unwrap()
    }

    pub(crate) async fn oracle(&self) -> Oracle {
        Oracle::connect(&self.endpoints).await
    }

    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}/topic/{rest}", self.namespace)
    }

    /// A session and a topic.
    pub(crate) async fn topic(&self) -> Topic {
        Topic::new(&self.session().await, "t")
    }
}

/// The next delivery, soon.
pub(crate) async fn next(subscription: &mut Subscription) -> Delivery {
    let next = timeout(SOON, subscription.next()).await.expect("a delivery in time");
    next.expect("the subscription goes on").unwrap()
}

/// The next delivery, which must be a message.
pub(crate) async fn message(subscription: &mut Subscription) -> Message {
    match next(subscription).await {
        Delivery::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

/// The payload of the next message, as text.
pub(crate) async fn text(subscription: &mut Subscription) -> String {
    String::from_utf8(message(subscription).await.payload.to_vec()).unwrap()
}

pub(crate) async fn texts(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(text(subscription).await);
    }
    texts
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Nothing is delivered before a message that is published now: everything else would have come first.
pub(crate) async fn nothing_before_a_marker(subscription: &mut Subscription, topic: &Topic) {
    topic.publish("marker").await.unwrap();
    assert_eq!(text(subscription).await, "marker");
}
