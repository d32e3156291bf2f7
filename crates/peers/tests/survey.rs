//! What a peer can rely on by survey alone.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{ANY, client, eager, next, quick, server, soon, told, until};
use sereno_peers::{Client, Dialect, Error, NameFault, Peers, Server, ServerOptions, Subscriber, sp};
use sereno_testkit::eventually;

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
    let started = Instant::now();
    drop(three);
    assert_eq!(next(&mut seen).await, ["one", "two"]);
    println!("a departure after {:?}", started.elapsed());
    // Three surveys missed, two thirds of a second apart: 1.3 s. gopherdiscovery takes 3 s.
    assert!(started.elapsed() > Duration::from_millis(1200), "{:?}", started.elapsed());
    drop(two);
}
