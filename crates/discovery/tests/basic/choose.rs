//! Choosing among hosts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::choosing::{STRATEGIES, by, hosts, shares};
use proptest::prelude::*;
use sereno_discovery::core::chance;
use sereno_discovery::{Balancer, BalancerOptions, Error, Host, Picked, Strategy as By};

#[test]
fn without_hosts_there_is_nothing_to_choose() {
    for strategy in STRATEGIES {
        let balancer = Balancer::fixed([], by(strategy));
        assert!(matches!(balancer.pick(), Err(Error::NoHostFound { .. })));
        assert!(matches!(balancer.pick_for("key"), Err(Error::NoHostFound { .. })));
        assert!(balancer.status().unwrap().is_empty());
    }
}

#[test]
fn one_host_is_always_chosen_whatever_it_does() {
    for strategy in STRATEGIES {
        let balancer = Balancer::fixed(hosts(1), by(strategy));
        for _ in 0..20 {
            balancer.pick().unwrap().failed();
            balancer.pick_for("key").unwrap().failed();
        }
        assert_eq!(balancer.pick().unwrap().hostname, "h0");
    }
}

#[test]
fn only_hosts_of_the_shard_are_chosen() {
    let hosts = || hosts(9).enumerate().map(|(n, host)| host.shard(format!("s{}", n % 3)));
    for strategy in STRATEGIES {
        let balancer = Balancer::fixed(hosts(), by(strategy).shard("s1"));
        let chosen: Vec<_> = shares(&balancer, 500).into_keys().collect();
        assert_eq!(chosen, ["h1", "h4", "h7"]);
        let owners = (0..500_u32).map(|n| balancer.pick_for(n.to_be_bytes()).unwrap().shard.clone());
        assert_eq!(owners.collect::<HashSet<_>>(), HashSet::from(["s1".into()]));
        let balancer = Balancer::fixed(hosts(), by(strategy).shard("none"));
        assert!(matches!(balancer.pick(), Err(Error::NoHostFoundOnShard { shard, .. }) if shard == "none"));
    }
}

#[test]
fn draining_hosts_are_not_chosen() {
    let drain = |(n, mut host): (usize, Host)| {
        host.draining = n != 2;
        host
    };
    for strategy in STRATEGIES {
        let balancer = Balancer::fixed(hosts(4).enumerate().map(drain), by(strategy));
        assert_eq!(shares(&balancer, 100), BTreeMap::from([("h2".into(), 100)]));
        assert_eq!(balancer.status().unwrap().len(), 1);
    }
}

#[test]
fn hosts_without_weight_are_chosen_only_when_no_host_has_one() {
    for strategy in STRATEGIES {
        let idle = hosts(3).map(|host| host.weight(0.0));
        let busy = [Host::new("busy").weight(0.1)];
        let balancer = Balancer::fixed(idle.clone().chain(busy), by(strategy));
        assert_eq!(shares(&balancer, 300), BTreeMap::from([("busy".into(), 300)]));
        assert_eq!(balancer.pick_for("any").unwrap().hostname, "busy");
        let balancer = Balancer::fixed(idle, by(strategy));
        let shares = shares(&balancer, 3000);
        assert!(shares.len() == 3 && shares.values().all(|share| (800..1200).contains(share)), "{shares:?}");
        assert!(balancer.pick_for("any").is_ok());
    }
}

#[test]
fn in_turn_means_each_once_in_the_order_of_age() {
    let balancer = Balancer::fixed(hosts(7), by(By::RoundRobin));
    let round = || (0..7).map(|_| balancer.pick().unwrap().hostname.clone()).collect::<Vec<_>>();
    let first = round();
    assert_eq!(first, round());
    let start: usize = first[0][1..].parse().unwrap();
    assert_eq!(first, (0..7).map(|n| format!("h{}", (start + n) % 7)).collect::<Vec<_>>());
}

#[test]
fn in_turn_with_weights_no_share_is_ever_more_than_a_few_off() {
    let weights = [1.0, 2.0, 3.0, 10.0, 0.5];
    let balancer =
        Balancer::fixed(hosts(5).zip(weights).map(|(host, weight)| host.weight(weight)), by(By::RoundRobin));
    let mut counts = HashMap::<String, f64>::new();
    for picks in 1..=5_000_u32 {
        *counts.entry(balancer.pick().unwrap().hostname.clone()).or_default() += 1.0;
        for (n, weight) in weights.iter().enumerate() {
            let owed = f64::from(picks) * weight / 16.5;
            let count = counts.get(&format!("h{n}")).copied().unwrap_or(0.0);
            assert!((count - owed).abs() < 4.0, "h{n} was chosen {count} times of {picks}, not {owed}");
        }
    }
}

#[test]
fn of_two_the_one_with_less_to_do_is_chosen() {
    let spread = |strategy| {
        let balancer = Balancer::fixed(hosts(100), by(strategy));
        let held: Vec<Picked> = (0..1_000).map(|_| balancer.pick().unwrap()).collect();
        let loads: Vec<usize> = balancer.status().unwrap().iter().map(|status| status.in_flight).collect();
        assert_eq!(loads.iter().sum::<usize>(), held.len());
        drop(held);
        assert!(balancer.status().unwrap().iter().all(|status| status.in_flight == 0));
        loads.iter().max().unwrap() - loads.iter().min().unwrap()
    };
    let (lighter, random) = (spread(By::LeastLoaded), spread(By::Random));
    println!("most less least of 100 hosts with 1000 requests: {lighter}, at random {random}");
    assert!(lighter <= 8 && lighter < random);
}

