//! The registry and the directory that tests of a user's code can have instead of etcd.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use sereno_discovery::core::pace;
use sereno_discovery::{
    Balancer, BalancerOptions, Change, ChangeStream, Directory, Error, FakeDirectory, FakeRegistry,
    FakeWorld, Host, Registry, ServiceDirectory, ServiceRegistration, ServiceRegistry, Strategy,
};

/// Code under test, as a user writes it: it knows the traits alone.
async fn address(directory: &dyn ServiceDirectory) -> Result<String, Error> {
    directory.one("api", "").await?.url("http", "/")
}

fn host(name: &str) -> Host {
    Host::new(name).port("http", 80)
}

fn public(name: &str, password: &str) -> Host {
    host(name).public(true).private_hostname(format!("private-{name}")).user("svc").password(password)
}

async fn next(changes: &mut ChangeStream) -> Option<Result<Change, Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *changes).poll_next(cx)).await
}

/// Everything that can be told without waiting, in short.
async fn told(changes: &mut ChangeStream) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let change = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *changes).poll_next(cx))).await;
        told.push(match change {
            Poll::Pending => return told,
            Poll::Ready(None) => "end".into(),
            Poll::Ready(Some(Err(error))) => error.to_string(),
            Poll::Ready(Some(Ok(Change::Snapshot(hosts)))) => format!("{} there", hosts.len()),
            Poll::Ready(Some(Ok(Change::Added(host)))) => format!("+{host}"),
            Poll::Ready(Some(Ok(Change::Updated { new, .. }))) if new.draining => format!("{new} drains"),
            Poll::Ready(Some(Ok(Change::Updated { new, .. }))) => format!("={new}"),
            Poll::Ready(Some(Ok(Change::Removed(host)))) => format!("-{host}"),
            Poll::Ready(Some(Ok(Change::ServiceChanged(service)))) => {
                format!("service {}", service.hostname)
            }
            Poll::Ready(Some(Ok(other))) => format!("{other:?}"),
        });
        if told.last().is_some_and(|last| last == "end") {
            return told;
        }
    }
}

fn picked(balancer: &Balancer) -> BTreeSet<String> {
    (0..200).map(|_| balancer.pick().unwrap().hostname.clone()).collect()
}

/// Stops compiling when one of them does not serve any more.
const fn serves<R: ServiceRegistry + 'static, D: ServiceDirectory + 'static>() {}
const _: () = serves::<Registry, Directory>();
const _: () = serves::<FakeRegistry, FakeDirectory>();

#[tokio::test]
async fn a_user_can_hold_either_as_an_object() {
    let world = FakeWorld::new();
    let registry: Arc<dyn ServiceRegistry> = Arc::new(world.registry());
    let directory: Arc<dyn ServiceDirectory> = Arc::new(world.directory());
    let registration = registry.register("api", host("a")).unwrap();
    let there = tokio::spawn(async move { address(&*directory).await });
    assert_eq!(there.await.unwrap().unwrap(), "http://a:80/");
    drop(registration);
}

#[tokio::test]
async fn what_is_registered_is_found_until_it_is_stopped() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    assert!(matches!(address(&directory).await, Err(Error::NoServiceFound { .. })));

    let first = registry.register("api", host("a")).unwrap();
    let second = registry.register("api", host("b").shard("s")).unwrap();
    first.ready().await.unwrap();
    assert!(first.is_ready() && first.uuid().ends_with("-a") && first.service() == "api");
    assert_eq!(directory.all("api", "").await.unwrap().len(), 2);
    assert_eq!(directory.first("api", "").await.unwrap().hostname, "a");
    assert_eq!(*directory.one("api", "s").await.unwrap(), second.host());
    assert_eq!(directory.url("api", "s", "", "/x").await.unwrap(), "http://b:80/x");
    assert!(matches!(directory.all("api", "none").await, Err(Error::NoHostFoundOnShard { .. })));
    assert_eq!(directory.get("api").await.unwrap().name, "api");

    first.stop().await.unwrap();
    first.stop().await.unwrap();
    assert!(matches!(first.ready().await, Err(Error::Deregistered)) && !first.is_ready());
    assert!(matches!(first.update(host("c")).await, Err(Error::Deregistered)));
    drop(second);
    assert!(matches!(address(&directory).await, Err(Error::NoHostFound { .. })));
}

