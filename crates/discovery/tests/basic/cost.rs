//! What many registrations cost.

use std::time::Instant;

use crate::common_register::{LONG, Place, private, stands};
use sereno_discovery::RegistrationState;
use sereno_testkit::{Member, eventually};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_hundred_registrations_cost_one_lease_one_watch_stream_and_no_write_while_they_are_kept() {
    const HOSTS: usize = 100;
    let member = Member::single().await;
    let place = Place::on(&member).await;
    // Four keepalives a second.
    let session = place.session(5).await;
    let registry = place.registry_on(&session);
    let started = Instant::now();
    let register = |n: usize| registry.register(&format!("service-{}", n % 10), private(&format!("h-{n}")));
    let registrations: Vec<_> = (0..HOSTS).map(|n| register(n).unwrap()).collect();
    for registration in &registrations {
        tokio::time::timeout(LONG, registration.ready()).await.unwrap().unwrap();
    }
    println!("{HOSTS} registrations were ready after {:?}", started.elapsed());
    assert_eq!(place.hosts().await as usize, HOSTS);
    assert_eq!(place.oracle.leases().await.len(), 1, "one lease for all");
    let metric = async |name: &str| member.metrics().await.get(name).unwrap();
    // Two per registration (its host, its record), one for the session.
    let watchers = eventually(LONG, "all to be followed", async || {
        let watchers = metric("etcd_debugging_mvcc_watcher_total").await;
        (watchers >= (2 * HOSTS) as f64).then_some(watchers)
    })
    .await;
    let streams = metric("etcd_debugging_mvcc_watch_stream_total").await;
    println!("{streams} watch stream(s) for {watchers} watches");
    assert!(streams <= 2.0, "{streams}");

    let (revision, proposals, renewed) = (
        place.oracle.revision().await,
        metric("etcd_server_proposals_committed_total").await,
        metric("etcd_debugging_lease_renewed_total").await,
    );
    let beats = eventually(LONG, "ten heartbeats", async || {
        let beats = metric("etcd_debugging_lease_renewed_total").await - renewed;
        Some(beats).filter(|beats| *beats >= 10.0)
    })
    .await;
    let proposed = metric("etcd_server_proposals_committed_total").await - proposals;
    println!("{beats} heartbeats, {proposed} proposals");
    assert_eq!(place.oracle.revision().await, revision, "heartbeats are no writes");
    // etcd itself may log a word of its own now and then; one per heartbeat would be ten or more.
    assert!(proposed <= 2.0, "{proposed} raft proposals for {beats} heartbeats");
    for registration in &registrations {
        stands(registration, RegistrationState::Kept).await;
    }
    session.close().await.unwrap();
    assert_eq!(place.hosts().await, 0);
}
