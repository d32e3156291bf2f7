//! `discovery/visible`, `discovery/lookup` and `discovery/many-hosts`: how soon a host is seen, how long a look into a followed
//! service takes, and what ten thousand hosts cost.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use etcd_client::{Txn, TxnOp};
use serde_json::json;
use sereno_discovery::{
    Balancer, BalancerOptions, Change, Directory, DirectoryOptions, Host, Registry, RegistryOptions,
    Strategy, View,
};
use tokio::time::{Instant, sleep, timeout};

use super::case::{Better, Case, Target};
use super::counting::per_second;
use super::crew::Hand;
use super::hand::{Answer, Order};
use super::link::Link;
use super::plan::Plan;
use super::sample::{median, percentile};

pub(super) const VISIBLE: &str = "discovery/visible";
pub(super) const LOOKUP: &str = "discovery/lookup";
pub(super) const MANY: &str = "discovery/many-hosts";

const LIMIT: Duration = Duration::from_secs(30);
/// Lookups between two looks at the clock.
const LOOKS: u32 = 100_000;
/// Hosts of the lookup bench.
const HOSTS: [usize; 2] = [10, 1000];
/// Hosts of the last one, and how many go into one transaction.
const CROWD: usize = 10_000;
const BATCH: usize = 100;
const CHANGES: usize = 300;

/// From the call until a follower elsewhere has the host, in milliseconds, beside a plain put.
pub(super) async fn visible(plan: &Plan, link: &mut Link) -> anyhow::Result<Vec<Case>> {
    eprintln!("{VISIBLE}: {} rounds", plan.wakes);
    let (root, other) = (root(link), Link::open().await?);
    let registry = Registry::with_options(&link.session, RegistryOptions::default().root(&root));
    let directory = Directory::with_options(other.session.client(), DirectoryOptions::default().root(&root));
    let mut changes = directory.service("visible").watch().await?;
    let Some(Ok(Change::Snapshot(_))) = changes.next().await else { anyhow::bail!("no snapshot") };
    let (mut raw, mut registered, mut updated) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.wakes {
        let key = link.key("put/visible");
        let start = Instant::now();
        link.raw.put(key, "1", None).await?;
        raw.push(millis(start));
        let host = Host::new("10.0.0.1").port("http", 80);
        let start = Instant::now();
        let registration = registry.register("visible", host.clone())?;
        next(&mut changes, |change| matches!(change, Change::Added(_))).await?;
        registered.push(millis(start));
        registration.ready().await?;
        let start = Instant::now();
        let (update, seen) = tokio::join!(
            registration.update(host.weight(2.0)),
            next(&mut changes, |change| matches!(change, Change::Updated { .. }))
        );
        update?;
        seen?;
        updated.push(millis(start));
        registration.stop().await?;
        next(&mut changes, |change| matches!(change, Change::Removed(_))).await?;
        ensure!(round > 0 || !registered.is_empty(), "nothing was measured");
    }
    drop(changes);
    other.close().await?;
    let case = |from: &str, samples: &[f64], percent: usize| {
        let case = [("from", json!(from)), ("percentile", json!(percent))];
        Case {
            better: Better::Lower,
            raw: Some(percentile(&raw, percent)),
            ..Case::rate(VISIBLE, "ms", &case, percentile(samples, percent))
        }
    };
    Ok(vec![
        case("register called", &registered, 50),
        case("register called", &registered, 99),
        case("update called", &updated, 50),
        case("update called", &updated, 99),
    ])
}

type Look<'a> = Box<dyn Fn() -> anyhow::Result<()> + 'a>;

/// Keeps the compiler from leaving out what nobody uses.
fn seen<T>(found: sereno_discovery::Result<T>) -> anyhow::Result<()> {
    drop(black_box(found?));
    Ok(())
}

