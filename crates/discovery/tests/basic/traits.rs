//! One story through the traits, told of the fakes and of the real ones.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_core::Stream;
use sereno_discovery::core::{Client, ConnectOptions};
use sereno_discovery::{
    Balancer, BalancerOptions, Change, ChangeStream, Directory, DirectoryOptions, Error, FakeWorld, Host,
    HostDiscover, Registry, RegistryOptions, ServiceDirectory, ServiceRegistry, Strategy,
};
use sereno_testkit::{eventually, fresh_namespace, shared};
use tower::discover::{Change as Step, Discover};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

async fn real(test: &str) -> (Registry, Directory) {
    let client = Client::connect_with(shared().await, ConnectOptions::default()).await.unwrap();
    let root = format!("/{}", fresh_namespace(test));
    let registry = Registry::open(&client, RegistryOptions::default().root(&root));
    (registry, Directory::with_options(&client, DirectoryOptions::default().root(&root)))
}

/// The next change that is about hosts, in short.
async fn next(changes: &mut ChangeStream) -> String {
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *changes).poll_next(cx));
        match tokio::time::timeout(LONG, next).await.expect("a change in time").expect("goes on").unwrap() {
            Change::Snapshot(hosts) => return format!("{} there", hosts.len()),
            Change::Added(host) => return format!("+{host}"),
            Change::Updated { new, .. } if new.draining => return format!("{new} drains"),
            Change::Updated { new, .. } => return format!("={new}"),
            Change::Removed(host) => return format!("-{host}"),
            _ => {}
        }
    }
}

/// Picks until exactly these are chosen.
async fn chosen(balancer: &Balancer, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    eventually(LONG, "the right hosts to be chosen", async || {
        let picked = (0..20).map(|_| Some(balancer.pick().ok()?.hostname.clone()));
        (picked.collect::<Option<BTreeSet<_>>>()? == expected).then_some(())
    })
    .await;
}

async fn story(registry: &dyn ServiceRegistry, directory: &dyn ServiceDirectory) {
    assert!(matches!(directory.get("api").await, Err(Error::NoServiceFound { .. })));
    let mut changes = directory.watch("api", "").await.unwrap();
    assert_eq!(next(&mut changes).await, "0 there");
    let options = BalancerOptions::default().strategy(Strategy::RoundRobin);
    let balancer = directory.balancer("api", options.clone()).await.unwrap();
    let of_shard = directory.balancer("api", options.shard("s")).await.unwrap();
    assert!(matches!(balancer.pick(), Err(Error::NoServiceFound { .. })));

    let a = registry.register("api", Host::new("a").port("http", 80)).unwrap();
    a.ready().await.unwrap();
    assert!(a.is_ready());
    assert_eq!(next(&mut changes).await, "+a");
    let b = registry.register("api", Host::new("b").port("http", 81).shard("s").user("me").password("pw"));
    let b = b.unwrap();
    b.ready().await.unwrap();
    assert_eq!(next(&mut changes).await, "+b");
    chosen(&balancer, &["a", "b"]).await;
    chosen(&of_shard, &["b"]).await;
    assert_eq!(directory.first("api", "").await.unwrap().uuid, a.uuid());
    assert_eq!(directory.one("api", "s").await.unwrap().uuid, b.uuid());
    assert_eq!(directory.url("api", "s", "", "x").await.unwrap(), "http://me:pw@b:81/x");
    assert_eq!(directory.all("api", "").await.unwrap().len(), 2);
    assert_eq!(b.credentials().unwrap().user, "", "a private host has no part in the service's");

    b.drain().await.unwrap();
    assert_eq!(next(&mut changes).await, "b drains");
    chosen(&balancer, &["a"]).await;
    assert!(matches!(of_shard.pick(), Err(Error::NoHostFoundOnShard { .. })));
    b.resume().await.unwrap();
    assert_eq!(next(&mut changes).await, "=b");
    a.update(Host::new("c").port("http", 80)).await.unwrap();
    assert_eq!(next(&mut changes).await, "=c");
    chosen(&balancer, &["b", "c"]).await;

    b.stop().await.unwrap();
    b.stop().await.unwrap();
    assert!(matches!(b.update(Host::new("d")).await, Err(Error::Deregistered)));
    assert_eq!(next(&mut changes).await, "b drains");
    assert_eq!(next(&mut changes).await, "-b");
    chosen(&balancer, &["c"]).await;
    drop(a);
    assert_eq!(next(&mut changes).await, "c drains");
    assert_eq!(next(&mut changes).await, "-c");
    eventually(LONG, "nobody to be there", async || {
        matches!(directory.one("api", "").await, Err(Error::NoHostFound { .. })).then_some(())
    })
    .await;
    registry.close().await.unwrap();
    assert!(registry.register("api", Host::new("e")).unwrap_err().is_session_lost());
}

#[tokio::test]
async fn the_fakes_tell_the_story() {
    let world = FakeWorld::new();
    story(&world.registry(), &world.directory()).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_real_ones_tell_the_same_story() {
    let (registry, directory) = real("story").await;
    story(&registry, &directory).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn towers_balancers_can_follow_the_real_stream() {
    let (registry, directory) = real("tower").await;
    let view = directory.follow("api").await.unwrap();
    let mut discover = HostDiscover::new(view.watch(), |host: &Host| host.hostname.clone());
    let mut next = async || {
        let step = std::future::poll_fn(|cx| Pin::new(&mut discover).poll_discover(cx));
        match tokio::time::timeout(LONG, step).await.expect("a step in time").expect("goes on").unwrap() {
            Step::Insert(key, name) => (key, Some(name)),
            Step::Remove(key) => (key, None),
        }
    };
    let a = registry.register("api", Host::new("a")).unwrap();
    let (key, name) = next().await;
    assert_eq!((key.uuid(), name.as_deref()), (a.uuid(), Some("a")));
    a.stop().await.unwrap();
    assert_eq!(next().await, (key, None));
    registry.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn choosing_from_a_view_waits_for_nobody() {
    let (registry, directory) = real("cost").await;
    let host = registry.register("api", Host::new("a")).unwrap();
    host.ready().await.unwrap();
    let balancer = Balancer::new(&directory.follow("api").await.unwrap(), BalancerOptions::default());
    chosen(&balancer, &["a"]).await;
    let start = Instant::now();
    for _ in 0..10_000 {
        balancer.pick().unwrap().succeeded();
    }
    let each = start.elapsed() / 10_000;
    println!("choosing from a view: {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
    host.stop().await.unwrap();
    registry.close().await.unwrap();
}
