//! What a peer can rely on, in both modes and in each.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{ANY, World, client, eager, etcd_client, next, quick, server, session, soon, told, until};
use sereno_peers::{
    Client, ClientOptions, Dialect, Error, MAX_NAME, NameFault, Peers, Server, ServerOptions, Subscriber,
    etcd, sp,
};
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

// ---- By survey alone

#[tokio::test]
async fn a_server_is_cancelled_and_its_ports_are_free() {
    let server = server().await;
    let (survey, pubsub) = (server.survey_urls()[0].clone(), server.pubsub_urls()[0].clone());
    let one = client(&server, "client1");
    let mut own = server.peers();
    until(&mut own, &["client1"]).await;
    let mut waits = tokio::spawn(async move {
        server.cancel().await;
        server.cancel().await;
        server.cancelled().await;
        server
    });
    let server = soon("the end", &mut waits).await.unwrap();
    assert!(soon("the end", own.next()).await.is_none());
    assert_eq!((server.stats().clients, server.stats().subscribers), (0, 0));
    // While the cancelled server is still held.
    let again = Server::bind(survey, pubsub, quick()).await.unwrap();
    until(&mut again.peers(), &["client1"]).await;
    one.cancel().await;
    until(&mut again.peers(), &[]).await;
}

#[tokio::test]
async fn a_server_that_is_dropped_frees_its_ports() {
    let server = server().await;
    let (survey, pubsub) = (server.survey_urls()[0].clone(), server.pubsub_urls()[0].clone());
    drop(server);
    let again =
        eventually(common::LONG, "the ports", async || Server::bind(&survey, &pubsub, quick()).await.ok())
            .await;
    again.cancel().await;
}

#[tokio::test]
async fn a_client_without_a_subscription_is_seen_and_sees_nobody() {
    let server = server().await;
    let plain = Client::connect(server.survey_urls(), "plain", eager()).unwrap();
    until(&mut server.peers(), &["plain"]).await;
    assert!(matches!(plain.peers(), Err(Error::NoSubscription)));
    assert!(matches!(Peers::peers(&plain), Err(Error::NoSubscription)));
    assert!(plain.subscriber().is_err());
    assert_eq!(plain.servers(), 1);
    // Somebody else's subscription sees it.
    let subscriber = Subscriber::connect(server.pubsub_urls()).unwrap();
    until(&mut subscriber.changes(), &["plain"]).await;
    assert_eq!(subscriber.stats().servers, 1);
    plain.cancel().await;
    until(&mut subscriber.changes(), &[]).await;
    subscriber.cancel().await;
    subscriber.cancel().await;
}