#[tokio::test]
async fn bad_input_is_refused_as_by_the_real_ones() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    assert!(matches!(registry.register("api", host("a/b")), Err(Error::InvalidHost { field: "name", .. })));
    assert!(matches!(registry.register("", host("a")), Err(Error::Core(_))));
    assert!(matches!(directory.all("", "").await, Err(Error::Core(_))));
    let registration = registry.register("api", host("a")).unwrap();
    assert!(matches!(registration.update(host("a b")).await, Err(Error::InvalidHost { .. })));
    assert_eq!(registration.host().hostname, "a");
}

#[tokio::test]
async fn changes_are_told_in_order_from_the_snapshot_on() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let early = registry.register("api", host("a")).unwrap();
    let mut changes = directory.watch("api", "").await.unwrap();
    let mut shard = directory.watch("api", "s").await.unwrap();

    let late = registry.register("api", host("b").shard("s")).unwrap();
    late.update(host("b").shard("other")).await.unwrap();
    late.drain().await.unwrap();
    late.resume().await.unwrap();
    early.stop().await.unwrap();
    assert!(world.expire("api", late.uuid()) && !world.expire("api", late.uuid()));
    world.resync("api");
    assert_eq!(
        told(&mut changes).await,
        ["1 there", "+b", "=b", "b drains", "=b", "a drains", "-a", "-b", "Resync"]
    );
    assert_eq!(told(&mut shard).await, ["0 there", "+b", "-b", "Resync"]);

    late.update(host("b")).await.unwrap();
    assert_eq!(told(&mut changes).await, ["+b"]);
    world.clear();
    assert_eq!(told(&mut changes).await, ["-b"]);
    assert!(matches!(address(&directory).await, Err(Error::NoServiceFound { .. })));

    world.end_streams("api", &Error::NotReady);
    assert!(matches!(next(&mut changes).await, Some(Err(Error::NotReady))));
    assert!(next(&mut changes).await.is_none());
}

#[tokio::test]
async fn a_stream_that_was_not_read_tells_the_difference() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let mut changes = directory.watch("api", "").await.unwrap();
    let gone = registry.register("api", host("gone")).unwrap();
    let kept = registry.register("api", host("kept")).unwrap();
    assert_eq!(told(&mut changes).await, ["0 there", "service ", "+gone", "+kept"]);
    for n in 0..2_000_u16 {
        kept.update(Host::new("kept").port("http", n + 1)).await.unwrap();
    }
    drop(gone);
    let told = told(&mut changes).await;
    assert_eq!(told[0], "Resync");
    assert_eq!(told[1..].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&"=kept".into(), &"-gone".into()]));
}

