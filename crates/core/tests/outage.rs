//! Outages that a session survives. No etcd is needed: the clock is paused, and an hour passes in no time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::time::Duration;

use sereno_core::{Client, ConnectOptions, Session, SessionOptions, SessionState};
use sereno_testkit::embed::Server;

/// How etcd is away.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// It answers nothing, and then everything.
    Frozen,
    /// It is gone, with all connections, and comes back with its data.
    Killed,
}

async fn open(server: &Server, ttl: Duration) -> Session {
    let client = Client::connect_via(server.dialer(), ConnectOptions::default()).await.unwrap();
    Session::open_with(&client, SessionOptions::default().ttl(ttl)).await.unwrap()
}

/// Whether the first epoch of a session outlives an outage of that length which begins `phase` after it was opened.
async fn survives(outage: Outage, ttl: Duration, phase: Duration, length: Duration) -> bool {
    let server = Server::builder().in_process().start().await.unwrap();
    let session = open(&server, ttl).await;
    tokio::time::sleep(2 * ttl + phase).await;
    match outage {
        Outage::Frozen => server.freeze(),
        Outage::Killed => server.kill().await,
    }
    tokio::time::sleep(length).await;
    match outage {
        Outage::Frozen => server.thaw(),
        Outage::Killed => server.revive().await.unwrap(),
    }
    tokio::time::sleep(2 * ttl).await;
    let status = session.status();
    let survived = status.epoch == 1;
    assert!(!survived || status.state == SessionState::Connected, "{status:?}");
    session.close().await.unwrap();
    survived
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_every_outage_of_three_quarters_of_its_time_to_live() {
    for outage in [Outage::Frozen, Outage::Killed] {
        for ttl in [4, 5, 10, 15, 30, 60].map(Duration::from_secs) {
            // Wherever in the rhythm of the keepalives it begins.
            for step in 0..8 {
                let phase = ttl / 20 * step / 8;
                assert!(
                    survives(outage, ttl, phase, ttl * 3 / 4).await,
                    "{outage:?} for 3/4 of {ttl:?}, begun {phase:?} after a keepalive"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_short_time_to_live_survives_what_its_documentation_says() {
    for outage in [Outage::Frozen, Outage::Killed] {
        for (ttl, share) in [(2, 0.7), (3, 0.75)] {
            let ttl = Duration::from_secs(ttl);
            assert!(survives(outage, ttl, ttl / 21, ttl.mul_f64(share)).await, "{outage:?} of {ttl:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_as_long_as_the_time_to_live_ends_the_epoch() {
    for outage in [Outage::Frozen, Outage::Killed] {
        let ttl = Duration::from_secs(5);
        assert!(!survives(outage, ttl, Duration::ZERO, ttl).await, "{outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ending_one_thing_after_the_other_with_etcd_gone_shares_one_budget() {
    let server = Server::builder().in_process().start().await.unwrap();
    let session = open(&server, Duration::from_secs(60)).await;
    let prefix = session.client().namespace().prefix("presence").unwrap();
    let mut kept = Vec::new();
    for n in 0..4 {
        let key = prefix.key(n.to_string()).unwrap();
        kept.push(session.keep(&key, "", sereno_core::Conflict::Refuse).await.unwrap());
    }
    server.freeze();
    let budget = session.client().deadline();
    let started = tokio::time::Instant::now();
    for presence in kept {
        presence.leave().await.unwrap_err();
    }
    session.close().await.unwrap_err();
    // The budget once, a tenth of it for each of the four that follow, and a keepalive's period until the silence counts.
    let took = started.elapsed();
    assert!(took <= budget + 4 * (budget / 10) + Duration::from_secs(3), "{took:?}");
    server.thaw();
}