#[tokio::test]
async fn addresses_that_cannot_be_read_or_used_are_errors_for_everybody() {
    let taken = server().await;
    let (survey, pubsub) = (taken.survey_urls()[0].to_string(), taken.pubsub_urls()[0].to_string());
    for bad in ["", "nonsense", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "http://127.0.0.1:80", "ipc://"] {
        let is_bad = |error: &Error| matches!(error, Error::Socket(sp::Error::BadAddress { .. }));
        let refused = [
            Server::bind(bad, ANY, quick()).await.unwrap_err(),
            Server::bind(ANY, bad, quick()).await.unwrap_err(),
            Server::bind([ANY, bad], ANY, quick()).await.unwrap_err(),
            Client::connect(bad, "n", eager()).unwrap_err(),
            Client::with_subscription(bad, &*pubsub, "n", eager()).unwrap_err(),
            Client::with_subscription(&*survey, bad, "n", eager()).unwrap_err(),
            Subscriber::connect(bad).unwrap_err(),
        ];
        assert!(refused.iter().all(is_bad), "{bad:?}: {refused:?}");
    }
    let none: [&str; 0] = [];
    assert!(matches!(Server::bind(none, ANY, quick()).await, Err(Error::NoAddress)));
    assert!(matches!(Client::connect(none, "n", eager()), Err(Error::NoAddress)));
    assert!(matches!(Subscriber::connect(none), Err(Error::NoAddress)));
    // Taken already: the error says so, and the other port is given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let free = format!("tcp://{free}");
    let refused = Server::bind(&free, &pubsub, quick()).await.unwrap_err();
    assert!(matches!(refused, Error::Socket(sp::Error::AddressInUse { .. })), "{refused:?}");
    assert!(refused.is_retryable());
    let unresolved = Server::bind("tcp://no-such-host.invalid:1", ANY, quick()).await.unwrap_err();
    assert!(matches!(unresolved, Error::Socket(sp::Error::Listen { .. })), "{unresolved:?}");
    Server::bind(&free, ANY, quick()).await.unwrap().cancel().await;
    // Nobody was seen by the server whose clients were refused.
    let fence = client(&taken, "fence");
    until(&mut fence.peers().unwrap(), &["fence"]).await;
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_by_name() {
    let zero = Duration::ZERO;
    let long = Duration::MAX;
    let servers: [(&str, ServerOptions); 11] = [
        ("survey_time", quick().survey_time(zero)),
        ("survey_time", quick().survey_time(long)),
        ("recv_deadline", quick().recv_deadline(zero)),
        ("recv_deadline", quick().recv_deadline(long)),
        ("poll_time", quick().poll_time(zero)),
        ("poll_time", quick().poll_time(long)),
        ("settle", quick().settle(long)),
        ("missed", quick().missed(0)),
        ("max_peers", quick().max_peers(0)),
        ("max_message", quick().max_message(255)),
        ("answers_per_connection", quick().answers_per_connection(0)),
    ];
    for (name, options) in servers {
        let refused = Server::bind(ANY, ANY, options).await.unwrap_err();
        assert!(matches!(&refused, Error::InvalidOption { option, .. } if *option == name), "{refused:?}");
    }
    let clients = [
        ("reconnect", eager().reconnect(zero)),
        ("reconnect", eager().reconnect(long)),
        ("max_peers", eager().max_peers(0)),
        ("max_message", eager().max_message(0)),
    ];
    for (name, options) in clients {
        let refused = Client::connect(ANY, "n", options.clone()).unwrap_err();
        assert!(matches!(&refused, Error::InvalidOption { option, .. } if *option == name), "{refused:?}");
        assert!(matches!(Subscriber::connect_with(ANY, options), Err(Error::InvalidOption { .. })));
    }
    // What is on the verge is allowed.
    let least = Duration::from_millis(1);
    let options = quick().survey_time(least).recv_deadline(least).poll_time(least).settle(zero).missed(1);
    Server::bind(ANY, ANY, options).await.unwrap().cancel().await;
}

#[tokio::test]
async fn a_name_with_a_bar_in_it_is_refused_by_survey() {
    let server = server().await;
    for name in ["a|b", "|", "a|"] {
        let refused = Client::connect(server.survey_urls(), name, eager()).unwrap_err();
        assert!(matches!(refused, Error::BadName { fault: NameFault::Separator, .. }), "{refused:?}");
    }
}

#[test]
fn outside_of_a_runtime_there_is_an_error_and_no_panic() {
    let refused = Client::connect("tcp://127.0.0.1:1", "n", eager()).unwrap_err();
    assert!(matches!(refused, Error::Socket(sp::Error::NoRuntime)), "{refused:?}");
    assert!(Subscriber::connect("tcp://127.0.0.1:1").is_err());
}

#[tokio::test]
async fn peers_meet_over_ipc_and_inproc_and_a_server_listens_on_several_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let ipc = |name: &str| format!("ipc://{}", folder.path().join(name).display());
    let inproc = |name: &str| format!("inproc://{name}-{}", std::process::id());
    let surveys = [ANY.to_owned(), ipc("survey"), inproc("survey")];
    let publications = [ANY.to_owned(), ipc("pubsub"), inproc("pubsub")];
    let server = Server::bind(surveys.as_slice(), publications.as_slice(), quick()).await.unwrap();
    let (surveys, publications) = (server.survey_urls(), server.pubsub_urls());
    let clients: Vec<Client> = (0..3)
        .map(|way| {
            Client::with_subscription(&surveys[way], &publications[way], format!("by-{way}"), eager())
                .unwrap()
        })
        .collect();
    for client in &clients {
        until(&mut client.peers().unwrap(), &["by-0", "by-1", "by-2"]).await;
    }
    server.cancel().await;
    assert!(!folder.path().join("survey").exists(), "the file is gone with the server");
}

#[tokio::test]
async fn those_of_the_old_numbers_meet_among_themselves() {
    let options = quick().dialect(Dialect::Mangos2015);
    let server = Server::bind(ANY, ANY, options).await.unwrap();
    let modern = client(&server, "modern");
    let old = eager().dialect(Dialect::Mangos2015);
    let old = Client::with_subscription(server.survey_urls(), server.pubsub_urls(), "old", old).unwrap();
    until(&mut old.peers().unwrap(), &["old"]).await;
    eventually(common::LONG, "the refusal", async || {
        (server.refused(sp::Refusal::WrongProtocol) > 0).then_some(())
    })
    .await;
    until(&mut modern.peers().unwrap(), &["old"]).await;
}

#[tokio::test]
async fn with_the_default_options_a_departure_is_seen_sooner_than_one_poll_and_one_deadline_take() {
    let server = Server::bind(ANY, ANY, ServerOptions::default()).await.unwrap();
    let started = Instant::now();
    let (one, two) = (client(&server, "one"), client(&server, "two"));
    let mut seen = told(&one, &["one", "two"]).await;
    let joined = started.elapsed();
    let three = client(&server, "three");
    let started = Instant::now();
    assert_eq!(next(&mut seen).await, ["one", "three", "two"]);
    println!("first list after {joined:?}, a join after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let started = Instant::now();
    drop(three);
    assert_eq!(next(&mut seen).await, ["one", "two"]);
    println!("a departure after {:?}", started.elapsed());
    // Three surveys missed, two thirds of a second apart: 1.3 s. gopherdiscovery takes 3 s.
    assert!(started.elapsed() > Duration::from_millis(1200), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_millis(2800), "{:?}", started.elapsed());
    drop(two);
}

// ---- On etcd alone

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn groups_are_apart_and_foreign_keys_are_nobody() {
    use sereno_peers::core::{Op, Txn};

    let client = etcd_client(&shared().await[0], &fresh_namespace("groups")).await;
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
    let client = etcd_client(&shared().await[0], &fresh_namespace("closed")).await;
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
