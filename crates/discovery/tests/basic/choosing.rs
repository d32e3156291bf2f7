//! What the tests of choosing share.

use std::collections::BTreeMap;
use std::time::Duration;

use sereno_discovery::core::pace;
use sereno_discovery::{Balancer, BalancerOptions, Host, Strategy as By};

pub(crate) const STRATEGIES: [By; 3] = [By::Random, By::RoundRobin, By::LeastLoaded];

pub(crate) fn hosts(count: usize) -> impl Iterator<Item = Host> + Clone {
    (0..count).map(|n| Host::new(format!("h{n}")).port("http", 80))
}

pub(crate) fn by(strategy: By) -> BalancerOptions {
    BalancerOptions::default().strategy(strategy)
}

/// How often each host is chosen in so many picks, none of them at the same time.
pub(crate) fn shares(balancer: &Balancer, picks: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        *shares.entry(balancer.pick().unwrap().hostname.clone()).or_default() += 1;
    }
    shares
}

/// Fails a host until it is ejected.
pub(crate) fn eject(balancer: &Balancer, name: &str) {
    for _ in 0..100_000 {
        let picked = balancer.pick().unwrap();
        if picked.hostname == name {
            picked.failed();
        } else {
            picked.succeeded();
        }
        if is_ejected(balancer, name) {
            return;
        }
    }
    panic!("{name} is never chosen");
}

pub(crate) fn is_ejected(balancer: &Balancer, name: &str) -> bool {
    let status = balancer.status().unwrap();
    status.iter().find(|status| status.host.hostname == name).unwrap().ejected_until.is_some()
}

pub(crate) async fn wait(seconds: u64) {
    pace::until(pace::now() + Duration::from_secs(seconds)).await;
}
