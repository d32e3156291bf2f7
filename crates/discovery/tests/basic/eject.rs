//! Leaving hosts out that fail, and letting them back.

use std::time::Duration;

use crate::choosing::{STRATEGIES, by, eject, hosts, is_ejected, shares, wait};
use proptest::prelude::*;
use sereno_discovery::core::pace;
use sereno_discovery::{Balancer, BalancerOptions, Strategy as By};

#[tokio::test(start_paused = true)]
async fn two_failures_in_a_row_eject_a_host_and_success_brings_it_back() {
    for strategy in STRATEGIES {
        let balancer = Balancer::fixed(hosts(4), by(strategy));
        eject(&balancer, "h2");
        assert_eq!(shares(&balancer, 500).len(), 3);
        wait(5).await;
        let probe = balancer.pick().unwrap();
        assert!(probe.is_probe() && probe.hostname == "h2");
        // One at a time.
        assert_eq!(shares(&balancer, 500).len(), 3);
        probe.succeeded();
        assert!(!is_ejected(&balancer, "h2"));
        assert_eq!(shares(&balancer, 500).len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_ejects_for_longer() {
    let balancer = Balancer::fixed(hosts(4), by(By::RoundRobin));
    eject(&balancer, "h2");
    for whole in [5, 10, 20, 40, 60, 60] {
        let status = balancer.status().unwrap();
        let lasts = status[2].ejected_until.unwrap() - pace::now();
        assert!(
            lasts <= Duration::from_secs(whole) && lasts >= Duration::from_secs(whole) * 3 / 4,
            "{lasts:?}"
        );
        assert_eq!(shares(&balancer, 100).len(), 3);
        wait(whole).await;
        let probe = balancer.pick().unwrap();
        assert!(probe.is_probe());
        probe.failed();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_is_followed_by_another() {
    let balancer = Balancer::fixed(hosts(4), by(By::Random));
    eject(&balancer, "h2");
    wait(5).await;
    drop(balancer.pick().unwrap());
    let second = balancer.pick().unwrap();
    assert!(second.is_probe() && second.hostname == "h2");
    assert!(!balancer.pick().unwrap().is_probe());
    // Nobody says anything of it: it does not keep the host out for ever.
    wait(5).await;
    let third = balancer.pick().unwrap();
    assert!(third.is_probe() && third.hostname == "h2");
    third.succeeded();
    second.failed();
    assert!(!is_ejected(&balancer, "h2"));
}

#[tokio::test(start_paused = true)]
async fn when_more_than_half_are_ejected_all_are_chosen_from() {
    let balancer = Balancer::fixed(hosts(4), by(By::Random));
    eject(&balancer, "h0");
    eject(&balancer, "h1");
    assert_eq!(shares(&balancer, 500).len(), 2);
    eject(&balancer, "h2");
    assert_eq!(shares(&balancer, 500).len(), 4);
    // A success there is what ends it.
    while is_ejected(&balancer, "h0") {
        let picked = balancer.pick().unwrap();
        if picked.hostname == "h0" {
            picked.succeeded();
        }
    }
    assert_eq!(shares(&balancer, 500).into_keys().collect::<Vec<_>>(), ["h0", "h3"]);
}

#[tokio::test(start_paused = true)]
async fn the_most_that_may_be_ejected_is_an_option() {
    let balancer = Balancer::fixed(hosts(4), by(By::Random).max_ejected(100));
    for name in ["h0", "h1", "h2"] {
        eject(&balancer, name);
    }
    assert_eq!(shares(&balancer, 500).into_keys().collect::<Vec<_>>(), ["h3"]);
    eject(&balancer, "h3");
    assert_eq!(shares(&balancer, 500).len(), 4);

    let balancer = Balancer::fixed(hosts(4), by(By::Random).max_ejected(0));
    eject(&balancer, "h0");
    assert_eq!(shares(&balancer, 500).len(), 4);

    let balancer = Balancer::fixed(hosts(4), by(By::Random).failures(0));
    (0..500).for_each(|_| balancer.pick().unwrap().failed());
    assert!(balancer.status().unwrap().iter().all(|status| status.ejected_until.is_none()));
}

#[tokio::test(start_paused = true)]
async fn keys_of_an_ejected_host_go_elsewhere_until_it_is_back() {
    let balancer = Balancer::fixed(hosts(10), BalancerOptions::default());
    let owner = |key: u32| balancer.pick_for(key.to_be_bytes()).unwrap();
    let before: Vec<String> = (0..500).map(|key| owner(key).hostname.clone()).collect();
    let key = (0..).find(|key| before[*key as usize] == "h7").unwrap();
    for _ in 0..2 {
        owner(key).failed();
    }
    assert!(is_ejected(&balancer, "h7"));
    for (key, before) in (0..).zip(&before) {
        let now = owner(key).hostname.clone();
        assert!(
            if before == "h7" { now != "h7" } else { now == *before },
            "{key} went from {before} to {now}"
        );
    }
    wait(5).await;
    // Keys of others do not probe it.
    let foreign = (0..).find(|key| before[*key as usize] != "h7").unwrap();
    assert!(!owner(foreign).is_probe());
    let probe = owner(key);
    assert!(probe.is_probe() && probe.hostname == "h7");
    assert_ne!(owner(key).hostname, "h7");
    probe.succeeded();
    assert_eq!((0..500).map(|key| owner(key).hostname.clone()).collect::<Vec<_>>(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a model that knows nothing of tables: who is ejected is asked for, and who may be chosen follows from it.
    #[test]
    fn ejected_hosts_are_not_chosen_and_there_is_always_one(
        weights in prop::collection::vec(0_u32..3, 1..8),
        outcomes in prop::collection::vec((0..4_u8, any::<bool>(), 0..8_u64), 1..200),
        max_ejected in prop::sample::select(vec![0_u8, 30, 50, 100]),
        which in 0..3_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let hosts = hosts(weights.len()).zip(&weights).map(|(host, weight)| host.weight(f64::from(*weight)));
            let balancer = Balancer::fixed(hosts, by(STRATEGIES[which]).max_ejected(max_ejected));
            for (key, (outcome, is_by_key, seconds)) in (0_u32..).zip(outcomes) {
                let status = balancer.status().unwrap();
                let has_weight = status.iter().any(|status| status.host.weight > 0.0);
                let sharing: Vec<_> =
                    status.iter().filter(|status| !has_weight || status.host.weight > 0.0).collect();
                let out = sharing.iter().filter(|status| status.ejected_until.is_some()).count();
                let is_all = out == sharing.len() || out * 100 > sharing.len() * usize::from(max_ejected);
                let picked = if is_by_key { balancer.pick_for(key.to_be_bytes()) } else { balancer.pick() }.unwrap();
                let of = sharing.iter().find(|status| status.host.hostname == picked.hostname);
                let until = of.expect("has a share").ejected_until;
                if picked.is_probe() {
                    assert!(!is_all && until.is_some_and(|until| until <= pace::now()));
                } else {
                    assert!(is_all || until.is_none(), "{picked:?}");
                }
                match outcome {
                    0 => picked.succeeded(),
                    1 => drop(picked),
                    _ => picked.failed(),
                }
                wait(seconds).await;
            }
        });
    }
}
