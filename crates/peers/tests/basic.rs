//! What a peer can rely on, in both modes and in each.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{World, next, session, soon, store, told, until};
use sereno_peers::{Client, ClientOptions, Error, MAX_NAME, NameFault, etcd};
use sereno_testkit::{eventually, fresh_namespace, shared};

/// Each scenario is played by survey and on etcd.
macro_rules! in_both_modes {
    ($($scenario:ident),* $(,)?) => {
        mod by_survey {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::$scenario(super::World::survey().await).await;
                }
            )*
        }

        mod on_etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs etcd: cargo xtask test"]
                async fn $scenario() {
                    super::$scenario(super::World::etcd(stringify!($scenario)).await).await;
                }
            )*
        }
    };
}

in_both_modes! {
    a_single_client_sees_itself,
    each_of_three_clients_sees_all_three,
    clients_that_come_and_go_one_at_a_time_are_told_one_at_a_time,
    nothing_is_told_while_nothing_changes,
    whoever_comes_late_is_told_who_is_there_at_once,
    whoever_looks_on_sees_and_is_not_seen,
    whoever_is_slow_gets_the_latest_list,
    two_clients_of_one_name_are_one_peer_while_one_of_them_is_there,
    names_may_have_odd_characters_and_lists_are_sorted,
    cancelling_ends_the_streams_and_may_be_done_again_and_by_several,
    dropping_a_client_takes_it_away,
    an_empty_or_over_long_name_is_refused,
}

async fn a_single_client_sees_itself(world: World) {
    let started = Instant::now();
    let one = world.join("client1").await;
    assert_eq!(one.name(), "client1");
    drop(told(&*one, &["client1"]).await);
    println!("seen by itself after {:?}", started.elapsed());
}

async fn each_of_three_clients_sees_all_three(world: World) {
    let clients = [world.join("client1").await, world.join("client2").await, world.join("client3").await];
    for client in &clients {
        drop(told(&**client, &["client1", "client2", "client3"]).await);
    }
}

async fn clients_that_come_and_go_one_at_a_time_are_told_one_at_a_time(world: World) {
    let one = world.join("client1").await;
    let mut seen = told(&*one, &["client1"]).await;
    let started = Instant::now();
    let two = world.join("client2").await;
    assert_eq!(next(&mut seen).await, ["client1", "client2"]);
    println!("a join was seen after {:?}", started.elapsed());
    let three = world.join("client3").await;
    assert_eq!(next(&mut seen).await, ["client1", "client2", "client3"]);
    let started = Instant::now();
    three.cancel().await.unwrap();
    assert_eq!(next(&mut seen).await, ["client1", "client2"]);
    println!("a departure was seen after {:?}", started.elapsed());
    two.cancel().await.unwrap();
    assert_eq!(next(&mut seen).await, ["client1"]);
}

async fn nothing_is_told_while_nothing_changes(world: World) {
    let (one, _two) = (world.join("client1").await, world.join("client2").await);
    let mut seen = told(&*one, &["client1", "client2"]).await;
    // Those who come late have others told again what they know.
    let late = world.onlooker().await;
    until(&mut late.changes(), &["client1", "client2"]).await;
    let news = tokio::time::timeout(Duration::from_millis(300), seen.next()).await;
    assert!(news.is_err(), "{news:?}");
    if let World::Survey(server) = &world {
        let before = server.stats().surveys;
        eventually(common::LONG, "more surveys", async || {
            (server.stats().surveys > before + 2).then_some(())
        })
        .await;
        let news = tokio::time::timeout(Duration::from_millis(1), seen.next()).await;
        assert!(news.is_err(), "{news:?}");
    }
}

async fn whoever_comes_late_is_told_who_is_there_at_once(world: World) {
    let (one, _two) = (world.join("client1").await, world.join("client2").await);
    drop(told(&*one, &["client1", "client2"]).await);
    let late = world.onlooker().await;
    let started = Instant::now();
    assert_eq!(next(&mut late.changes()).await, ["client1", "client2"]);
    println!("whoever came late was told after {:?}", started.elapsed());
    // And so is every further stream of it.
    assert_eq!(next(&mut late.changes()).await, ["client1", "client2"]);
}

async fn whoever_looks_on_sees_and_is_not_seen(world: World) {
    let onlooker = world.onlooker().await;
    let mut changes = onlooker.changes();
    assert_eq!(next(&mut changes).await, [""; 0], "nobody is an empty list");
    let one = world.join("client1").await;
    assert_eq!(next(&mut changes).await, ["client1"]);
    one.cancel().await.unwrap();
    assert_eq!(next(&mut changes).await, [""; 0]);
}

async fn whoever_is_slow_gets_the_latest_list(world: World) {
    let one = world.join("client1").await;
    let mut slow = one.peers().unwrap();
    let mut seen = told(&*one, &["client1"]).await;
    for _ in 0..12 {
        let other = world.join("other").await;
        until(&mut seen, &["client1", "other"]).await;
        other.cancel().await.unwrap();
        until(&mut seen, &["client1"]).await;
    }
    let _last = world.join("last").await;
    until(&mut seen, &["client1", "last"]).await;
    assert_eq!(next(&mut slow).await, ["client1", "last"]);
    let news = tokio::time::timeout(Duration::from_millis(50), slow.next()).await;
    assert!(news.is_err(), "{news:?}");
}

