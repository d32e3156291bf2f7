//! How a balancer chooses.

use std::time::Duration;

/// How [`Balancer::pick`](crate::Balancer::pick) chooses. Each honours [`Host::weight`](crate::Host::weight).
/// [`Balancer::pick_for`](crate::Balancer::pick_for) chooses by key with any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// By chance.
    Random,
    /// In turn, from a random one on, so that many clients do not go round in step. With unequal weights, mixed so evenly
    /// that at any time each host has had its share to within a few requests.
    RoundRobin,
    /// Of two that are drawn by chance the one with fewer requests in flight for its weight. The default.
    #[default]
    LeastLoaded,
}

/// Options of a [`Balancer`](crate::Balancer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalancerOptions {
    /// How hosts are chosen. Default: [`Strategy::LeastLoaded`].
    pub strategy: Strategy,
    /// Only hosts of this shard are chosen. Default: empty, all hosts.
    pub shard: String,
    /// A host that failed so many times in a row is ejected; 0 means that none ever is. Default: 2.
    pub failures: u32,
    /// How long the first ejection lasts. The next is twice as long, as long as no request succeeds. Up to a quarter is
    /// taken off by chance, so that not all clients probe a host at once. Default: 5 s.
    pub ejection: Duration,
    /// No ejection lasts longer. Default: 60 s.
    pub max_ejection: Duration,
    /// When more of the hosts than this, in percent, are ejected, or all are, it is more likely the caller's own fault
    /// than theirs, and the rest could not bear the load: all are chosen from. 0 means that no ejection has any effect.
    /// Default: 50.
    pub max_ejected: u8,
}

impl Default for BalancerOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            shard: String::new(),
            failures: 2,
            ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(60),
            max_ejected: 50,
        }
    }
}

impl BalancerOptions {
    /// Sets [`BalancerOptions::strategy`].
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets [`BalancerOptions::shard`].
    #[must_use]
    pub fn shard(mut self, shard: impl Into<String>) -> Self {
        self.shard = shard.into();
        self
    }

    /// Sets [`BalancerOptions::failures`].
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// Sets [`BalancerOptions::ejection`].
    #[must_use]
    pub fn ejection(mut self, ejection: Duration) -> Self {
        self.ejection = ejection;
        self
    }

    /// Sets [`BalancerOptions::max_ejection`].
    #[must_use]
    pub fn max_ejection(mut self, max_ejection: Duration) -> Self {
        self.max_ejection = max_ejection;
        self
    }

    /// Sets [`BalancerOptions::max_ejected`].
    #[must_use]
    pub fn max_ejected(mut self, max_ejected: u8) -> Self {
        self.max_ejected = max_ejected;
        self
    }
}
