//! Many at the same time, and times that leave no time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ANY, LONG, RawRespondent, World, client, eager, next, quick, server, soon, until};
use sereno_peers::sp::Respondent;
use sereno_peers::{Client, Error, PublicationFault, Server, ServerOptions, Subscriber};
use sereno_testkit::eventually;

/// The options of gopherdiscovery's own tests.
fn hasty() -> ServerOptions {
    ServerOptions::default()
        .survey_time(Duration::from_millis(10))
        .recv_deadline(Duration::from_millis(10))
        .poll_time(Duration::from_millis(20))
        .settle(Duration::from_millis(20))
}

/// For how long this thread has been on a processor.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// A server of such short times goes on, and rests in between, while `during` happens. On the runtime of one thread everything
/// that is done is done on this one.
async fn goes_on_and_rests(server: &Server, during: impl Future<Output = ()>) {
    let (before, busy_before, started) = (server.stats(), busy(), Instant::now());
    during.await;
    let goes_on = async || (server.stats().surveys >= before.surveys + 20).then_some(());
    eventually(LONG, "twenty surveys", goes_on).await;
    let (after, elapsed) = (server.stats(), started.elapsed());
    let (surveys, turns) = (after.surveys - before.surveys, after.turns - before.turns);
    println!("in {elapsed:?}: {surveys} surveys, {turns} turns, busy for {:?}", busy() - busy_before);
    // At the most one per poll, and one in doubt.
    assert!(u128::from(surveys) <= elapsed.as_millis() / 6 + 2, "no faster than asked for: {surveys}");
    assert!(turns <= surveys * 12 + 20, "no turn without a cause: {turns}");
    assert!((busy() - busy_before) < elapsed / 2, "it rests");
}

