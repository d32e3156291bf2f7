//! Publications and subscriptions.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{LONG, places, soon};
use sereno_sp::{Pub, Sub};
use sereno_testkit::eventually;

#[tokio::test]
async fn subscribers_get_what_begins_as_they_want() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "topics") {
        let publisher = Pub::new();
        let address = publisher.listen(&place).await.unwrap();
        let (all, some, none) = (Sub::new(), Sub::new(), Sub::new());
        assert!(all.subscribe(""));
        assert!(some.subscribe("a/") && some.subscribe("b") && !some.subscribe("b"));
        for subscriber in [&all, &some, &none] {
            subscriber.dial(&address).unwrap();
        }
        publisher.connected(3).await.unwrap();
        let sent = ["a", "a/1", "", "b", "c", "bb", "xa/", "a/2"];
        for body in sent {
            publisher.send(body).await.unwrap();
        }
        for expected in sent {
            assert_eq!(soon("all", all.recv()).await.unwrap(), expected);
        }
        for expected in ["a/1", "b", "bb", "a/2"] {
            assert_eq!(soon("some", some.recv()).await.unwrap(), expected);
        }
        let came = || none.stats().messages_in == sent.len() as u64;
        eventually(LONG, "everything at the one who wants nothing", async || came().then_some(())).await;
        assert_eq!(none.try_recv().unwrap(), None);
        assert_eq!(some.try_recv().unwrap(), None);
    }
}

#[tokio::test]
async fn after_unsubscribing_nothing_more_of_that_prefix_is_received() {
    let (publisher, subscriber) = (Pub::new(), Sub::new());
    subscriber.subscribe("a");
    subscriber.subscribe("b");
    subscriber.dial(publisher.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    publisher.connected(1).await.unwrap();
    for body in ["a1", "b1", "a2", "b2"] {
        publisher.send(body).await.unwrap();
    }
    assert_eq!(soon("the first", subscriber.recv()).await.unwrap(), "a1");
    eventually(LONG, "the rest", async || (subscriber.stats().messages_in == 4).then_some(())).await;
    assert!(subscriber.unsubscribe("a") && !subscriber.unsubscribe("a"));
    publisher.send("a3").await.unwrap();
    publisher.send("b3").await.unwrap();
    for expected in ["b1", "b2", "b3"] {
        assert_eq!(soon("b", subscriber.recv()).await.unwrap(), expected);
    }
}
