//! What dies, hangs, lies and comes back.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{
    ANY, LONG, RawRespondent, client, eager, keys, next, quick, server, session, soon, store, told, until,
};
use sereno_peers::sp::{self, Pub};
use sereno_peers::{Address, Client, Error, PeersStream, PublicationFault, Server, Subscriber, etcd};
use sereno_testkit::{ChildHost, ChildProcess, Member, Proxy, child, eventually, fresh_namespace, shared};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    match child::role().as_deref() {
        // Serves until it is killed.
        Some("server") => {
            let server = Server::bind(child::argument(0), child::argument(1), quick()).await.unwrap();
            child::say(&format!("{} {}", server.survey_urls()[0], server.pubsub_urls()[0]));
            server.cancelled().await;
        }
        // Tells every list.
        Some("client") => {
            let (survey, pubsub) = (child::argument(0), child::argument(1));
            let client = Client::with_subscription(survey, pubsub, child::argument(2), eager()).unwrap();
            tell(client.peers().unwrap()).await;
        }
        Some("etcd") => {
            let etcd = store(&child::argument(0), &child::argument(1)).await;
            let session = session(&etcd, 2).await;
            tell(etcd::Client::connect(&session, "g", child::argument(2)).await.unwrap().peers()).await;
        }
        _ => {}
    }
}

async fn tell(mut peers: PeersStream) {
    while let Some(names) = peers.next().await {
        child::say(&names.unwrap().join(","));
    }
}

fn spawn_server(survey: &str, pubsub: &str) -> ChildProcess {
    ChildHost::new("child_entry", "server").argument(survey).argument(pubsub).spawn()
}

fn spawn_client(survey: &str, pubsub: &str, name: &str) -> ChildProcess {
    ChildHost::new("child_entry", "client").argument(survey).argument(pubsub).argument(name).spawn()
}

/// Waits until the child has told this list, and gives what it told before.
async fn hears(child: &mut ChildProcess, list: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let told = child.line().await;
        if told == list {
            return before;
        }
        before.push(told);
    }
}

#[tokio::test]
async fn processes_that_are_killed_are_gone_and_a_server_that_is_killed_and_started_again_finds_all() {
    let mut server = spawn_server(ANY, ANY);
    let urls = server.line().await;
    let (survey, pubsub) = urls.split_once(' ').unwrap();
    let mut clients: Vec<ChildProcess> =
        ["client1", "client2", "client3"].iter().map(|name| spawn_client(survey, pubsub, name)).collect();
    for client in &mut clients {
        hears(client, "client1,client2,client3").await;
    }
    let started = Instant::now();
    clients.pop().unwrap().kill();
    for client in &mut clients {
        let before = hears(client, "client1,client2").await;
        assert!(before.is_empty(), "{before:?}");
    }
    println!("a killed client was gone after {:?}", started.elapsed());

    server.kill();
    let started = Instant::now();
    let mut server = spawn_server(survey, pubsub);
    assert_eq!(server.line().await, urls);
    let mut third = spawn_client(survey, pubsub, "client3");
    hears(&mut third, "client1,client2,client3").await;
    println!("the server was back, and all were seen, after {:?}", started.elapsed());
    for client in &mut clients {
        hears(client, "client1,client2,client3").await;
    }
    // One that hangs keeps its connections, and is found out by its silence.
    let started = Instant::now();
    third.pause();
    hears(&mut clients[0], "client1,client2").await;
    println!("a stopped client was gone after {:?}", started.elapsed());
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "not before it had missed three surveys of one second"
    );
    third.resume();
    hears(&mut clients[0], "client1,client2,client3").await;
}

#[tokio::test]
async fn those_who_come_back_to_a_server_that_was_restarted_are_not_told_to_be_gone() {
    let options = quick().settle(Duration::from_secs(1));
    let first = Server::bind(ANY, ANY, options.clone()).await.unwrap();
    let (survey, pubsub) = (first.survey_urls()[0].clone(), first.pubsub_urls()[0].clone());
    let (one, two) = (client(&first, "one"), client(&first, "two"));
    let mut seen = told(&one, &["one", "two"]).await;
    for _ in 0..2 {
        first.cancel().await;
        let news = tokio::time::timeout(Duration::from_millis(100), seen.next()).await;
        assert!(news.is_err(), "what was known stays while there is no server: {news:?}");
        let again = Server::bind(&survey, &pubsub, options.clone()).await.unwrap();
        until(&mut again.peers(), &["one", "two"]).await;
        let three = Client::connect(&survey, "three", eager()).unwrap();
        assert_eq!(next(&mut seen).await, ["one", "three", "two"], "the next news is a join");
        three.cancel().await;
        assert_eq!(next(&mut seen).await, ["one", "two"]);
        again.cancel().await;
    }
    drop(two);
}