async fn two_clients_of_one_name_are_one_peer_while_one_of_them_is_there(world: World) {
    let onlooker = world.onlooker().await;
    let mut changes = onlooker.changes();
    let first = world.join("twin").await;
    until(&mut changes, &["twin"]).await;
    let second = world.join("twin").await;
    // Whoever joins after it is told: so it has been seen.
    let marker = world.join("marker").await;
    until(&mut changes, &["marker", "twin"]).await;
    if let World::Survey(server) = &world {
        eventually(common::LONG, "three clients", async || (server.stats().clients == 3).then_some(())).await;
        let before = server.stats().surveys;
        eventually(common::LONG, "a survey of all", async || {
            (server.stats().surveys > before + 1).then_some(())
        })
        .await;
    }
    first.cancel().await.unwrap();
    marker.cancel().await.unwrap();
    assert_eq!(next(&mut changes).await, ["twin"], "only the marker goes");
    second.cancel().await.unwrap();
    assert_eq!(next(&mut changes).await, [""; 0]);
}

async fn names_may_have_odd_characters_and_lists_are_sorted(world: World) {
    let mut names = vec![
        "z",
        "a b",
        "Z",
        "tcp://10.0.0.1:80/x?y=%20",
        "\u{1f989}",
        "new\nline",
        "nul\0",
        ".",
        "a",
        "%7C",
    ];
    let long = "l".repeat(MAX_NAME);
    names.push(&long);
    if matches!(world, World::Etcd(_)) {
        names.extend(["a|b", "|"]);
    }
    let mut clients = Vec::new();
    for name in &names {
        clients.push(world.join(name).await);
    }
    names.sort_unstable();
    drop(told(&*clients[0], &names).await);
}

async fn cancelling_ends_the_streams_and_may_be_done_again_and_by_several(world: World) {
    let one = world.join("client1").await;
    let (mut open, mut waiting) = (told(&*one, &["client1"]).await, told(&*one, &["client1"]).await);
    let waiting = tokio::spawn(async move { waiting.next().await });
    let started = Instant::now();
    let (first, second) = tokio::join!(one.cancel(), one.cancel());
    first.and(second).unwrap();
    one.cancel().await.unwrap();
    println!("cancelled three times in {:?}", started.elapsed());
    assert!(soon("the end", waiting).await.unwrap().is_none());
    assert!(soon("the end", open.next()).await.is_none());
    assert!(soon("the end", one.peers().unwrap().next()).await.is_none());
}

async fn dropping_a_client_takes_it_away(world: World) {
    let (one, two) = (world.join("client1").await, world.join("client2").await);
    let mut seen = told(&*one, &["client1", "client2"]).await;
    let mut of_the_dropped = two.peers().unwrap();
    drop(two);
    assert_eq!(next(&mut seen).await, ["client1"]);
    soon("the end", async { while of_the_dropped.next().await.is_some() {} }).await;
}

async fn an_empty_or_over_long_name_is_refused(world: World) {
    for (name, wanted) in [(String::new(), NameFault::Empty), ("x".repeat(MAX_NAME + 1), NameFault::TooLong)]
    {
        let refused = match &world {
            World::Survey(server) => {
                let refused = Client::connect(server.survey_urls(), &*name, ClientOptions::default());
                refused.unwrap_err()
            }
            World::Etcd(client) => {
                let session = session(client, 15).await;
                etcd::Client::connect(&session, "g", &*name).await.unwrap_err()
            }
        };
        assert!(matches!(&refused, Error::BadName { fault, .. } if *fault == wanted), "{refused:?}");
        assert!(!refused.is_retryable());
    }
}

// ---- On etcd alone

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn groups_are_apart_and_foreign_keys_are_nobody() {
    use sereno_peers::core::{Op, Txn};

    let client = store(&shared().await[0], &fresh_namespace("groups")).await;
    let session = session(&client, 15).await;
    let one = etcd::Client::connect(&session, "g", "n").await.unwrap();
    let other = etcd::Client::connect(&session, "g2", "m").await.unwrap();
    assert_eq!((one.group(), one.name()), ("g", "n"));
    let root = client.namespace().prefix("peers").unwrap().join("g").unwrap();
    for key in [root.key("short").unwrap(), root.join("a").unwrap().join("b").unwrap().key("c").unwrap()] {
        client.settle(&Txn::new().then(Op::put(&key, ""))).await.unwrap();
    }
    let _late = etcd::Client::connect(&session, "g", "o").await.unwrap();
    until(&mut one.peers(), &["n", "o"]).await;
    until(&mut other.peers(), &["m"]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn when_its_session_is_closed_a_client_is_gone_and_its_streams_say_why() {
    let client = store(&shared().await[0], &fresh_namespace("closed")).await;
    let (mine, other) = (session(&client, 15).await, session(&client, 15).await);
    let one = etcd::Client::connect(&mine, "g", "one").await.unwrap();
    let two = etcd::Client::connect(&other, "g", "two").await.unwrap();
    let mut own = told(&one, &["one", "two"]).await;
    let mut seen = told(&two, &["one", "two"]).await;
    mine.close().await.unwrap();
    let why = soon("the end", own.next()).await.unwrap().unwrap_err();
    assert!(why.is_session_lost(), "{why:?}");
    assert!(soon("the end", own.next()).await.is_none());
    assert_eq!(next(&mut seen).await, ["two"]);
    one.cancel().await.unwrap();
    let refused = etcd::Client::connect(&mine, "g", "again").await.unwrap_err();
    assert!(refused.is_session_lost(), "{refused:?}");
}
