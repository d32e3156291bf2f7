//! What breaks underneath, and what becomes of a registration then.

use std::time::{Duration, Instant};

use crate::common_register::{LONG, Place, impatient, private, public, registered, session, stands};
use sereno_discovery::core::{Client, ConnectOptions};
use sereno_discovery::{Error, Registration, RegistrationState, Registry, RegistryOptions};
use sereno_testkit::{ChildHost, Member, Proxy, child, eventually};

/// The default time to live: a host is back within it.
const TTL: Duration = Duration::from_secs(5);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

async fn there(place: &Place, registration: &Registration) -> Duration {
    let started = Instant::now();
    eventually(LONG, "the host to be there", async || place.stored(registration).await).await;
    started.elapsed()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_host_whose_lease_was_revoked_is_back_within_its_time_to_live_as_it_shall_be_now() {
    let place = Place::shared("revoked").await;
    let registry = Registry::open(&place.client().await, place.options());
    let registration = registered(&registry, "api", public("h", "old")).await;
    registration.modify(|host| host.password("new")).await.unwrap();
    registration.drain().await.unwrap();
    for round in 1..=3 {
        assert!(place.oracle.revoke(place.lease(&place.host_key(&registration)).await).await);
        let took = there(&place, &registration).await;
        println!("lease revoked: back after {took:?}");
        assert!(took < TTL + SLACK, "{took:?}");
        stands(&registration, RegistrationState::Kept).await;
        let stored = place.stored(&registration).await.unwrap();
        assert_eq!((&stored["password"], &stored["draining"]), (&"new".into(), &true.into()));
        let status = registration.status();
        assert_eq!((status.epoch, status.restored), (round + 1, round));
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_host_deleted_underneath_is_back_at_once() {
    let place = Place::shared("deleted").await;
    let registry = place.registry().await;
    let mut registration = registered(&registry, "api", private("h")).await;
    let mut took = Vec::new();
    for round in 1..=20 {
        assert!(place.oracle.delete(place.host_key(&registration)).await);
        took.push(there(&place, &registration).await);
        eventually(LONG, "the news", async || {
            let status = registration.status();
            (status.restored == round && status.state == RegistrationState::Kept).then_some(())
        })
        .await;
    }
    took.sort_unstable();
    println!("deleted underneath: back after {:?} (median), {:?} (slowest of 20)", took[10], took[19]);
    assert!(took[10] < TTL / 2 && took[19] < TTL + SLACK, "{took:?}");
    assert_eq!(registration.changed().await.unwrap().epoch, 1, "the session had nothing to do with it");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_host_is_back_after_a_long_outage_as_it_was_made_meanwhile() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let registry = Registry::open(&impatient(&place.endpoint), place.options().ttl(Duration::from_secs(1)));
    let plain = registered(&registry, "api", private("h-1")).await;
    let shared = registered(&registry, "db", public("h-2", "old")).await;
    member.kill().await;
    let killed = Instant::now();
    let refused = plain.drain().await.unwrap_err();
    assert!(matches!(refused, Error::NotYet { .. }) && refused.is_retryable(), "{refused:?}");
    let within = killed.elapsed();
    assert!(within < Duration::from_secs(2) + SLACK, "{within:?}");
    let (one, two) =
        tokio::join!(shared.modify(|host| host.password("new")), plain.modify(|host| host.weight(2.0)));
    assert!(matches!((one, two), (Err(Error::NotYet { .. }), Err(Error::NotYet { .. }))));
    // Three times its time to live at least.
    stands(&plain, RegistrationState::Missing).await;
    tokio::time::sleep(Duration::from_secs(3).saturating_sub(killed.elapsed())).await;
    member.start().await;
    let started = Instant::now();
    let stored = eventually(LONG, "the host to be kept again", async || {
        (plain.status().state == RegistrationState::Kept).then_some(place.stored(&plain).await)?
    })
    .await;
    println!("etcd away for {:?}: back {:?} after it was", started - killed, started.elapsed());
    assert!(started.elapsed() < TTL + SLACK, "{:?}", started.elapsed());
    assert_eq!((&stored["draining"], &stored["weight"]), (&true.into(), &2.0.into()));
    let stored = eventually(LONG, "the credentials ordered meanwhile", async || {
        place.stored(&shared).await.filter(|stored| stored["password"] == "new")
    });
    stored.await;
    // A host that was missing comes back at once as it shall be, and the record after it.
    let recorded = eventually(LONG, "the record of them", async || {
        place.record("db").await.filter(|record| record["password"] == "new")
    });
    recorded.await;
    let restored = plain.status();
    assert!(restored.restored >= 1 && restored.epoch >= 2, "{restored:?}");
    // Stopped works as ever.
    plain.stop().await.unwrap();
    assert_eq!(place.stored(&plain).await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_process_that_was_stopped_for_long_is_registered_again_within_its_time_to_live() {
    let place = Place::shared("stopped").await;
    let mut process = ChildHost::new("register::child_entry", "host")
        .argument(&place.endpoint)
        .argument(&place.root)
        .spawn();
    let key = format!("{}/services/api/{}", place.root, process.wait_for("registered", LONG).await);
    let is_there = async || place.oracle.get(key.clone()).await.map(|_| ());
    eventually(LONG, "the host", is_there).await;
    process.pause();
    let paused = Instant::now();
    eventually(LONG, "the lease to run out", async || is_there().await.is_none().then_some(())).await;
    println!("a stopped process's host was gone after {:?}", paused.elapsed());
    // Twice its time to live of 2 s.
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(paused.elapsed())).await;
    let resumed = Instant::now();
    process.resume();
    eventually(LONG, "the host to be back", is_there).await;
    println!("resumed: back after {:?}", resumed.elapsed());
    assert!(resumed.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", resumed.elapsed());
    assert_eq!(process.wait_for("Kept", LONG).await, "under epoch 2, restored 1");
}

/// The entry of child processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("host") {
        return; // Run by hand.
    }
    let client = Client::connect([child::argument(0)]).await.unwrap();
    let options = RegistryOptions::default().root(child::argument(1)).ttl(Duration::from_secs(2));
    let mut registration = registered(&Registry::open(&client, options), "api", private("child")).await;
    let mut last = registration.status().epoch;
    child::say(&format!("registered {}", registration.uuid()));
    while let Some(status) = registration.changed().await {
        if status.state == RegistrationState::Kept && status.epoch > last {
            last = status.epoch;
            child::say(&format!("Kept under epoch {}, restored {}", status.epoch, status.restored));
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_service_starts_before_etcd_does_and_is_registered_as_soon_as_it_is_there() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let proxy = Proxy::to(member.endpoint()).await;
    member.kill().await;
    let registry = Registry::open(&impatient(&proxy.endpoint()), place.options());
    let started = Instant::now();
    let one = registry.register("api", public("h-1", "secret")).unwrap();
    let two = registry.register("db", private("h-2")).unwrap();
    let gone = registry.register("api", private("h-3")).unwrap();
    assert!(started.elapsed() < SLACK, "at once");
    assert!(one.uuid().ends_with("-h-1"));
    assert!(matches!(one.credentials(), Err(Error::NotReady)));
    assert!(matches!(one.ready_within(Duration::from_secs(3)).await, Err(Error::NotReady)));
    let refused = two.drain().await.unwrap_err();
    assert!(matches!(refused, Error::NotYet { .. }), "{refused:?}");
    let stopping = Instant::now();
    gone.stop().await.unwrap();
    assert!(stopping.elapsed() < SLACK, "{:?}", stopping.elapsed());
    let dialled = proxy.stats().connections;
    println!("{dialled} connections in {:?} without etcd", started.elapsed());
    assert!(dialled < 20 * (1 + started.elapsed().as_secs()), "{dialled}: a tight loop");
    member.start().await;
    let appeared = Instant::now();
    for registration in [&one, &two] {
        tokio::time::timeout(LONG, registration.ready()).await.unwrap().unwrap();
    }
    println!("etcd appeared: registered after {:?}", appeared.elapsed());
    assert!(appeared.elapsed() < TTL + SLACK, "{:?}", appeared.elapsed());
    assert_eq!(one.credentials().unwrap().password.expose(), "secret");
    assert_eq!(place.in_step(&two).await["draining"], true, "what was ordered before counts");
    assert_eq!(place.hosts().await, 2, "who was stopped before was never there");
    // A lease whose grant was not answered in time is nobody's, and runs out.
    let single = async || (place.oracle.leases().await.len() == 1).then_some(());
    eventually(LONG, "one lease for both", single).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_registration_that_cannot_be_made_in_time_is_given_up_for_good_and_leaves_no_task() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let within = Duration::from_secs(3);
    let options = place.options().start_within(within);
    // A session from better days; and one that was never opened.
    let session = session(&impatient(&place.endpoint), 2).await;
    let opened = Registry::with_options(&session, options.clone());
    member.kill().await;
    let never = Registry::open(&impatient(&place.endpoint), options);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for registry in [opened, never] {
        let started = Instant::now();
        let mut registration = registry.register("api", private("h")).unwrap();
        let failed = tokio::time::timeout(LONG, registration.ready()).await.unwrap().unwrap_err();
        println!("{failed}: {:?} after {:?}", std::error::Error::source(&failed), started.elapsed());
        assert!(
            matches!(failed, Error::StartUp { within: told, cause: Some(_) } if told == within),
            "{failed:?}"
        );
        assert!(!failed.is_retryable());
        assert!(started.elapsed() >= within && started.elapsed() < within + SLACK);
        assert_eq!(registration.status().state, RegistrationState::Failed);
        assert!(matches!(registration.credentials(), Err(Error::StartUp { .. })));
        assert!(matches!(registration.drain().await, Err(Error::StartUp { .. })));
        let mut changes = registration.changes();
        assert!(matches!(changes.next().await, Some(Err(Error::StartUp { .. }))));
        assert!(changes.next().await.is_none());
        assert_eq!(registration.changed().await.unwrap().state, RegistrationState::Failed);
        assert_eq!(registration.changed().await, None);
        registration.stop().await.unwrap();
    }
    // Until the lease it might be on has run out.
    eventually(LONG, "every task to have ended", async || (tasks() <= before).then_some(())).await;
    member.start().await;
    assert_eq!(place.hosts().await, 0);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_deadline_for_the_start_is_none_for_the_life() {
    let place = Place::shared("lifetime").await;
    let options = place.options().start_within(Duration::from_secs(2)).ttl(Duration::from_secs(10));
    let registry = Registry::open(&place.client().await, options);
    let registration = registered(&registry, "api", private("h")).await;
    // Twice the deadline of the start, which must have no effect.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(registration.is_ready());
    assert!(place.stored(&registration).await.is_some());
    registration.drain().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_host_that_never_became_ready_leaves_nothing_when_etcd_comes() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let session = session(&impatient(&place.endpoint), 15).await;
    let registry = place.registry_on(&session);
    member.pause().await;
    let dropped = registry.register("api", private("h-1")).unwrap();
    let stopped = registry.register("api", private("h-2")).unwrap();
    // Both have begun.
    assert!(matches!(dropped.ready_within(Duration::from_millis(300)).await, Err(Error::NotReady)));
    drop(dropped);
    let started = Instant::now();
    stopped.stop().await.unwrap();
    println!("stopped before it was ready in {:?}", started.elapsed());
    assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
    member.resume().await;
    // The session lives on: they must be taken away, and do not go by themselves.
    let last = registered(&registry, "api", private("h-3")).await;
    eventually(LONG, "the others to be gone", async || (place.hosts().await == 1).then_some(())).await;
    assert!(place.stored(&last).await.is_some());
    assert_eq!(session.epoch().number(), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn stopping_with_etcd_gone_is_bounded_and_the_host_is_deleted_when_it_is_back() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let session = session(&impatient(&place.endpoint), 30).await;
    let registry = place.registry_on(&session);
    let stopped = registered(&registry, "api", private("h-1")).await;
    let dropped = registered(&registry, "api", private("h-2")).await;
    let stays = registered(&registry, "api", private("h-3")).await;
    member.kill().await;
    drop(dropped);
    let started = Instant::now();
    let refused = stopped.stop().await.unwrap_err();
    println!("stop with etcd gone: {refused} after {:?}", started.elapsed());
    assert!(matches!(refused, Error::NotYet { .. }), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
    assert!(matches!(stopped.stop().await, Err(Error::NotYet { .. })), "the same answer again");
    // Longer than any one call is tried.
    tokio::time::sleep(Duration::from_secs(8)).await;
    member.start().await;
    // Its lease lives on, with the session.
    eventually(LONG, "both to be deleted", async || (place.hosts().await == 1).then_some(())).await;
    assert!(place.stored(&stays).await.is_some());
    assert_eq!(session.epoch().number(), 1);
    member.kill().await;
    let started = Instant::now();
    assert!(session.close().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
    stands(&stays, RegistrationState::Stopped).await;
    stays.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_host_that_somebody_else_wrote_over_is_taken_back_and_not_in_a_tight_loop() {
    let place = Place::shared("foreign").await;
    let registry = place.registry().await;
    let registration = registered(&registry, "api", private("h")).await;
    let key = place.host_key(&registration);
    for round in 1..=2 {
        // By hand, say: without a lease, so that it would stay for ever.
        let written = place.oracle.put(key.clone(), r#"{"name":"other","ports":null}"#).await;
        eventually(LONG, "the host to be taken back", async || {
            let status = registration.status();
            (status.restored == round && status.state == RegistrationState::Kept).then_some(())
        })
        .await;
        assert!(place.lease(&key).await != 0 && place.writes(&key).await.1 > written);
        assert_eq!(place.in_step(&registration).await["name"], "h");
    }
    registration.drain().await.unwrap();
    assert_eq!(place.in_step(&registration).await["draining"], true);
    registration.stop().await.unwrap();
    assert_eq!(place.stored(&registration).await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn an_etcd_that_stands_still_for_half_the_time_to_live_costs_no_host() {
    let member = Member::single().await;
    let place = Place::on(&member).await;
    let options = ConnectOptions::default().deadline(Duration::from_secs(1));
    let client = Client::connect_with([&place.endpoint], options).await.unwrap();
    let registry = Registry::open(&client, place.options().ttl(Duration::from_secs(10)));
    let registration = registered(&registry, "api", private("h")).await;
    let created = place.writes(&place.host_key(&registration)).await;
    member.pause().await;
    // The outage itself: half of the time to live.
    tokio::time::sleep(Duration::from_secs(5)).await;
    member.resume().await;
    // Whoever took the host for gone would have put it back by the end of the time to live.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(place.writes(&place.host_key(&registration)).await, created, "never away, never rewritten");
    assert_eq!(registration.status().restored, 0);
    assert_eq!(registration.status().epoch, 1);
}