#[tokio::test]
async fn with_several_servers_none_is_missed_when_one_dies() {
    let (first, second) = (server().await, server().await);
    let urls = |part: fn(&Server) -> &[Address]| [part(&first), part(&second)].concat();
    let (surveys, publications) = (urls(Server::survey_urls), urls(Server::pubsub_urls));
    let join = |name: &str| Client::with_subscription(&surveys, &publications, name, eager()).unwrap();
    let (one, two) = (join("one"), join("two"));
    let mut seen = told(&one, &["one", "two"]).await;
    for server in [&first, &second] {
        until(&mut server.peers(), &["one", "two"]).await;
    }
    assert_eq!(one.servers(), 2);
    // Known to one server only, whichever: the union has it.
    for server in [&first, &second] {
        let apart = Client::connect(server.survey_urls(), "apart", eager()).unwrap();
        assert_eq!(next(&mut seen).await, ["apart", "one", "two"]);
        apart.cancel().await;
        assert_eq!(next(&mut seen).await, ["one", "two"]);
    }

    first.cancel().await;
    let three = join("three");
    assert_eq!(next(&mut seen).await, ["one", "three", "two"], "the other server tells");
    three.cancel().await;
    assert_eq!(next(&mut seen).await, ["one", "two"]);
    let stats = one.subscriber().unwrap().stats();
    assert_eq!(stats.servers, 1, "{stats:?}");

    // The first comes back, the second dies.
    let first =
        Server::bind(first.survey_urls(), first.pubsub_urls(), quick().settle(Duration::from_secs(1)));
    let first = first.await.unwrap();
    until(&mut first.peers(), &["one", "two"]).await;
    eventually(LONG, "both servers", async || (one.subscriber().unwrap().stats().servers == 2).then_some(()))
        .await;
    second.cancel().await;
    two.cancel().await;
    assert_eq!(next(&mut seen).await, ["one"]);
}

