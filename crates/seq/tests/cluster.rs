//! Members of a group on a cluster of three.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{LONG, client_of, in_order, next, session, told};
use sereno_seq::core::{Client, ConnectOptions, Namespace};
use sereno_seq::{Position, Sequence};
use sereno_testkit::{Cluster, eventually};

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn on_three_members_the_index_is_the_order_of_joining_through_whichever_one_joins() {
    let cluster = Cluster::start(3).await;
    let mut sessions = Vec::new();
    let mut members = Vec::new();
    let mut streams = Vec::new();
    for n in 0..6 {
        let client = client_of(&cluster.endpoints()[n % 3], "three").await;
        let session = session(&client, 15).await;
        members.push(Sequence::new(&session, "g").join().await.unwrap());
        sessions.push(session);
        in_order(&members).await;
        let mut stream = members[n].positions();
        assert_eq!(told(&next(&mut stream).await), format!("{n}/{}", n + 1));
        streams.push(stream);
    }
    // The last one was told so already.
    for (n, stream) in streams.iter_mut().enumerate().take(5) {
        loop {
            let Ok(Position { index, count, .. }) = next(stream).await else { panic!("no one was lost") };
            assert_eq!(index, n, "nobody's index changes when another one joins");
            if count == 6 {
                break;
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a real etcd: three members"]
async fn members_outlive_the_leader_of_a_cluster_without_a_flap() {
    let cluster = Cluster::start(3).await;
    let mut members = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let options = ConnectOptions::default().namespace(Namespace::new("leader").unwrap());
        let client = Client::connect_with(cluster.endpoints(), options).await.unwrap();
        let session = session(&client, 30).await;
        members.push(Sequence::new(&session, "g").join().await.unwrap());
        sessions.push(session);
    }
    in_order(&members).await;
    let claim = members[2].claim().await.unwrap();
    let mut streams: Vec<_> = members.iter().map(sereno_seq::Member::positions).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(told(&next(stream).await), format!("{n}/3"));
    }
    cluster.kill_leader().await;
    let group = Sequence::new(&sessions[0], "g");
    let late = eventually(LONG, "joining to work again", async || group.join().await.ok()).await;
    for (n, stream) in streams.iter_mut().enumerate() {
        loop {
            let standing = next(stream).await;
            assert_eq!(standing.as_ref().map(|position| position.index), Ok(n), "a flap");
            if told(&standing) == format!("{n}/4") {
                break;
            }
        }
    }
    assert!(claim.is_valid());
    assert!(sessions.iter().all(|session| session.epoch().number() == 1));
    assert!(late.position().is_ok());
}
