//! The client: every call bounded, sent to a member that answers, and checked against the store seen before.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::backoff::{self, Step};
use crate::call::Kind;
use crate::dial::Dial;
use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::key::{Key, KeyError, Namespace, Prefix};
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
    pub(crate) cluster: AtomicU64,
    /// The highest revision any finished call has seen: a later linearizable call can only see the same or more.
    floor: AtomicI64,
    rolled_back: OnceLock<Arc<str>>,
    pub(crate) probing: AtomicBool,
    /// When the watch stream last said anything.
    heard: Mutex<Option<Instant>>,
}

impl Client {
    /// Connects with default options: see [`Client::connect_with`].
    ///
    /// # Errors
    /// As [`Client::connect_with`].
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self> {
        Self::connect_with(endpoints, ConnectOptions::default()).await
    }

    /// Connects to any one of the endpoints, authenticates, and remembers which cluster it is. One RPC, two with
    /// credentials.
    ///
    /// An endpoint is `http://host:port` or `https://host:port`. The scheme may be missing (`https` with
    /// [`ConnectOptions::tls`], else `http`), and so may the port (2379). An IPv6 address stands in brackets:
    /// `http://[::1]:2379`. Paths, queries, fragments, users and passwords are refused.
    ///
    /// # Errors
    /// - [`Error::InvalidEndpoint`] or [`Error::InvalidOption`]: nothing was sent.
    /// - [`Error::Unavailable`] or [`Error::Timeout`] at the deadline when no member answers. A member that is starting is
    ///   waited for until then.
    /// - [`Error::Tls`] at once when an endpoint given as `http` speaks TLS (two more connections tell), or when a
    ///   certificate is refused; after about a second when the server ends every connection around the handshake.
    /// - [`Error::Refused`] after about a second when an HTTP server that is not etcd answers.
    /// - [`Error::Unauthenticated`].
    ///
    /// Errors of the connection name each endpoint that was tried, what it said last, and the likely remedy.
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

