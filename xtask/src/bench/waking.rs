//! `waitgroup/wake`: from the last `done()` until the waiter's `wait()` returns.
//!
//! Two figures: from the moment at which `done()` returned, which is less than nothing when the waiter hears of it before
//! the doer does, and from the moment at which it was called.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use sereno_waitgroup::WaitGroup;
use tokio::time::{Instant, sleep, timeout};

use super::case::{Better, Case, Target};
use super::clock;
use super::crew::Hand;
use super::hand::{Answer, Order};
use super::link::Link;
use super::plan::Plan;
use super::sample::percentile;

pub(super) const NAME: &str = "waitgroup/wake";

/// Between the waiter's call and the last `done()`, so that it is asleep by then: what is measured is waking it.
const SETTLE: Duration = Duration::from_millis(10);
const WAIT_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn measure(plan: &Plan, link: &mut Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    eprintln!("{NAME}: {} rounds, waiter in another session", plan.wakes);
    let other = Waiter::Session(Box::new(Link::open().await?));
    cases.extend(wakes(plan, link, other, "another session").await?);
    eprintln!("{NAME}: {} rounds, waiter in another process", plan.wakes);
    let other = Waiter::Process(Box::new(Hand::hire()?));
    cases.extend(wakes(plan, link, other, "another process").await?);
    Ok(cases)
}

/// Somebody who waits elsewhere.
enum Waiter {
    Session(Box<Link>),
    Process(Box<Hand>),
}

async fn wakes(plan: &Plan, link: &mut Link, mut waiter: Waiter, place: &str) -> anyhow::Result<Vec<Case>> {
    let name = place.replace(' ', "-");
    let group = WaitGroup::new(&link.session, &name);
    let (mut raw, mut returned, mut called) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.wakes {
        raw.push(put(link).await?);
        let wake = wake(&group, &name, &mut waiter).await?;
        ensure!(wake.woken >= wake.called, "the waiter returned before the work was done");
        returned.push(clock::millis_between(wake.returned, wake.woken));
        called.push(clock::millis_between(wake.called, wake.woken));
    }
    ensure!(group.count().await? == 0, "something is outstanding after the last wait");
    match waiter {
        Waiter::Session(link) => link.close().await?,
        Waiter::Process(hand) => hand.dismiss().await?,
    }
    let case = |from: &str, samples: &[f64], percent: usize, targets| {
        let case = [("waiter", json!(place)), ("from", json!(from)), ("percentile", json!(percent))];
        Case {
            better: Better::Lower,
            raw: Some(percentile(&raw, percent)),
            targets,
            ..Case::rate(NAME, "ms", &case, percentile(samples, percent))
        }
    };
    Ok(vec![
        case("done returned", &returned, 50, vec![Target::WithinRaw(3.0)]),
        case("done returned", &returned, 99, Vec::new()),
        case("done called", &called, 50, Vec::new()),
        case("done called", &called, 99, Vec::new()),
    ])
}

/// Milliseconds that a plain put takes.
async fn put(link: &mut Link) -> anyhow::Result<f64> {
    let key = link.key("put/wake");
    sleep(SETTLE).await;
    let start = Instant::now();
    link.raw.put(key, "1", None).await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// What happened when, in nanoseconds since 1970.
struct Wake {
    /// The last `done()` was called.
    called: u64,
    /// It returned.
    returned: u64,
    /// The waiter's `wait()` returned; that may be earlier, for etcd tells both at the same time.
    woken: u64,
}

async fn wake(group: &WaitGroup, name: &str, waiter: &mut Waiter) -> anyhow::Result<Wake> {
    group.add(1).await?;
    match waiter {
        Waiter::Session(link) => {
            let there = WaitGroup::new(&link.session, name);
            let waiting = tokio::spawn(async move { there.wait().await.map(|()| clock::now()) });
            let (called, returned) = done(group).await?;
            let woken = timeout(WAIT_LIMIT, waiting).await.context("nobody woke the waiter")???;
            Ok(Wake { called, returned, woken })
        }
        Waiter::Process(hand) => {
            hand.order(&Order::Wait { group: name.to_owned() }).await?;
            let (called, returned) = done(group).await?;
            let Answer::Woken { at: woken } = hand.answer().await? else {
                bail!("a child process did not wait")
            };
            Ok(Wake { called, returned, woken })
        }
    }
}

/// When the last `done()` was called, and when it returned.
async fn done(group: &WaitGroup) -> anyhow::Result<(u64, u64)> {
    sleep(SETTLE).await;
    let called = clock::now();
    group.done().await?;
    Ok((called, clock::now()))
}