#[tokio::test]
async fn publications_that_are_no_list_are_refused_told_and_counted_and_harm_nothing() {
    let hostile = Pub::with_options(sp::SocketOptions::default().max_message(1 << 22));
    let address = hostile.listen(ANY).await.unwrap();
    let options = eager().max_message(1000).max_peers(50);
    let subscriber = Subscriber::connect_with(&address, options).unwrap();
    let mut changes = subscriber.changes();
    hostile.connected(1).await.unwrap();
    hostile.send("b|a||a").await.unwrap();
    assert_eq!(next(&mut changes).await, ["a", "b"]);
    let many: Vec<String> = (0..51).map(|n| n.to_string()).collect();
    let cases = [
        (b"a|\xff\xfe".to_vec(), PublicationFault::NotUtf8),
        (many.join("|").into_bytes(), PublicationFault::TooManyNames),
        (vec![b'x'; 1001], PublicationFault::TooLarge),
    ];
    for (body, wanted) in cases {
        hostile.send(body).await.unwrap();
        let refused = soon("the refusal", changes.next()).await.unwrap().unwrap_err();
        assert!(
            matches!(&refused, Error::BadPublication { url, fault } if *fault == wanted && *url == address.to_string()),
            "{refused:?}"
        );
        // Disconnected, when it was too large. Whoever comes late is told what was known before, and no old error.
        hostile.connected(1).await.unwrap();
        assert_eq!(next(&mut subscriber.changes()).await, ["a", "b"]);
    }
    let stats = subscriber.stats();
    assert_eq!((stats.publications, stats.not_utf8, stats.too_many_names, stats.too_large), (1, 1, 1, 1));
    eventually(LONG, "good news", async || {
        hostile.send("a|b|c").await.unwrap();
        let news = tokio::time::timeout(Duration::from_millis(100), changes.next()).await.ok()?;
        assert_eq!(news.unwrap().unwrap(), ["a", "b", "c"]);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_no_names_and_peers_that_speak_nonsense_are_counted_and_harm_nothing() {
    let server = Server::bind(ANY, ANY, quick().max_peers(40)).await.unwrap();
    let honest = client(&server, "honest");
    let mut seen = told(&honest, &["honest"]).await;
    let mut hostile = RawRespondent::connect(&server.survey_urls()[0]).await;
    let bad: [&[u8]; 4] = [b"", b"a|b", b"\xff", &[b'x'; 256]];
    for name in bad {
        let survey = hostile.survey().await;
        hostile.answer(survey, &[name]).await;
    }
    eventually(LONG, "four bad names", async || (server.stats().bad_names == 4).then_some(())).await;
    // More answers than one, and a different one each time: it is one peer at most at a time, and a few until they are gone.
    let flood: Vec<String> = (0..60).map(|n| format!("flood-{n}")).collect();
    let survey = hostile.survey().await;
    hostile.answer(survey, &flood).await;
    eventually(LONG, "the surplus", async || (server.stats().surplus >= 59).then_some(())).await;
    assert_eq!(next(&mut seen).await, ["flood-0", "honest"]);
    drop(hostile);
    assert_eq!(next(&mut seen).await, ["honest"]);
    for address in [&server.survey_urls()[0], &server.pubsub_urls()[0]] {
        let Address::Tcp { host, port } = address else { panic!("{address}") };
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    eventually(LONG, "two refusals", async || (server.refused(sp::Refusal::NotSp) == 2).then_some(())).await;
    // An answer larger than any name: its sender is shown out.
    let mut hostile = RawRespondent::connect(&server.survey_urls()[0]).await;
    let survey = hostile.survey().await;
    hostile.answer(survey, &[vec![b'x'; 70_000]]).await;
    eventually(LONG, "the refusal", async || (server.refused(sp::Refusal::TooLarge) == 1).then_some(()))
        .await;
    let late = client(&server, "late");
    assert_eq!(next(&mut seen).await, ["honest", "late"]);
    drop(late);
}

#[tokio::test]
async fn a_client_that_went_without_a_word_is_found_out_by_its_silence_and_holds_up_nobody() {
    let options = quick().survey_time(Duration::from_secs(1));
    let server = Server::bind(ANY, ANY, options).await.unwrap();
    let one = client(&server, "one");
    let mut seen = told(&one, &["one"]).await;
    // Connected, and silent from its second survey on.
    let mut silent = RawRespondent::connect(&server.survey_urls()[0]).await;
    let survey = silent.survey().await;
    silent.answer(survey, &["silent"]).await;
    assert_eq!(next(&mut seen).await, ["one", "silent"]);
    let started = Instant::now();
    assert_eq!(next(&mut seen).await, ["one"]);
    println!("gone after {:?} of silence", started.elapsed());
    // Its connection is still there, and nobody waits for it any more.
    assert_eq!(server.stats().clients, 2);
    let before = server.stats().surveys;
    let started = Instant::now();
    eventually(LONG, "ten surveys", async || (server.stats().surveys >= before + 10).then_some(())).await;
    println!("ten surveys took {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_millis(9500), "not as long as ten survey times");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_up_neither_the_others_nor_the_end() {
    let server = server().await;
    let Address::Tcp { host, port } = &server.pubsub_urls()[0] else { panic!("not TCP") };
    let stuck = TcpSocket::new_v4().unwrap();
    stuck.set_recv_buffer_size(4096).unwrap();
    let mut stuck = stuck.connect(format!("{host}:{port}").parse().unwrap()).await.unwrap();
    stuck.write_all(b"\0SP\0\0\x21\0\0").await.unwrap();
    eventually(LONG, "the subscriber", async || (server.stats().subscribers == 1).then_some(())).await;
    let long = "x".repeat(200);
    let clients: Vec<Client> = (0..40).map(|n| client(&server, &format!("{long}{n:02}"))).collect();
    let mut seen = clients[0].peers().unwrap();
    soon("all", seen.wait_for(|names| names.len() == 40)).await.unwrap();
    // Enough to fill every buffer on the way to it.
    for _ in 0..150 {
        let late = Subscriber::connect_with(server.pubsub_urls(), eager()).unwrap();
        soon("the list", late.changes().wait_for(|names| names.len() == 40)).await.unwrap();
    }
    let started = Instant::now();
    server.cancel().await;
    println!("cancelled in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn clients_and_subscribers_are_cancelled_at_once_when_there_is_no_server() {
    // Nobody listens there, there is no such name, and one accepts and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("tcp://{}", mute.local_addr().unwrap());
    for url in ["tcp://127.0.0.1:1", "tcp://no-such-host.invalid:1", &mute] {
        let client = Client::with_subscription(url, url, "n", eager()).unwrap();
        let mut peers = client.peers().unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(150), peers.next()).await;
        assert!(nothing.is_err(), "nothing is known, not even that nobody is there: {nothing:?}");
        let started = Instant::now();
        client.cancel().await;
        assert!(soon("the end", peers.next()).await.is_none());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

// ---- On etcd

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_key_deleted_underneath_and_a_lease_that_was_revoked_are_restored() {
    use sereno_peers::core::{Op, Txn};

    let endpoints = shared().await;
    let etcd = store(&endpoints[0], &fresh_namespace("restored")).await;
    let oracle = sereno_testkit::Oracle::connect(&endpoints).await;
    let (mine, other) = (session(&etcd, 15).await, session(&etcd, 15).await);
    let one = etcd::Client::connect(&mine, "g", "one").await.unwrap();
    let mut seen = told(&one, &["one"]).await;
    let two = etcd::Client::connect(&other, "g", "two").await.unwrap();
    assert_eq!(next(&mut seen).await, ["one", "two"]);
    let key = keys(&etcd).await.into_iter().find(|kv| kv.key.to_string().contains("/two/")).unwrap();
    etcd.settle(&Txn::new().then(Op::delete(&key.key))).await.unwrap();
    // Whoever is slow sees nothing of it.
    eventually(LONG, "the key", async || (keys(&etcd).await.len() == 2).then_some(())).await;
    until(&mut one.peers(), &["one", "two"]).await;
    let read = oracle.client().get(key.key.as_bytes(), None).await.unwrap();
    assert!(oracle.revoke(read.kvs()[0].lease()).await);
    eventually(LONG, "the next epoch", async || (other.epoch().number() == 2).then_some(())).await;
    eventually(LONG, "the key", async || (keys(&etcd).await.len() == 2).then_some(())).await;
    until(&mut one.peers(), &["one", "two"]).await;
    two.cancel().await.unwrap();
    until(&mut seen, &["one"]).await;
    assert_eq!(keys(&etcd).await.len(), 1, "nothing of it is left");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn peers_outlive_etcd_being_killed_and_restarted_and_nothing_is_told() {
    let member = Member::single().await;
    let etcd = store(&member.endpoint(), "restart").await;
    let (mine, other) = (session(&etcd, 15).await, session(&etcd, 15).await);
    let one = etcd::Client::connect(&mine, "g", "one").await.unwrap();
    let _two = etcd::Client::connect(&other, "g", "two").await.unwrap();
    let mut seen = told(&one, &["one", "two"]).await;
    member.kill().await;
    member.start().await;
    let three = soon("a third", async {
        loop {
            if let Ok(three) = etcd::Client::connect(&mine, "g", "three").await {
                break three;
            }
        }
    });
    let _three = three.await;
    loop {
        match soon("news", seen.next()).await.unwrap() {
            Ok(names) => break assert_eq!(names, ["one", "three", "two"]),
            Err(error) => println!("{error}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn cancelling_while_etcd_is_away_is_bounded_and_the_key_goes_with_the_lease() {
    let member = Member::single().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let etcd = store(&proxy.endpoint(), "away").await;
    let onlooker = etcd::Subscriber::connect(&store(&member.endpoint(), "away").await, "g").await.unwrap();
    let session = session(&etcd, 2).await;
    let one = etcd::Client::connect(&session, "g", "one").await.unwrap();
    let mut changes = onlooker.changes();
    until(&mut changes, &["one"]).await;
    proxy.blackhole().await;
    let started = Instant::now();
    let refused = one.cancel().await.unwrap_err();
    println!("cancelling into a black hole: {refused:?} after {:?}", started.elapsed());
    assert!(started.elapsed() < etcd.deadline() + Duration::from_secs(2), "{:?}", started.elapsed());
    one.cancel().await.unwrap();
    assert!(soon("the end", one.peers().next()).await.is_none());
    assert_eq!(next(&mut changes).await, [""; 0]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_process_that_is_killed_is_gone_when_its_lease_has_run_out() {
    let (endpoint, namespace) = (shared().await[0].clone(), fresh_namespace("killed"));
    let spawn = |name: &str| {
        ChildHost::new("child_entry", "etcd").argument(&endpoint).argument(&namespace).argument(name).spawn()
    };
    let (mut one, mut two) = (spawn("one"), spawn("two"));
    for child in [&mut one, &mut two] {
        hears(child, "one,two").await;
    }
    let started = Instant::now();
    two.kill();
    assert_eq!(one.line().await, "one");
    println!("gone after {:?}, with a lease of 2 s", started.elapsed());
}
