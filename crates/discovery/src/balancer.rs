//! Choosing one host of many.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use sereno_core::chance;

use crate::balancer_options::{BalancerOptions, Strategy};
use crate::error::Result;
use crate::health::{Rules, Ticket};
use crate::host::Host;
use crate::picked::Picked;
use crate::seat::Seat;
use crate::source::{Fixed, Source};
use crate::table::Table;
use crate::view::View;

/// Chooses hosts of one service, and avoids those that its caller reported to be failing.
///
/// Draining hosts are not chosen. Hosts of weight 0 are chosen only when no host has a weight. A host that failed several
/// times in a row is ejected: not chosen for a time, after which one request at a time probes it. A success brings it back
/// at once, a failure ejects it again for longer. A host that has registered anew starts with a clean slate.
///
/// It is meant to be shared by all tasks, in an `Arc` or otherwise; clones share their state too. Choosing waits for
/// nothing and asks nobody: 0 RPCs.
///
/// ```
/// use sereno_discovery::{Balancer, BalancerOptions, Host};
///
/// let hosts = [Host::new("api-1").port("http", 80), Host::new("api-2").port("http", 80)];
/// let balancer = Balancer::fixed(hosts, BalancerOptions::default());
/// let host = balancer.pick()?;
/// let url = host.private_url("http", "/status")?;
/// # let answered = url.starts_with("http://api-");
/// // ... send a request there, then say how it went:
/// if answered {
///     host.succeeded();
/// } else {
///     host.failed();
/// }
/// # Ok::<(), sereno_discovery::Error>(())
/// ```
#[derive(Clone)]
pub struct Balancer {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Source>,
    options: BalancerOptions,
    table: RwLock<Arc<Laid>>,
    /// Whose turn it is.
    turn: AtomicU64,
    news: Arc<News>,
}

/// A table, and what it was made of.
#[derive(Default)]
struct Laid {
    /// None before the first.
    version: Option<u64>,
    news: u64,
    table: Table,
}

/// What outcomes of requests change, which may come in when the balancer is gone.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) rules: Rules,
    /// Changes whenever a host is ejected, or comes back, or is probed.
    count: AtomicU64,
}

impl News {
    /// The next choice takes into account what has been written of the hosts before.
    pub(crate) fn tell(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// How one host fares: see [`Balancer::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostStatus {
    /// The host.
    pub host: Arc<Host>,
    /// Requests under way.
    pub in_flight: usize,
    /// Failures in a row.
    pub failures: u32,
    /// When the next probe may be made, if it is ejected; on the clock of [`pace::now`](sereno_core::pace::now).
    pub ejected_until: Option<Instant>,
}

impl Balancer {
    /// Chooses among the hosts of a followed service as they come and go; of a view of one shard, unless the options name
    /// another. It keeps the service followed.
    #[must_use]
    pub fn new(view: &View, options: BalancerOptions) -> Self {
        let shard =
            if options.shard.is_empty() { view.shard_name().to_owned() } else { options.shard.clone() };
        Self::over(view.clone(), options.shard(shard))
    }

    /// Chooses among hosts that never change, without any registry. The order in which they are listed does not matter to
    /// [`Balancer::pick_for`].
    pub fn fixed(hosts: impl IntoIterator<Item = Host>, options: BalancerOptions) -> Self {
        Self::over(Fixed::new(hosts), options)
    }

