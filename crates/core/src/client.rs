//! The client: every call bounded, sent to a member that answers, and checked against the store seen before.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{self, Backoff, Step};
use crate::classify::{Fault, broke_early, classify};
use crate::error::{Cause, Error, Result};
use crate::key::{Key, Namespace, Prefix};
use crate::options::ConnectOptions;
use crate::picker::{Connection, Picker};
use crate::watch::Hub;

/// A connection to an etcd cluster, shared by clones.
///
/// It talks to one member at a time and leaves it at once when it fails or falls silent; every call ends within
/// [`ConnectOptions::deadline`]. Reads are linearizable. Dropping the last clone closes the connections; nothing is left
/// in etcd.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: ConnectOptions,
    pub(crate) picker: Picker,
    hub: OnceLock<Hub>,
    /// The cluster first seen, 0 before.
    cluster: AtomicU64,
    /// The highest revision any finished call has seen: a later linearizable call can only see the same or more.
    floor: AtomicI64,
    rolled_back: OnceLock<Arc<str>>,
    probing: AtomicBool,
}

tokio::task_local! {
    /// When the operation that the present calls are parts of must end.
    static UNTIL: Instant;
}

/// When something that may take `within` must end: earlier if it is part of an operation that ends earlier.
pub(crate) fn until(within: Duration) -> Instant {
    let own = Instant::now() + within;
    UNTIL.try_with(|outer| own.min(*outer)).unwrap_or(own)
}

/// With less time left no member is asked any more: it could hardly answer, and a write would be left unknown.
const LEAST: Duration = Duration::from_millis(10);

/// So many connections ended around the TLS handshake, and none that ever worked, are no accident.
const SUSPECT: usize = 6;

/// Whether a call may be repeated when its answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Repeating it changes nothing.
    Idempotent,
    /// Only what was certainly not applied is repeated.
    Once,
}

impl Client {
    /// Connects with default options: see [`Client::connect_with`].
    ///
    /// # Errors
    /// As [`Client::connect_with`].
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self> {
        Self::connect_with(endpoints, ConnectOptions::default()).await
    }

