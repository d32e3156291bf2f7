//! Hosts in a balancer of tower's.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use sereno_discovery::{
    Error, FakeWorld, Host, HostDiscover, HostKey, ServiceDirectory, ServiceRegistration, ServiceRegistry,
};
use tower::balance::p2c::Balance;
use tower::discover::{Change, Discover};
use tower::load::Constant;
use tower::{Service, ServiceExt, service_fn};

async fn discover(
    world: &FakeWorld,
) -> impl Discover<Key = HostKey, Service = String, Error = Error> + Unpin {
    let changes = world.directory().watch("api", "").await.unwrap();
    HostDiscover::new(changes, |host: &Host| format!("{}:{}", host.hostname, host.ports["http"]))
}

fn register(world: &FakeWorld, name: &str) -> Box<dyn ServiceRegistration> {
    world.registry().register("api", Host::new(name).port("http", 80)).unwrap()
}

/// What there is to be told, applied to what is there already.
fn follow<D>(discover: &mut D, there: &mut BTreeMap<HostKey, String>) -> Vec<&'static str>
where
    D: Discover<Key = HostKey, Service = String, Error = Error> + Unpin,
{
    let mut told = Vec::new();
    while let Poll::Ready(change) =
        Pin::new(&mut *discover).poll_discover(&mut Context::from_waker(Waker::noop()))
    {
        match change.expect("goes on").unwrap() {
            Change::Insert(key, service) => {
                assert!(there.insert(key, service).is_none());
                told.push("insert");
            }
            Change::Remove(key) => {
                assert!(there.remove(&key).is_some());
                told.push("remove");
            }
        }
    }
    told
}

#[tokio::test]
async fn hosts_are_inserted_and_removed_as_they_come_drain_move_and_go() {
    let world = FakeWorld::new();
    let first = register(&world, "a");
    let (mut discover, mut there) = (discover(&world).await, BTreeMap::new());
    assert_eq!(follow(&mut discover, &mut there), ["insert"]);
    assert!(there.keys().next().is_some_and(|key| key.uuid() == first.uuid()));

    let second = register(&world, "b");
    assert_eq!(follow(&mut discover, &mut there), ["insert"]);
    first.drain().await.unwrap();
    assert_eq!(follow(&mut discover, &mut there), ["remove"]);
    assert_eq!(there.values().collect::<Vec<_>>(), ["b:80"]);
    first.resume().await.unwrap();
    assert_eq!(follow(&mut discover, &mut there), ["insert"]);

    second.update(Host::new("b").port("http", 81)).await.unwrap();
    assert_eq!(follow(&mut discover, &mut there), ["remove", "insert"]);
    second.update(Host::new("b").port("http", 81).critical(true).weight(3.0)).await.unwrap();
    assert!(follow(&mut discover, &mut there).is_empty());
    assert_eq!(there.values().collect::<BTreeSet<_>>(), BTreeSet::from([&"a:80".into(), &"b:81".into()]));

    drop((first, second));
    assert_eq!(follow(&mut discover, &mut there), ["remove", "remove"]);
    assert!(there.is_empty());
}

#[tokio::test]
async fn it_ends_with_the_error_of_its_stream() {
    let world = FakeWorld::new();
    let mut discover = discover(&world).await;
    world.end_streams("api", &Error::NotReady);
    let mut next = || Pin::new(&mut discover).poll_discover(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(next(), Poll::Ready(Some(Err(Error::NotReady)))));
    assert!(matches!(next(), Poll::Ready(None)));
}

#[tokio::test]
async fn a_balancer_of_towers_sends_requests_to_whom_there_is() {
    let world = FakeWorld::new();
    let changes = world.directory().watch("api", "").await.unwrap();
    let mut balance = Balance::new(HostDiscover::new(changes, |host: &Host| {
        let name = host.hostname.clone();
        Constant::new(service_fn(move |()| std::future::ready(Ok::<_, io::Error>(name.clone()))), 0)
    }));
    // Nobody is there: it waits.
    let ready = |balance: &mut Balance<_, ()>| balance.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(ready(&mut balance).is_pending());

    let mut answers = BTreeSet::new();
    let (first, second) = (register(&world, "a"), register(&world, "b"));
    for _ in 0..100 {
        answers.insert(balance.ready().await.unwrap().call(()).await.unwrap());
    }
    assert_eq!(answers, ["a".into(), "b".into()].into());
    first.drain().await.unwrap();
    for _ in 0..100 {
        assert_eq!(balance.ready().await.unwrap().call(()).await.unwrap(), "b");
    }
    drop(second);
    assert!(ready(&mut balance).is_pending());
}