#[test]
fn what_is_held_weighs_by_weight() {
    let hosts = hosts(2).zip([1.0, 3.0]).map(|(host, weight)| host.weight(weight));
    let balancer = Balancer::fixed(hosts, by(By::LeastLoaded));
    let held: Vec<Picked> = (0..400).map(|_| balancer.pick().unwrap()).collect();
    let light = held.iter().filter(|picked| picked.hostname == "h0").count();
    assert!((85..115).contains(&light), "{light} of {}", held.len());
}

#[test]
fn keys_keep_their_hosts_in_every_process_and_order() {
    let one = Balancer::fixed(hosts(20), BalancerOptions::default());
    let other = Balancer::fixed(hosts(20).collect::<Vec<_>>().into_iter().rev(), by(By::Random));
    for key in 0..500_u32 {
        let owner = one.pick_for(key.to_be_bytes()).unwrap();
        assert_eq!(owner.hostname, other.pick_for(key.to_be_bytes()).unwrap().hostname);
    }
}

#[test]
fn tasks_share_one_balancer() {
    let balancer = Balancer::fixed(hosts(5), by(By::LeastLoaded));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let balancer = &balancer;
            scope.spawn(move || {
                for n in 0..2_000_u32 {
                    let picked =
                        if n % 10 == 0 { balancer.pick_for(n.to_be_bytes()) } else { balancer.pick() };
                    let picked = picked.unwrap();
                    if (n + thread) % 3 == 0 { picked.failed() } else { picked.succeeded() }
                }
            });
        }
    });
    assert!(balancer.status().unwrap().iter().all(|status| status.in_flight == 0));
}

/// The figures are for a release build: `cargo test --release -p sereno-discovery --test choose -- --nocapture ten_thousand`.
#[test]
fn choosing_among_ten_thousand_hosts_takes_no_longer_than_a_search() {
    for count in [10, 1_000, 10_000] {
        for (name, heavy) in [("equal", 1.0), ("unequal", 2.0)] {
            for strategy in STRATEGIES {
                let hosts = hosts(count)
                    .enumerate()
                    .map(|(n, host)| host.weight(if n % 2 == 0 { 1.0 } else { heavy }));
                let balancer = Balancer::fixed(hosts, by(strategy));
                drop(balancer.pick().unwrap());
                let start = Instant::now();
                for _ in 0..20_000 {
                    balancer.pick().unwrap().succeeded();
                }
                let each = start.elapsed() / 20_000;
                println!("{strategy:?} of {count} hosts of {name} weight: {each:?}");
                assert!(each < Duration::from_millis(1), "{each:?}");
                if strategy == By::Random {
                    let start = Instant::now();
                    for key in 0..100_u32 {
                        balancer.pick_for(key.to_be_bytes()).unwrap().succeeded();
                    }
                    println!("by key of {count} hosts of {name} weight: {:?}", start.elapsed() / 100);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shares_follow_the_weights(weights in prop::collection::vec(0_u32..20, 1..12), seed: u64, which in 0..3_usize) {
        let _seeded = chance::seed(seed);
        let hosts = hosts(weights.len()).zip(&weights).map(|(host, weight)| host.weight(f64::from(*weight)));
        let balancer = Balancer::fixed(hosts, by(STRATEGIES[which]));
        let shares = shares(&balancer, 4_000);
        let whole: u32 = weights.iter().sum();
        for (n, weight) in weights.iter().enumerate() {
            let share = f64::from(shares.get(&format!("h{n}")).copied().unwrap_or(0)) / 4_000.0;
            let owed = if whole == 0 { 1.0 / weights.len() as f64 } else { f64::from(*weight) / f64::from(whole) };
            prop_assert!((share - owed).abs() < 0.05, "h{n}: {share} instead of {owed}");
            prop_assert!(whole == 0 || *weight > 0 || share == 0.0);
        }
    }

    #[test]
    fn when_a_host_goes_only_its_keys_move(weights in prop::collection::vec(1_u32..5, 2..12), gone: prop::sample::Index) {
        let hosts: Vec<Host> =
            hosts(weights.len()).zip(&weights).map(|(host, weight)| host.weight(f64::from(*weight))).collect();
        let gone = &hosts[gone.index(hosts.len())].hostname;
        let before = Balancer::fixed(hosts.clone(), BalancerOptions::default());
        let left = hosts.iter().filter(|host| host.hostname != *gone).cloned();
        let after = Balancer::fixed(left, BalancerOptions::default());
        for key in 0..300_u32 {
            let owner = before.pick_for(key.to_be_bytes()).unwrap().hostname.clone();
            let next = after.pick_for(key.to_be_bytes()).unwrap().hostname.clone();
            prop_assert!(owner == next || owner == *gone, "{key} went from {owner} to {next}");
        }
    }
}
