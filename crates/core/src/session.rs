//! The session: one lease per process, shared by every recipe, and what happens when it is lost.

mod events;
mod weak;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call::until;
use crate::client::Client;
use crate::epoch::Epoch;
use crate::error::{Cause, Error, LostReason, Result};
use crate::heart::Keeper;
use crate::key::Prefix;
use crate::marker::Markers;

pub use self::events::SessionEvents;
pub use self::weak::WeakSession;

/// Options of [`Session::open_with`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The time to live of the session's lease: how long its keys outlive a process that died. Default: 15 s, at least 1 s, in
    /// whole seconds (rounded up). etcd may grant more.
    ///
    /// A healthy session survives every outage of etcd that is shorter than `ttl - margin - period - pause`, less a few round
    /// trips for connecting again, whenever it begins:
    ///
    /// | part | why | length | at 15 s |
    /// |---|---|---|---|
    /// | margin | see [`Epoch::valid_until`](crate::Epoch::valid_until) | a twentieth, at least 200 ms | 0.75 s |
    /// | period | the last keepalive before the outage is so old at most | a twentieth | 0.75 s |
    /// | pause | between a keepalive that failed and the next one | a twentieth, at most 500 ms | 0.5 s |
    ///
    /// That is more than three quarters of a time to live of 4 s and more (13 s of 15 s), whether etcd was stopped, frozen or
    /// restarted. Where the network swallows packets without a word, a keepalive that was under way when the outage ended is
    /// waited for in vain: a sixth of the time to live less, 500 ms to 2 s (11 s of 15 s).
    ///
    /// Three times (election timeout + round trip) is the least that survives a change of leader: 5 s with etcd's
    /// defaults.
    pub ttl: Duration,
    /// How long [`Session::close`] may take with etcd gone. Default: the client's deadline. The time counts from etcd's last
    /// answer to a keepalive: see [`Session::time_to_close`].
    pub close_within: Option<Duration>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(15), close_within: None }
    }
}

impl SessionOptions {
    /// Sets [`SessionOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets [`SessionOptions::close_within`].
    #[must_use]
    pub fn close_within(mut self, within: Duration) -> Self {
        self.close_within = Some(within);
        self
    }
}

/// How a session stands with etcd. Not the state of a connection: one may fail without the other noticing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// Keepalives are acknowledged.
    Connected,
    /// No keepalive is acknowledged at the moment; the epoch is still valid until its deadline. Owners should start
    /// nothing new.
    Suspended,
    /// The epoch has ended and the next one has not begun.
    Lost(LostReason),
    /// Closed by its owner: no epoch follows.
    Closed,
}

/// The latest news of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// The number of the epoch it is about.
    pub epoch: u64,
    /// How that epoch stands.
    pub state: SessionState,
}

/// One lease per process, shared by every recipe handle made from it.
///
/// A session is long-lived and has *epochs*: each is one lease, and terminal. When one is lost the next one begins by
/// itself. Presence ([`Session::keep`]) moves on to it; what was *owned* under the old epoch is not: such handles end with
/// [`Error::SessionLost`].
///
/// Clones are the same session. When the last clone (recipe handles hold one) is dropped the session ends as if closed,
/// in the background; [`Session::close`] does so in order and tells the result.
///
/// # The end of a process
/// The end of a handle in the background needs a runtime that goes on. At the end of `main` the runtime ends at once: whatever
/// was not closed before stays in etcd until the time to live has passed, and others take this process for alive until then. So close the
/// session last, whatever became of the work:
///
/// ```no_run
/// # use sereno_core::{Client, Session};
/// # async fn serve(session: &Session) -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
/// # async fn shutdown() {}
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let client = Client::from_env().await?;
///     let session = Session::open(&client).await?;
///     let served = tokio::select! {
///         served = serve(&session) => served,
///         () = shutdown() => Ok(()), // such as tokio::signal::ctrl_c
///     };
///     session.close().await?;
///     served
/// }
/// ```
#[derive(Clone)]
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) options: SessionOptions,
    pub(crate) epochs: watch::Sender<Epoch>,
    /// Wakes those who wait for an epoch, in the order in which they came.
    pub(crate) begun: Notify,
    pub(crate) status: watch::Sender<SessionStatus>,
    /// Asks everything that stands on the session to finish.
    pub(crate) closing: CancellationToken,
    /// Waits for it.
    pub(crate) tasks: TaskTracker,
    pub(crate) closed: watch::Sender<Option<Result<()>>>,
    /// When etcd last acknowledged a keepalive, or granted a lease.
    acknowledged: Mutex<Instant>,
    pub(crate) markers: Markers,
    serials: AtomicU64,
    parts: Mutex<HashMap<(TypeId, Prefix), Weak<dyn Any + Send + Sync>>>,
}

/// Dropped with the last handle.
struct Alive(CancellationToken);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Session {
    /// Opens a session with a time to live of 15 s: see [`Session::open_with`].
    ///
    /// # Errors
    /// As [`Session::open_with`].
    pub async fn open(client: &Client) -> Result<Self> {
        Self::open_with(client, SessionOptions::default()).await
    }