/// Nanoseconds of one look into a followed service.
pub(super) async fn lookup(plan: &Plan, link: &mut Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for hosts in HOSTS {
        eprintln!("{LOOKUP}: {hosts} hosts");
        let service = format!("lookup-{hosts}");
        fill(link, &service, hosts).await?;
        let view = follow(link, &service).await?;
        ensure!(view.len()? == hosts, "{hosts} hosts were written, {} are seen", view.len()?);
        let balancer = |strategy| Balancer::new(&view, BalancerOptions::default().strategy(strategy));
        let (random, round_robin, least) =
            (balancer(Strategy::Random), balancer(Strategy::RoundRobin), balancer(Strategy::LeastLoaded));
        let looks: [(&str, Look<'_>); 5] = [
            ("first", Box::new(|| seen(view.first()))),
            ("one", Box::new(|| seen(view.one()))),
            ("random pick", Box::new(|| seen(random.pick()))),
            ("round robin pick", Box::new(|| seen(round_robin.pick()))),
            ("least loaded pick", Box::new(|| seen(least.pick()))),
        ];
        for (what, look) in &looks {
            let mut samples = Vec::new();
            for _ in 0..=plan.windows {
                let start = Instant::now();
                for _ in 0..LOOKS {
                    look()?;
                }
                samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKS));
            }
            let case = [("hosts", json!(hosts)), ("what", json!(what))];
            cases.push(Case {
                better: Better::Lower,
                targets: vec![Target::AtMost(1000.0)],
                ..Case::rate(LOOKUP, "ns", &case, median(&samples))
            });
        }
    }
    Ok(cases)
}

/// Ten thousand hosts of one service.
pub(super) async fn many(link: &mut Link) -> anyhow::Result<Vec<Case>> {
    eprintln!("{MANY}: {CROWD} hosts");
    fill(link, "many", CROWD).await?;
    // In a process of its own, whose memory nothing else has used before.
    let mut hand = Hand::hire()?;
    hand.order(&Order::Follow { service: "many".to_owned() }).await?;
    let Answer::Followed { hosts, took, bytes } = hand.answer().await? else {
        bail!("a child process did not follow")
    };
    hand.dismiss().await?;
    ensure!(hosts == CROWD, "{CROWD} hosts were written, {hosts} are seen");
    let weight = per_second(bytes, 1.0) / per_second(u64::try_from(CROWD)?, 1.0);
    let view = follow(link, "many").await?;
    let mut changes = view.watch();
    let Some(Ok(Change::Snapshot(_))) = changes.next().await else { anyhow::bail!("no snapshot") };
    let (mut seen, mut raw) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        // By themselves, not in a batch.
        sleep(Duration::from_millis(1)).await;
        let start = Instant::now();
        link.raw.put(link.key("put/many"), "1", None).await?;
        raw.push(millis(start));
        let index = change * (CROWD / CHANGES);
        let start = Instant::now();
        link.raw.put(key(link, "many", index), host("many", index, 81), None).await?;
        next(&mut changes, |change| matches!(change, Change::Updated { .. })).await?;
        seen.push(millis(start));
    }
    let case = |what: &str, unit: &'static str, figure| Case {
        better: Better::Lower,
        ..Case::rate(MANY, unit, &[("what", json!(what))], figure)
    };
    Ok(vec![
        case("memory of a host", "bytes", weight),
        case("all loaded", "ms", took.as_secs_f64() * 1e3),
        Case { raw: Some(median(&raw)), ..case("one changed and told, from its put", "ms", median(&seen)) },
    ])
}

/// Below the namespace of the run, so that everything can be taken away afterwards.
fn root(link: &Link) -> String {
    link.session.client().namespace().root().to_string() + "discovery"
}

pub(super) async fn follow(link: &Link, service: &str) -> anyhow::Result<View> {
    let options = DirectoryOptions::default().root(root(link));
    Ok(Directory::with_options(link.session.client(), options).follow(service).await?)
}

fn key(link: &Link, service: &str, index: usize) -> Vec<u8> {
    link.key(&format!("discovery/services/{service}/{index:08}-host"))
}

fn host(service: &str, index: usize, port: u16) -> String {
    let (high, low) = (index / 250, index % 250);
    json!({
        "name": format!("10.1.{high}.{low}"), "service_name": service, "ports": {"http": port.to_string()},
        "private_hostname": format!("node-{index}.internal"), "private_ports": {"http": port.to_string()},
        "uuid": format!("{index:08}-host"),
    })
    .to_string()
}

async fn fill(link: &mut Link, service: &str, hosts: usize) -> anyhow::Result<()> {
    for batch in (0..hosts).step_by(BATCH) {
        let put = |index| TxnOp::put(key(link, service, index), host(service, index, 80), None);
        let puts: Vec<_> = (batch..hosts.min(batch + BATCH)).map(put).collect();
        link.raw.txn(Txn::new().and_then(puts)).await?;
    }
    Ok(())
}

/// Waits for a change of a kind.
async fn next(
    changes: &mut sereno_discovery::Changes,
    wanted: impl Fn(&Change) -> bool,
) -> anyhow::Result<()> {
    let waiting = async {
        loop {
            if wanted(&changes.next().await.context("the changes ended")??) {
                return Ok(());
            }
        }
    };
    timeout(LIMIT, waiting).await.context("a change was not told")?
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
