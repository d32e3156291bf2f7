//! What waits for an etcd that is not there yet, and how a client knows that its watches are alive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may fail.

use std::time::Duration;

use sereno_core::{Client, ConnectOptions, Error, Session, SessionOptions, pace};
use sereno_testkit::embed::Server;

const MINUTE: Duration = Duration::from_secs(60);

async fn server_and_client() -> (Server, Client) {
    let server = Server::builder().in_process().start().await.unwrap();
    let client = Client::lazy_via(server.dialer(), ConnectOptions::default()).unwrap();
    (server, client)
}

#[tokio::test(start_paused = true)]
async fn a_session_opens_as_soon_as_etcd_is_there() {
    let (server, client) = server_and_client().await;
    server.kill().await;
    let opening = tokio::spawn({
        let client = client.clone();
        async move { Session::open_within(&client, SessionOptions::default(), 5 * MINUTE).await }
    });
    tokio::time::sleep(MINUTE).await;
    assert!(!opening.is_finished());
    server.revive().await.unwrap();
    let revived = pace::now();
    let session = opening.await.unwrap().unwrap();
    assert!(session.epoch().is_valid());
    assert!(pace::now() - revived < Duration::from_secs(10), "{:?}", pace::now() - revived);
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_does_not_come_is_an_error_when_the_time_is_over() {
    let (server, client) = server_and_client().await;
    server.kill().await;
    let started = pace::now();
    let refused = Session::open_within(&client, SessionOptions::default(), MINUTE).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert!(pace::now() - started <= MINUTE + Duration::from_millis(10));
    // What waiting cannot mend is told at once.
    let started = pace::now();
    let options = SessionOptions::default().ttl(Duration::from_millis(1));
    let refused = Session::open_within(&client, options, MINUTE).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { .. }), "{refused:?}");
    assert_eq!(pace::now(), started);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_alive_is_heard_each_second_and_one_that_is_cut_off_is_not() {
    let (server, client) = server_and_client().await;
    assert_eq!(client.last_watch_activity(), None);
    let prefix = client.namespace().prefix("heard").unwrap();
    let _watcher = client.watch(&prefix).await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(3300)).await;
        let age = pace::now() - client.last_watch_activity().unwrap();
        assert!(age < Duration::from_secs(2), "nothing was heard for {age:?}");
    }
    server.freeze();
    tokio::time::sleep(MINUTE).await;
    let age = pace::now() - client.last_watch_activity().unwrap();
    assert!(age >= MINUTE, "{age:?}");
    server.thaw();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let age = pace::now() - client.last_watch_activity().unwrap();
    assert!(age < Duration::from_secs(2), "{age:?}");
}