    /// Grants a lease, creates the session's key and starts keeping it alive. Two RPCs, then a keepalive on one stream
    /// per twentieth of the time to live (80 a minute at 15 s), whatever the number of keys: no raft write.
    ///
    /// # Errors
    /// As any call; [`Error::InvalidOption`] for a time to live below 1 s; [`Error::OutOfSpace`] when etcd's database is
    /// full.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a lease that nobody keeps alive, to run out.
    pub async fn open_with(client: &Client, options: SessionOptions) -> Result<Self> {
        if options.ttl < Duration::from_secs(1) {
            return Err(Error::InvalidOption {
                option: "ttl",
                reason: "leases have whole seconds, at least 1 s".into(),
            });
        }
        let epoch = client.as_one(crate::heart::establish(client, options.ttl, 1)).await?;
        let status = SessionStatus { epoch: 1, state: SessionState::Connected };
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared {
            client: client.clone(),
            options,
            epochs: watch::Sender::new(epoch),
            begun: Notify::new(),
            status: watch::Sender::new(status),
            closing: closing.clone(),
            tasks: TaskTracker::new(),
            closed: watch::Sender::new(None),
            acknowledged: Mutex::new(Instant::now()),
            markers: Markers::default(),
            serials: AtomicU64::new(1),
            parts: Mutex::default(),
        });
        tokio::spawn(Keeper::new(shared.clone()).run());
        Ok(Self { shared, _alive: Arc::new(Alive(closing)) })
    }

    /// Opens a session, and keeps trying for up to `within` while etcd cannot be reached. For services that may start before etcd
    /// does.
    ///
    /// Between two attempts it pauses for 50 ms at first and 1 s at most. Each attempt costs what [`Session::open_with`] does.
    ///
    /// # Errors
    /// As [`Session::open_with`]. Permanent errors (a bad option, a refused password) are returned immediately; errors that may
    /// pass, such as [`Error::Unavailable`], only after `within`.
    ///
    /// # Cancel safety
    /// As [`Session::open_with`].
    pub async fn open_within(client: &Client, options: SessionOptions, within: Duration) -> Result<Self> {
        let last = Mutex::new(None);
        let opened = client.patiently(within, || async {
            match Self::open_with(client, options.clone()).await {
                Err(error) if error.is_retryable() || error.is_outcome_unknown() => {
                    tracing::debug!(%error, "opening a session");
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    None
                }
                opened => Some(opened),
            }
        });
        match opened.await {
            Some(opened) => opened,
            None => {
                let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
                Err(last.unwrap_or_else(|| Error::Timeout {
                    deadline: within,
                    cause: Cause::new("etcd has not answered yet"),
                }))
            }
        }
    }

    /// The client it stands on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The latest epoch, which may have ended.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epochs.borrow().clone()
    }

    /// The latest epoch if it is valid now.
    ///
    /// # Errors
    /// [`Error::SessionLost`].
    pub fn valid_epoch(&self) -> Result<Epoch> {
        let epoch = self.epoch();
        epoch.check().map(|()| epoch)
    }

    /// Waits for an epoch after the one numbered `after` (0 for any) that is valid.
    ///
    /// # Errors
    /// [`Error::SessionLost`] with [`LostReason::Closed`] when the session is closed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind. There is no deadline: while etcd is away it waits.
    pub async fn next_epoch(&self, after: u64) -> Result<Epoch> {
        self.shared.next_epoch(after).await
    }

    /// As [`Session::next_epoch`] for any epoch, within the client's deadline.
    ///
    /// # Errors
    /// [`Error::SessionLost`] when it is closed; [`Error::Timeout`] when no epoch began in time.
    pub async fn live_epoch(&self) -> Result<Epoch> {
        self.shared.live_epoch().await
    }

    /// How the session stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        let status = *self.shared.status.borrow();
        let epoch = self.epoch();
        // Right even before the task has had its turn, say after the process was stopped.
        if epoch.number() == status.epoch
            && !epoch.is_valid()
            && !matches!(status.state, SessionState::Closed)
        {
            let state = SessionState::Lost(epoch.ended().unwrap_or(LostReason::Deadline));
            return SessionStatus { state, ..status };
        }
        status
    }

    /// A stream of the latest status: whoever is slow misses states in between, never the last one.
    #[must_use]
    pub fn events(&self) -> SessionEvents {
        SessionEvents::new(self.shared.status.subscribe())
    }

    /// Asks etcd itself, linearizably, whether the present epoch is alive. One RPC.
    ///
    /// # Errors
    /// [`Error::SessionLost`] when it is not; as any read when etcd cannot be asked.
    pub async fn verify(&self) -> Result<Epoch> {
        let epoch = self.valid_epoch()?;
        match self.client().get(epoch.key()).await? {
            Some(kv) if kv.create_revision == epoch.token() => Ok(epoch),
            _ => {
                epoch.end(LostReason::Expired);
                Err(epoch.lost_error())
            }
        }
    }

    /// Ends the session in order: lets the recipes finish what they have in hand, then revokes the lease, so that others
    /// see at once that this process has gone. May be called more than once.
    ///
    /// One budget, [`SessionOptions::close_within`], covers all of it: half is for the recipes, the rest for the lease. Handles
    /// that are ended one by one before share it, see [`Session::time_to_close`].
    ///
    /// # Errors
    /// As any call, when the lease could not be revoked: it runs out by itself.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn close(&self) -> Result<()> {
        self.shared.closing.cancel();
        let mut closed = self.shared.closed.subscribe();
        let ended = closed.wait_for(Option::is_some).await.map_err(|_| Error::Stopped)?;
        ended.clone().unwrap_or(Ok(()))
    }

    /// The longest that ending something of this session may wait for etcd now: what is left of
    /// [`SessionOptions::close_within`] since etcd last acknowledged a keepalive, and at least a tenth of it. No RPC.
    ///
    /// While etcd answers that is the whole budget. With etcd gone, whoever ends several handles and then the session waits for
    /// the budget once, and a tenth of it for each further handle.
    #[must_use]
    pub fn time_to_close(&self) -> Duration {
        self.shared.time_to_close()
    }

    /// Waits for work that ends something of this session, for [`Session::time_to_close`] at most. For recipes.
    ///
    /// # Errors
    /// As the work; [`Error::Timeout`] when it took longer. A write that it had sent continues in the background.
    ///
    /// # Cancel safety
    /// As the work.
    pub async fn within_time_to_close<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.shared.within_time_to_close(work).await
    }

    /// Whether the session is closing or closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closing.is_cancelled()
    }
}