#[tokio::test]
async fn public_hosts_share_the_credentials_of_the_last_one() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let first = registry.register("api", public("a", "one")).unwrap();
    let mut changes = directory.watch("api", "").await.unwrap();
    assert_eq!(first.credentials().unwrap().password.expose(), "one");
    let second = registry.register("api", public("b", "two")).unwrap();
    assert_eq!(first.credentials().unwrap().password.expose(), "two");
    assert_eq!(second.credentials().unwrap().password.expose(), "two");
    assert_eq!(told(&mut changes).await, ["1 there", "service b", "=private-a", "+private-b"]);
    assert_eq!(directory.url("api", "", "", "/").await.unwrap(), "http://svc:two@b:80/");
    let private = registry.register("api", host("p").user("own").password("own")).unwrap();
    assert_eq!(private.credentials().unwrap().user, "");
    assert_eq!(second.credentials().unwrap().password.expose(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_world_can_be_told_to_fail_and_to_be_slow() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let registration = registry.register("api", host("a")).unwrap();
    world.fail_next(Error::NotReady);
    world.fail_next(Error::Stale { service: "api".into(), age: Duration::from_secs(9) });
    assert!(matches!(address(&directory).await, Err(Error::NotReady)));
    assert!(matches!(address(&directory).await, Err(Error::Stale { .. })));
    assert_eq!(address(&directory).await.unwrap(), "http://a:80/");
    world.fail_next(Error::NotReady);
    assert!(matches!(registry.register("api", host("b")), Err(Error::NotReady)));
    world.fail_next(Error::NotReady);
    assert!(matches!(registration.ready().await, Err(Error::NotReady)));
    world.fail_next(Error::NotReady);
    assert!(matches!(registration.credentials(), Err(Error::NotReady)));
    world.fail_next(Error::NotReady);
    assert!(directory.watch("api", "").await.is_err());
    assert_eq!(directory.all("api", "").await.unwrap().len(), 1);

    world.set_delay(Duration::from_secs(30));
    let start = pace::now();
    address(&directory).await.unwrap();
    registration.stop().await.unwrap();
    assert!(pace::now() - start >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_closed_registry_has_stopped_everything_of_its_own() {
    let world = FakeWorld::new();
    let (registry, other) = (world.registry(), world.registry());
    let mine = registry.register("api", host("a")).unwrap();
    let kept = other.register("api", host("b")).unwrap();
    registry.close().await.unwrap();
    registry.close().await.unwrap();
    let error = registry.register("api", host("c")).unwrap_err();
    assert!(error.is_session_lost());
    assert!(!mine.is_ready() && kept.is_ready());
    assert_eq!(world.directory().all("api", "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_balancer_follows_who_comes_drains_and_goes() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let options = BalancerOptions::default().strategy(Strategy::RoundRobin);
    let balancer = directory.balancer("api", options.clone()).await.unwrap();
    assert!(matches!(balancer.pick(), Err(Error::NoServiceFound { .. })));
    let a = registry.register("api", host("a")).unwrap();
    assert_eq!(picked(&balancer), ["a".into()].into());
    let b = registry.register("api", host("b").shard("s")).unwrap();
    assert_eq!(picked(&balancer), ["a".into(), "b".into()].into());
    let shard = directory.balancer("api", options.shard("s")).await.unwrap();
    assert_eq!(picked(&shard), ["b".into()].into());
    b.drain().await.unwrap();
    assert_eq!(picked(&balancer), ["a".into()].into());
    assert!(matches!(shard.pick(), Err(Error::NoHostFoundOnShard { .. })));
    b.resume().await.unwrap();
    a.stop().await.unwrap();
    assert_eq!(picked(&balancer), ["b".into()].into());
    assert_eq!(picked(&shard), ["b".into()].into());
    drop(b);
    assert!(matches!(balancer.pick(), Err(Error::NoHostFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_what_was_reported_and_a_new_registration_does_not() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let kept: Vec<_> = ["a", "b", "c"].map(|name| registry.register("api", host(name)).unwrap()).into();
    let options = BalancerOptions::default().strategy(Strategy::RoundRobin);
    let balancer = directory.balancer("api", options).await.unwrap();
    let held = (0..3).map(|_| balancer.pick().unwrap()).find(|picked| picked.hostname == "b").unwrap();
    for _ in 0..6 {
        let picked = balancer.pick().unwrap();
        if picked.hostname == "b" { picked.failed() } else { picked.succeeded() }
    }
    let (a_and_c, all) = (BTreeSet::from(["a".into(), "c".into()]), ["a", "b", "c"].map(String::from).into());
    assert_eq!(picked(&balancer), a_and_c);

    kept[1].update(host("b").weight(2.0)).await.unwrap();
    assert_eq!(picked(&balancer), a_and_c);
    let status = balancer.status().unwrap();
    assert!(status[1].in_flight == 1 && status[1].host.weight == 2.0 && status[1].ejected_until.is_some());

    // The same key, created anew, and nothing chosen in between.
    assert!(world.expire("api", kept[1].uuid()));
    kept[1].update(host("b")).await.unwrap();
    assert_eq!(picked(&balancer), all);
    let status = balancer.status().unwrap();
    let b = status.iter().find(|status| status.host.hostname == "b").unwrap();
    assert!(b.in_flight == 0 && b.failures == 0 && b.ejected_until.is_none());
    // What was sent to the one before says nothing of this one.
    held.failed();
    assert!(balancer.status().unwrap().iter().all(|status| status.failures == 0 && status.in_flight == 0));
}

#[tokio::test]
async fn keys_move_only_to_who_comes_and_from_who_goes() {
    let world = FakeWorld::new();
    let (registry, directory) = (world.registry(), world.directory());
    let mut kept: Vec<Box<dyn ServiceRegistration>> =
        (0..9).map(|n| registry.register("api", host(&format!("h{n}"))).unwrap()).collect();
    let balancer = directory.balancer("api", BalancerOptions::default()).await.unwrap();
    let owners = || -> Vec<String> {
        (0..1_000_u32).map(|key| balancer.pick_for(key.to_be_bytes()).unwrap().hostname.clone()).collect()
    };
    let before = owners();
    kept.push(registry.register("api", host("new")).unwrap());
    let after = owners();
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || after == "new"));
    let moved = after.iter().filter(|owner| *owner == "new").count();
    assert!((50..160).contains(&moved), "{moved} of 1000 keys moved to one of ten hosts");
    kept.pop();
    assert_eq!(owners(), before);
}