    pub(crate) fn over(source: impl Source + 'static, options: BalancerOptions) -> Self {
        let rules =
            Rules { failures: options.failures, first: options.ejection, longest: options.max_ejection };
        let news = Arc::new(News { rules, count: AtomicU64::new(0) });
        let inner = Inner {
            source: Box::new(source),
            options,
            table: RwLock::default(),
            turn: AtomicU64::new(chance::number()),
            news,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A host, by the [`Strategy`] of the options. It counts as having a request in flight until it is dropped.
    ///
    /// # Errors
    /// [`Error::NoHostFound`](crate::Error::NoHostFound) or
    /// [`Error::NoHostFoundOnShard`](crate::Error::NoHostFoundOnShard) when there is none;
    /// [`Error::Stale`](crate::Error::Stale) when what is known of the hosts is too old.
    pub fn pick(&self) -> Result<Picked> {
        let laid = self.laid()?;
        let table = &laid.table;
        if let Some((seat, ticket)) = table.probe(&self.inner.news.rules) {
            return Ok(self.picked(seat, ticket));
        }
        let seat = match self.inner.options.strategy {
            Strategy::Random => table.lot().random(),
            Strategy::RoundRobin => table.lot().next(&self.inner.turn),
            Strategy::LeastLoaded => table.lot().lighter(),
        };
        let seat = seat.ok_or_else(|| self.nobody())?;
        Ok(self.picked(seat, seat.health.ticket()))
    }

    /// The host that a key belongs to, whatever the strategy: always the same one, in every process, as long as it is
    /// there; twice the weight gets twice the keys. When a host comes or goes (or is ejected, or comes back) only the keys
    /// that belong to it move. Takes time for each host.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    pub fn pick_for(&self, key: impl AsRef<[u8]>) -> Result<Picked> {
        let laid = self.laid()?;
        let (seat, ticket) =
            laid.table.owner(key.as_ref(), &self.inner.news.rules).ok_or_else(|| self.nobody())?;
        Ok(self.picked(seat, ticket))
    }

    /// How each host fares that is not draining, oldest registration first.
    ///
    /// # Errors
    /// As [`Balancer::pick`], but for hosts that are not there: then there is nothing to show.
    pub fn status(&self) -> Result<Vec<HostStatus>> {
        let laid = self.laid()?;
        let status = |seat: &Arc<Seat>| {
            let state = seat.health.state();
            HostStatus {
                host: seat.entry.host.clone(),
                in_flight: seat.health.in_flight.load(Ordering::Relaxed),
                failures: state.failures,
                ejected_until: state.ejection.map(|ejection| ejection.until),
            }
        };
        Ok(laid.table.seats().iter().map(status).collect())
    }

    fn picked(&self, seat: &Arc<Seat>, ticket: Ticket) -> Picked {
        if ticket.is_probe {
            self.inner.news.tell();
        }
        Picked::new(seat.clone(), ticket, self.inner.news.clone())
    }

    fn nobody(&self) -> crate::Error {
        self.inner.source.nobody(&self.inner.options.shard)
    }

    /// The table of what is known now.
    fn laid(&self) -> Result<Arc<Laid>> {
        let inner = &*self.inner;
        let version = Some(inner.source.version()?);
        let news = inner.news.count.load(Ordering::Acquire);
        let is_current = |laid: &Laid| laid.version == version && laid.news == news;
        let laid = inner.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        if is_current(&laid) {
            return Ok(laid);
        }
        let mut laid = inner.table.write().unwrap_or_else(PoisonError::into_inner);
        if !is_current(&laid) {
            *laid = Arc::new(inner.lay(&laid, version));
        }
        Ok(laid.clone())
    }
}

impl Inner {
    /// The next table. What is read after its number may be newer than it, and is then read once more.
    fn lay(&self, before: &Laid, version: Option<u64>) -> Laid {
        let max_ejected = self.options.max_ejected;
        let news = self.news.count.load(Ordering::Acquire);
        if before.version == version {
            return Laid { version, news, table: before.table.again(max_ejected) };
        }
        let mut next = Laid { version: None, news, table: Table::default() };
        self.source.see(&mut |version, roster| {
            let entries = roster.choosable(Some(&self.options.shard));
            next.version = Some(version);
            next.table = before.table.with(entries, max_ejected);
        });
        next
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer").field("options", &self.inner.options).finish_non_exhaustive()
    }
}