impl Shared {
    pub(crate) async fn next_epoch(&self, after: u64) -> Result<Epoch> {
        loop {
            let mut begun = pin!(self.begun.notified());
            // From here on none is missed.
            begun.as_mut().enable();
            let epoch = self.epochs.borrow().clone();
            if epoch.number() > after && epoch.is_valid() {
                return Ok(epoch);
            }
            tokio::select! {
                biased;
                () = begun => {}
                () = self.closing.cancelled() => {
                    return Err(Error::SessionLost { epoch: epoch.number(), reason: LostReason::Closed });
                }
            }
        }
    }

    pub(crate) async fn live_epoch(&self) -> Result<Epoch> {
        let epoch = self.epochs.borrow().clone();
        if epoch.is_valid() {
            return Ok(epoch);
        }
        let deadline = self.client.deadline();
        let waited = tokio::time::timeout_at(until(deadline), self.next_epoch(0)).await;
        waited.map_err(|_| Error::Timeout { deadline, cause: Cause::new("no session epoch began") })?
    }

    /// etcd has answered.
    pub(crate) fn acknowledge(&self) {
        *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago etcd last answered.
    pub(crate) fn silence(&self) -> Duration {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(crate) fn time_to_close(&self) -> Duration {
        let within = self.options.close_within.unwrap_or_else(|| self.client.deadline());
        // An answer is due once in a period: so much silence is none.
        let silence = self.silence().saturating_sub(crate::heart::period(self.options.ttl));
        within.saturating_sub(silence).max(within / 10)
    }

    pub(crate) async fn within_time_to_close<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = self.time_to_close();
        let cause = || Cause::new("etcd did not confirm the end; it continues in the background");
        let waited = tokio::time::timeout(deadline, work).await;
        waited.unwrap_or_else(|_| Err(Error::Timeout { deadline, cause: cause() }))
    }

    /// The one part of a kind for a prefix that all handles of this session share, made on first use.
    pub(crate) fn part<T: Send + Sync + 'static>(
        &self,
        prefix: &Prefix,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<T>(), prefix.clone());
        let known = parts.get(&key).and_then(Weak::upgrade).and_then(|part| part.downcast::<T>().ok());
        if let Some(part) = known {
            return part;
        }
        parts.retain(|_, part| part.strong_count() > 0);
        let part = make();
        let weak: Weak<T> = Arc::downgrade(&part);
        parts.insert(key, weak);
        part
    }

    /// A number that this session has given to nobody else.
    pub(crate) fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn report(&self, epoch: u64, state: SessionState) {
        self.status.send_if_modified(|status| {
            let news = SessionStatus { epoch, state };
            let changed = *status != news;
            *status = news;
            changed
        });
    }
}

impl Session {
    /// The one value of type `T` that all handles of this session share for `prefix`, made on first use and dropped with
    /// its last holder. For recipes whose handles must work as one (one writer, one queue).
    pub fn shared<T: Send + Sync + 'static>(&self, prefix: &Prefix, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        self.shared.part(prefix, make)
    }

    /// A number that this session has not given before, from 1: with [`Epoch::id`] it makes names that nobody else has.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.shared.serial()
    }

    /// Starts a task that belongs to the session: it is given a token that is cancelled when the session closes, and
    /// [`Session::close`] waits for it before the lease is revoked. The task must not hold a `Session` (a
    /// [`WeakSession`] is fine), or the session would never end by itself.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        self.shared.tasks.spawn(task(self.shared.closing.clone()));
    }

    /// A reference that does not keep the session open.
    #[must_use]
    pub fn downgrade(&self) -> WeakSession {
        WeakSession::new(self.shared.clone())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("status", &self.status())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