    /// Connects to any one of the endpoints (`http://host:port`, `https://…`, or `host:port`), authenticates, and
    /// remembers which cluster it is. One RPC, two with credentials.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::Unavailable`] or [`Error::Timeout`] within the deadline when no member
    /// answers; [`Error::Unauthenticated`], [`Error::Tls`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect_with<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ConnectOptions,
    ) -> Result<Self> {
        let client = Self::lazy(endpoints, options)?;
        client.check_store().await?;
        Ok(client)
    }

    /// A client that connects on first use, so that a service can start while etcd is down.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; never anything of the network.
    pub fn lazy<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ConnectOptions,
    ) -> Result<Self> {
        let picker = Picker::new(endpoints.into_iter().map(Into::into).collect(), &options)?;
        let inner = Inner {
            options,
            picker,
            hub: OnceLock::new(),
            cluster: AtomicU64::new(0),
            floor: AtomicI64::new(0),
            rolled_back: OnceLock::new(),
            probing: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Connects as the environment says: `ETCD_ENDPOINTS` (comma list, default `http://127.0.0.1:2379`), `ETCD_CACERT`,
    /// `ETCD_CERT`, `ETCD_KEY` (PEM files), `ETCD_USER` (`name` or `name:password`), `ETCD_PASSWORD`,
    /// `SERENO_NAMESPACE`.
    ///
    /// # Errors
    /// As [`Client::connect_with`]; a file that cannot be read is [`Error::InvalidOption`].
    pub async fn from_env() -> Result<Self> {
        let (endpoints, options) = ConnectOptions::from_env(|name| std::env::var(name).ok())?;
        Self::connect_with(endpoints, options).await
    }

    /// Where this client's keys live.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.inner.options.namespace
    }

    /// How long any one call may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.inner.options.deadline
    }

    /// etcd-client's own client for the member in use: the way out for what this crate does not wrap. Nothing of what
    /// this crate promises (deadlines, failover, one outcome) holds for calls made through it.
    ///
    /// # Errors
    /// As any call, when no member can be reached (only noticed here when credentials are set).
    pub async fn etcd_client(&self) -> Result<etcd_client::Client> {
        let call = |connection: Connection| async move { Ok((*connection.client).clone()) };
        self.call(Kind::Idempotent, self.deadline(), call).await
    }

    /// One linearizable read that changes nothing: is the store still the one seen before, and does a member answer?
    pub(crate) async fn check_store(&self) -> Result<()> {
        let probe = self.namespace().root().reserved("probe");
        self.count(&probe).await.map(|_| ())
    }

    /// Runs rounds of read-then-conditional-write until one is done, with jittered waits between conflicts. The only
    /// retry loop a recipe needs.
    ///
    /// # Errors
    /// Whatever a round returns; [`Error::Contended`] when the client's deadline has passed.
    ///
    /// # Cancel safety
    /// As the rounds'.
    pub async fn optimistic<T, F>(&self, round: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Step<T>>>,
    {
        self.as_one(backoff::optimistic(self.deadline(), round)).await
    }

    /// Runs an operation of several calls so that it ends within the deadline as a whole, not each of its calls.
    pub(crate) async fn as_one<F: Future>(&self, operation: F) -> F::Output {
        UNTIL.scope(until(self.deadline()), operation).await
    }

    /// As [`Client::as_one`] for what goes on in another task: it must end by then.
    pub(crate) async fn by<F: Future>(deadline: Instant, operation: F) -> F::Output {
        UNTIL.scope(deadline, operation).await
    }

    /// Sends one call to a member that answers, within `within` in all.
    pub(crate) async fn call<T, F, Fut>(&self, kind: Kind, within: Duration, send: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.inner.rolled_back()?;
        let inner = &self.inner;
        let deadline = until(within);
        if Instant::now() + LEAST > deadline {
            return Err(Error::Unavailable {
                deadline: within,
                cause: Cause::new("no time was left to try"),
            });
        }
        let started = Instant::now();
        let mut backoff = Backoff::calls();
        let mut failures = 0usize;
        let mut tls_failures = 0usize;
        let mut broken = 0usize;
        let mut stale_tokens = 0usize;
        loop {
            let index = inner.picker.pick();
            let attempt = inner.attempt(within).min(deadline.saturating_duration_since(Instant::now()));
            let mut used = None;
            // On the heap, because everything a recipe awaits would carry the many kilobytes of a gRPC call otherwise.
            let sent = Box::pin(async {
                let connection = inner.picker.connection(index).await?;
                used = Some(connection.clone());
                send(connection).await.map_err(|error| classify(&error))
            });
            let sent = tokio::time::timeout(attempt, sent);
            let fault = match sent.await {
                Ok(Ok(value)) => {
                    inner.picker.restore(index);
                    return Ok(value);
                }
                Ok(Err(fault)) => fault,
                Err(_) if used.is_none() => Fault::NotSent(Cause::new("connecting took too long")),
                Err(_) => Fault::Ambiguous(Cause::new(format!("no answer within {attempt:?}"))),
            };
            tracing::debug!(member = index, ?fault, "call failed");
            if inner.unproven_tls(index) && broke_early(&fault) {
                broken += 1;
            }
            let (cause, sent) = match fault {
                Fault::Refused(error) => return Err(error),
                Fault::AnswerTooLarge(cause) => {
                    return Err(match kind {
                        Kind::Once => Error::OutcomeUnknown { cause },
                        Kind::Idempotent => {
                            let limit = inner.options.decode_limit;
                            Error::TooLarge { what: "answer", size: limit.saturating_add(1), limit }
                        }
                    });
                }
                // Each member may have forgotten its tokens.
                Fault::StaleToken(cause) if stale_tokens >= inner.picker.len() => {
                    return Err(Error::Unauthenticated { cause });
                }
                Fault::StaleToken(cause) => {
                    stale_tokens += 1;
                    used.iter().for_each(|connection| inner.picker.forget(connection));
                    if inner.options.credentials.is_none() {
                        return Err(Error::Unauthenticated { cause });
                    }
                    continue;
                }
                Fault::Tls(cause) => {
                    tls_failures += 1;
                    if tls_failures >= inner.picker.len() {
                        return Err(Error::Tls { cause });
                    }
                    (cause, false)
                }
                Fault::NotSent(cause) | Fault::NoLeader(cause) => (cause, false),
                Fault::Ambiguous(cause) => (cause, true),
            };
            if inner.picker.eject(index, used.as_ref()) {
                self.probe_ejected();
            }
            if sent && kind == Kind::Once {
                return Err(Error::OutcomeUnknown { cause });
            }
            failures += 1;
            if broken >= SUSPECT && started.elapsed() >= (within / 2).min(Duration::from_secs(1)) {
                let text =
                    format!("{broken} connections were ended around the TLS handshake, the last: {cause}");
                return Err(Error::Tls { cause: Cause::new(text) });
            }
            // The other members first, without waiting; then all again, with.
            if failures.is_multiple_of(inner.picker.len()) {
                backoff.wait(deadline).await;
            }
            if Instant::now() + LEAST > deadline {
                return Err(match kind {
                    Kind::Idempotent if sent => Error::Timeout { deadline: within, cause },
                    _ => Error::Unavailable { deadline: within, cause },
                });
            }
        }
    }

    /// Ejected members are asked in the background until they answer, so that a caller never has to try them.
    pub(crate) fn probe_ejected(&self) {
        if self.inner.picker.len() < 2 || self.inner.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
            loop {
                tokio::time::sleep(Duration::from_millis(100) + backoff.next()).await;
                let Some(inner) = weak.upgrade() else { return };
                for index in inner.picker.ejected() {
                    inner.probe(index).await;
                }
                if inner.picker.ejected().is_empty() {
                    inner.probing.store(false, Ordering::Release);
                    // One that was ejected between the two lines above found a probe running and relies on it.
                    if inner.picker.ejected().is_empty() || inner.probing.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.inner.hub.get_or_init(|| Hub::start(Arc::downgrade(&self.inner)))
    }

    /// The subtree of the core's own keys.
    pub(crate) fn reserved(&self, name: &'static str) -> Prefix {
        self.namespace().root().reserved(name)
    }
}

impl Inner {
    /// How long one member may take: less than everything when there is another one to try.
    fn attempt(&self, within: Duration) -> Duration {
        if self.picker.len() > 1 { self.options.attempt.min(within / 3) } else { self.options.attempt }
    }

    /// Whether a member is spoken to with TLS, and no answer of any member has come yet.
    fn unproven_tls(&self, index: usize) -> bool {
        self.cluster.load(Ordering::Acquire) == 0 && self.picker.is_tls(index)
    }

    async fn probe(&self, index: usize) {
        let asked = tokio::time::timeout(self.options.attempt, async {
            let connection = self.picker.connection(index).await?;
            let key = self.options.namespace.root().reserved("probe");
            // Linearizable, so that a member without a leader stays out.
            let answer = connection.client.kv_client().get(key.as_bytes(), None).await;
            match answer.map_err(|error| classify(&error)) {
                Err(
                    fault @ (Fault::NotSent(_) | Fault::NoLeader(_) | Fault::Ambiguous(_) | Fault::Tls(_)),
                ) => {
                    self.picker.forget(&connection);
                    Err(fault)
                }
                Err(Fault::StaleToken(_)) => {
                    self.picker.forget(&connection);
                    Ok(())
                }
                // Even a refusal is an answer.
                Err(Fault::Refused(_) | Fault::AnswerTooLarge(_)) | Ok(_) => Ok(()),
            }
        });
        if let Ok(Ok(())) = asked.await {
            self.picker.restore(index);
        }
    }

    /// What every answer must be at least as new as, to be taken before the call is sent.
    pub(crate) fn floor(&self) -> i64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Checks an answer's header against what was seen before.
    pub(crate) fn observe(&self, cluster: u64, revision: i64, floor: i64) -> Result<()> {
        let pinned = self
            .cluster
            .compare_exchange(0, cluster, Ordering::AcqRel, Ordering::Acquire)
            .unwrap_or_else(|c| c);
        if pinned != 0 && pinned != cluster {
            return Err(self.roll_back(format!("cluster {pinned:x} became {cluster:x}")));
        }
        if revision < floor {
            return Err(self.roll_back(format!("revision {floor} had been seen, now it is {revision}")));
        }
        self.floor.fetch_max(revision, Ordering::AcqRel);
        Ok(())
    }

    /// Marks this client void for good.
    pub(crate) fn roll_back(&self, detail: String) -> Error {
        tracing::error!(detail, "the store was rolled back or replaced");
        let detail = self.rolled_back.get_or_init(|| detail.into()).clone();
        Error::StoreRolledBack { detail }
    }

    pub(crate) fn rolled_back(&self) -> Result<()> {
        match self.rolled_back.get() {
            None => Ok(()),
            Some(detail) => Err(Error::StoreRolledBack { detail: detail.clone() }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("members", &self.inner.picker.len())
            .field("namespace", self.namespace())
            .finish_non_exhaustive()
    }
}

/// A range of keys to read or watch: one key, or all below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl From<&Key> for Range {
    fn from(key: &Key) -> Self {
        Self { start: key.as_bytes().to_vec(), end: None }
    }
}

impl From<&Prefix> for Range {
    fn from(prefix: &Prefix) -> Self {
        Self { start: prefix.as_bytes().to_vec(), end: Some(prefix.end()) }
    }
}