#[tokio::test]
async fn surveys_shorter_than_an_answer_takes_make_no_hot_loop_and_do_not_end_the_surveys() {
    let server = Server::bind(ANY, ANY, hasty()).await.unwrap();
    let (one, two) = (client(&server, "client1"), client(&server, "client2"));
    until(&mut one.peers().unwrap(), &["client1", "client2"]).await;
    until(&mut two.peers().unwrap(), &["client1", "client2"]).await;
    // What is measured is what it does in a time.
    goes_on_and_rests(&server, tokio::time::sleep(Duration::from_secs(2))).await;
    // Whose answers always come too late.
    let late = Respondent::new();
    late.dial(&server.survey_urls()[0]).unwrap();
    let answering = async {
        loop {
            let survey = late.recv().await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            survey.reply("late").unwrap();
        }
    };
    let during = async {
        tokio::select! {
            () = answering => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    };
    goes_on_and_rests(&server, during).await;
    assert!(server.stats().late_answers > 0, "{:?}", server.stats());
    // It still does its work.
    let three = client(&server, "client3");
    let all = |names: &[String]| names.contains(&"client1".into()) && names.contains(&"client3".into());
    soon("the third", three.peers().unwrap().wait_for(all)).await.unwrap();
}

#[tokio::test]
async fn a_server_alone_with_the_shortest_times_rests_too() {
    let least = Duration::from_millis(1);
    let options = hasty().survey_time(least).recv_deadline(least).poll_time(least);
    let server = Server::bind(ANY, ANY, options).await.unwrap();
    let (before, busy_before, started) = (server.stats(), busy(), Instant::now());
    // What is measured is what it does in a time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (surveys, busy) = (server.stats().surveys - before.surveys, busy() - busy_before);
    println!("{surveys} surveys, busy for {busy:?}");
    assert!(u128::from(surveys) <= started.elapsed().as_millis() + 1);
    assert!(busy < started.elapsed() / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_healthy_clients_do_not_flap_when_answers_are_waited_for_two_milliseconds() {
    let options = ServerOptions::default()
        .recv_deadline(Duration::from_millis(2))
        .poll_time(Duration::from_millis(20))
        .settle(Duration::ZERO);
    let server = Server::bind(ANY, ANY, options).await.unwrap();
    let clients: Vec<Client> = (0..50)
        .map(|n| Client::connect(server.survey_urls(), format!("client-{n}"), eager()).unwrap())
        .collect();
    let mut peers = server.peers();
    soon("all of them", peers.wait_for(|names| names.len() == 50)).await.unwrap();
    let before = server.stats();
    let news = tokio::time::timeout(Duration::from_secs(5), peers.next()).await;
    let after = server.stats();
    println!("{} surveys, {} answers", after.surveys - before.surveys, after.answers - before.answers);
    assert!(news.is_err(), "nobody came or went: {news:?}");
    assert_eq!(after.publications, before.publications, "and so nothing was published");
    assert!(after.surveys > before.surveys + 4);
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_join_at_once_are_told_in_a_few_lists() {
    let server = server().await;
    let onlooker = Subscriber::connect(server.pubsub_urls()).unwrap();
    let mut changes = onlooker.changes();
    until(&mut changes, &[]).await;
    let before = server.stats();
    let started = Instant::now();
    let clients: Vec<Client> = (0..300)
        .map(|n| Client::connect(server.survey_urls(), format!("client-{n:03}"), eager()).unwrap())
        .collect();
    let names = soon("all of them", changes.wait_for(|names| names.len() == 300)).await.unwrap();
    println!("300 joined in {:?}", started.elapsed());
    assert!(names.is_sorted());
    let publications = server.stats().publications - before.publications;
    println!("{publications} publications, {} surveys", server.stats().surveys - before.surveys);
    assert!(publications < 100, "{publications}");
    drop(clients);
    until(&mut changes, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_names_are_published_and_more_than_allowed_are_refused() {
    let options = quick().answers_per_connection(6000).max_peers(5000);
    let server = Server::bind(ANY, ANY, options).await.unwrap();
    let onlooker = Subscriber::connect_with(server.pubsub_urls(), eager()).unwrap();
    let few = Subscriber::connect_with(server.pubsub_urls(), eager().max_peers(4999)).unwrap();
    let mut refusing = few.changes();
    // As a device answers, behind which there are many.
    let mut device = RawRespondent::connect(&server.survey_urls()[0]).await;
    let names: Vec<String> = (0..6000).map(|n| format!("name-{n:04}")).collect();
    let answering = tokio::spawn(async move {
        loop {
            let survey = device.survey().await;
            device.answer(survey, &names).await;
        }
    });
    let started = Instant::now();
    let names = soon("5,000 names", onlooker.changes().wait_for(|names| names.len() == 5000)).await.unwrap();
    println!("5,000 names were told after {:?}; {:?}", started.elapsed(), server.stats());
    assert!(names.is_sorted());
    assert!(server.stats().too_many > 0);
    let refused = soon("the refusal", async {
        loop {
            if let Err(error) = refusing.next().await.unwrap() {
                break error;
            }
        }
    });
    let refused = refused.await;
    let wanted = PublicationFault::TooManyNames;
    assert!(matches!(&refused, Error::BadPublication { fault, .. } if *fault == wanted), "{refused:?}");
    assert!(few.stats().too_many_names > 0);
    answering.abort();
    soon("nobody", onlooker.changes().wait_for(<[String]>::is_empty)).await.unwrap();
}

#[tokio::test]
async fn fifty_servers_and_clients_that_were_cancelled_leave_no_task_no_file_and_no_port() {
    let server = server().await;
    let (survey, pubsub) = (server.survey_urls()[0].clone(), server.pubsub_urls()[0].clone());
    server.cancel().await;
    let (tasks_before, files_before) = (tasks(), open_files());
    let started = Instant::now();
    for round in 0..50 {
        // The same two ports each time.
        let server = Server::bind(&survey, &pubsub, quick().settle(Duration::ZERO)).await.unwrap();
        let client = client(&server, "client");
        until(&mut client.peers().unwrap(), &["client"]).await;
        if round % 2 == 0 {
            client.cancel().await;
            server.cancel().await;
        } else {
            server.cancel().await;
            client.cancel().await;
        }
    }
    println!("50 rounds in {:?}", started.elapsed());
    assert_eq!(tasks(), tasks_before);
    assert_eq!(open_files(), files_before);
    // And without being cancelled: a moment later.
    for _ in 0..50 {
        let server = eventually(LONG, "the ports", async || {
            Server::bind(&survey, &pubsub, quick().settle(Duration::ZERO)).await.ok()
        });
        let server = server.await;
        let client = client(&server, "client");
        until(&mut client.peers().unwrap(), &["client"]).await;
    }
    eventually(LONG, "the tasks to end", async || {
        (tasks() == tasks_before && open_files() == files_before).then_some(())
    })
    .await;
}

/// Each comes and goes several times, all at the same time; then all stay. Everybody sees the same.
async fn crowd(world: World) {
    const PEERS: usize = 16;
    let world = Arc::new(world);
    let onlooker = world.onlooker().await;
    let mut changes = onlooker.changes();
    let joining: Vec<_> = (0..PEERS)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for _ in 0..4 {
                    let peer = world.join(&format!("peer-{n:02}")).await;
                    soon(
                        "itself",
                        peer.peers().unwrap().wait_for(|names| names.iter().any(|name| name == peer.name())),
                    )
                    .await
                    .unwrap();
                    peer.cancel().await.unwrap();
                }
                world.join(&format!("peer-{n:02}")).await
            })
        })
        .collect();
    let mut peers = Vec::new();
    for joined in joining {
        peers.push(joined.await.unwrap());
    }
    let expected: Vec<String> = (0..PEERS).map(|n| format!("peer-{n:02}")).collect();
    for peer in &peers {
        soon("everybody", peer.peers().unwrap().wait_for(|names| names == expected)).await.unwrap();
    }
    // Whoever looked on all the while has heard of nobody else.
    let known: BTreeSet<String> = expected.iter().cloned().collect();
    loop {
        let names = next(&mut changes).await;
        assert!(names.is_sorted() && names.iter().all(|name| known.contains(name)), "{names:?}");
        if names == expected {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_and_goes_by_survey_agrees_in_the_end() {
    crowd(World::survey().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_crowd_that_comes_and_goes_on_etcd_agrees_in_the_end() {
    crowd(World::etcd("crowd").await).await;
}
