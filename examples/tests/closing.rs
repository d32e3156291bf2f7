//! A process that uses every recipe, and ends with etcd gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use sereno_core::{Client, ConnectOptions, Namespace, Session};
use sereno_counter::Counter;
use sereno_discovery::{Host, Registry, RegistryOptions};
use sereno_id::IdGenerator;
use sereno_keepalive::KeepAlive;
use sereno_pipes::Destination;
use sereno_pubsub::{From, Topic};
use sereno_seq::Sequence;
use sereno_testkit::{Member, fresh_namespace};
use sereno_waitgroup::WaitGroup;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn ending_every_recipe_and_the_session_with_etcd_gone_takes_one_budget() {
    let member = Member::single().await;
    let name = fresh_namespace("closing");
    let options = ConnectOptions::default().namespace(Namespace::new(&name).unwrap());
    let budget = options.deadline;
    let client = Client::connect_with([member.endpoint()], options).await.unwrap();
    let session = Session::open(&client).await.unwrap();

    let counter = Counter::new(&session, "n");
    counter.add(1).await.unwrap();
    let worker = WaitGroup::new(&session, "g").enter("w").await.unwrap();
    let topic = Topic::new(&session, "t");
    let mut reading = topic.subscribe(From::cursor("c")).await.unwrap();
    let position = topic.publish("m").await.unwrap();
    reading.next_message().await.unwrap().unwrap();
    let announced = KeepAlive::new(&session, "nodes", "me").announce("v").await.unwrap();
    let ids = IdGenerator::open(&session).await.unwrap();
    let place = Sequence::new(&session, "workers").join().await.unwrap();
    let registry =
        Registry::with_options(&session, RegistryOptions::default().root(format!("{name}-discovery")));
    let host = registry.register("api", Host::new("10.0.0.1").port("http", 80)).unwrap();
    host.ready().await.unwrap();
    let destination = Destination::new(&session, "jobs").register().await.unwrap();

    member.kill().await;
    let begun = Instant::now();
    let mut refused = 0;
    let mut end = |what: &str, ended: Result<(), String>| {
        println!("{:?}: {what}: {ended:?}", begun.elapsed());
        refused += u32::from(ended.is_err());
    };
    fn text<E: std::fmt::Display>(error: E) -> String {
        error.to_string()
    }
    end("host", host.stop().await.map_err(text));
    end("node", announced.leave().await.map(drop).map_err(text));
    end("ids", ids.close().await.map_err(text));
    end("position", place.leave().await.map_err(text));
    end("destination", destination.unregister().await.map_err(text));
    end("session", session.close().await.map_err(text));
    let took = begun.elapsed();
    drop((worker, counter, reading, position));
    assert_eq!(refused, 6, "none of them can say that it is done");
    // A tenth for each handle after the first; one budget for each would be six.
    assert!(took < 3 * budget, "{took:?} of a budget of {budget:?}");
}