    /// A client that connects on first use, so that a service can start while etcd is down. The endpoints are spelled as
    /// for [`Client::connect_with`].
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], [`Error::InvalidOption`]; never anything of the network.
    pub fn lazy<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ConnectOptions,
    ) -> Result<Self> {
        let picker = Picker::new(endpoints.into_iter().map(Into::into).collect(), &options)?;
        Ok(Self::over(picker, options))
    }

    /// Connects over wires that `dial` makes instead of over TCP: to a server inside the process, through a unix socket
    /// or a tunnel. Every connection is made by one call of `dial`, also the one that takes the place of one that failed;
    /// otherwise as [`Client::connect_with`].
    ///
    /// ```no_run
    /// # use sereno_core::{Client, ConnectOptions, Result};
    /// # async fn example() -> Result<()> {
    /// let dial = || tokio::net::TcpStream::connect(("10.0.0.1", 2379)); // or UnixStream::connect("/run/etcd.sock")
    /// let client = Client::connect_via(dial, ConnectOptions::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect_with`]; [`Error::InvalidOption`] with [`ConnectOptions::tls`], which `dial` would have to
    /// speak, and with credentials unless [`ConnectOptions::allow_plaintext_credentials`] says that the wire is private.
    /// What `dial` fails with is the cause of [`Error::Unavailable`]; it has failed, too, when it takes as long as
    /// [`ConnectOptions::attempt`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect_via<F, Fut, IO>(dial: F, options: ConnectOptions) -> Result<Self>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = Self::lazy_via(dial, options)?;
        client.check_store().await?;
        Ok(client)
    }

    /// As [`Client::connect_via`], dialling on first use.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn lazy_via<F, Fut, IO>(dial: F, options: ConnectOptions) -> Result<Self>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let picker = Picker::via(Dial::new(dial, &options)?, &options)?;
        Ok(Self::over(picker, options))
    }

    fn over(picker: Picker, options: ConnectOptions) -> Self {
        let inner = Inner {
            options,
            picker,
            hub: OnceLock::new(),
            cluster: AtomicU64::new(0),
            floor: AtomicI64::new(0),
            rolled_back: OnceLock::new(),
            probing: AtomicBool::new(false),
            heard: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Connects as the environment says.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `ETCD_ENDPOINTS`, else `ETCD_HOSTS`, else `ETCD_HOST` | comma list of endpoints, spelled as for [`Client::connect_with`] |
    /// | `ETCD_1_PORT_2379_TCP_ADDR`, `…_PORT` | a linked container's address, when there is none of those; else `http://127.0.0.1:2379` |
    /// | `ETCD_CACERT` | PEM file of the authority |
    /// | `ETCD_CERT` and `ETCD_KEY`, else `ETCD_TLS_CERT` and `ETCD_TLS_KEY` | PEM files of our own certificate and its key |
    /// | `ETCD_TLS_INMEMORY` | `true`: these hold the PEM text in base64 instead of a file's path |
    /// | `ETCD_USER`, `ETCD_PASSWORD` | `name`, or `name:password` without the latter |
    /// | `SERENO_NAMESPACE` | [`ConnectOptions::namespace`] |
    ///
    /// With TLS, addresses that are not from `ETCD_ENDPOINTS` are `https` even when they say `http`, as the variables' ancestor
    /// (etcd-discovery, Go) has it.
    ///
    /// # Errors
    /// As [`Client::connect_with`]; [`Error::InvalidOption`] for a file that cannot be read, text that is not PEM in base64, half of
    /// a pair.
    pub async fn from_env() -> Result<Self> {
        let (endpoints, options) = crate::env::read(|name| std::env::var(name).ok())?;
        Self::connect_with(endpoints, options).await
    }

    /// As [`Client::from_env`], connecting on first use.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], [`Error::InvalidOption`]; never anything of the network.
    pub fn lazy_from_env() -> Result<Self> {
        let (endpoints, options) = crate::env::read(|name| std::env::var(name).ok())?;
        Self::lazy(endpoints, options)
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

    /// Runs rounds until one gives something, for as long as `epoch` lives and however long etcd is away, with jittered
    /// waits in between. For what only this epoch can do and nobody waits for, such as taking back its own keys; the
    /// rounds must be idempotent.
    ///
    /// # Errors
    /// [`Error::SessionLost`] when the epoch ended first.
    ///
    /// # Cancel safety
    /// As the rounds'.
    pub async fn persist<T, F>(&self, epoch: &Epoch, round: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Option<T>>,
    {
        tokio::select! {
            biased;
            _ = epoch.lost() => Err(epoch.lost_error()),
            done = backoff::persist(round) => Ok(done),
        }
    }

    /// Runs rounds until one gives something, with jittered waits in between, however long etcd is away but no longer than
    /// `within`; `None` when that was not enough. For what must be there before anything else can begin, such as a service's
    /// first registration; the rounds must be idempotent.
    ///
    /// # Cancel safety
    /// As the rounds'.
    pub async fn patiently<T, F>(&self, within: Duration, round: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        tokio::time::timeout(within, backoff::persist(round)).await.ok()
    }

    /// Returns when etcd last sent anything on the watch stream that all watches of this client share: events, or an answer to
    /// the progress request that the client sends after each second of silence. No RPC.
    ///
    /// A view that follows etcd shows everything that had happened by then, excluding events in flight. More than 3 s ago means
    /// that the watches are cut off and views may be stale. `None` before the first message. The value is kept up only while
    /// something is watched.
    #[must_use]
    pub fn last_watch_activity(&self) -> Option<std::time::Instant> {
        let heard = *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(Instant::into_std)
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.inner.hub.get_or_init(|| Hub::start(Arc::downgrade(&self.inner)))
    }

    /// The key that exists as long as the session epoch of that id lives: a [`Compare::absent`](crate::Compare::absent) of
    /// it is the condition that the epoch is over. No RPC.
    ///
    /// # Errors
    /// [`KeyError`] for what cannot be an id.
    pub fn epoch_key(&self, id: &str) -> std::result::Result<Key, KeyError> {
        self.reserved("s").key(id)
    }

    /// The subtree of the core's own keys.
    pub(crate) fn reserved(&self, name: &'static str) -> Prefix {
        self.namespace().root().reserved(name)
    }
}

impl Inner {
    /// What every answer must be at least as new as, to be taken before the call is sent.
    pub(crate) fn floor(&self) -> i64 {
        self.floor.load(Ordering::Acquire)
    }

    /// The watch stream has said something.
    pub(crate) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
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
