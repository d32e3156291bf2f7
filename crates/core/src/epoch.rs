//! One life of a session: one lease, from its grant to its end.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Slept;
use crate::error::{Error, LostReason, Result};
use crate::key::Key;
use crate::lease::Granted;
use crate::txn::Compare;

/// One life of a [`Session`](crate::Session): one lease. Terminal: once it has ended it never becomes valid again.
///
/// Clones are the same epoch. Holding one keeps nothing alive.
#[derive(Clone)]
pub struct Epoch {
    inner: Arc<Inner>,
}

struct Inner {
    number: u64,
    id: String,
    lease: i64,
    ttl: Duration,
    key: Key,
    token: i64,
    valid_until: Mutex<Deadline>,
    ended: OnceLock<LostReason>,
    lost: CancellationToken,
}

/// A moment by a clock that stands still while the machine sleeps, and how long it had slept when that was said.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    slept: Slept,
}

impl Deadline {
    fn of(sent: Instant, ttl: Duration) -> Self {
        Self { at: sent + ttl - margin(ttl), slept: Slept::now() }
    }

    fn remaining(self) -> Duration {
        let left = self.at.saturating_duration_since(Instant::now());
        left.saturating_sub(Slept::now().since(self.slept))
    }
}

impl Epoch {
    pub(crate) fn new(number: u64, id: String, granted: Granted, key: Key, token: i64) -> Self {
        let valid_until = Mutex::new(Deadline::of(granted.sent, granted.ttl));
        let inner = Inner {
            number,
            id,
            lease: granted.id,
            ttl: granted.ttl,
            key,
            token,
            valid_until,
            ended: OnceLock::new(),
            lost: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Counts the session's lives, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.inner.number
    }

    /// A name for this epoch that no other epoch of any process has: 16 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The fencing token: the revision at which the epoch began. It grows from epoch to epoch, whoever's they are, so a
    /// resource that remembers the highest one it has seen can refuse those who were only thought alive.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.inner.token
    }

    /// The granted time to live of its lease.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Until when nobody else can have been told that this epoch has ended, unless somebody revokes its lease: the send
    /// time of the last acknowledged keepalive plus the time to live, minus a margin for clocks of different speed (a
    /// twentieth of it, at least 200 ms).
    #[must_use]
    pub fn valid_until(&self) -> std::time::Instant {
        self.deadline().into_std()
    }

    /// How long [`Epoch::valid_until`] is away; zero when the epoch has ended. No RPC.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.inner.ended.get().is_some() {
            return Duration::ZERO;
        }
        self.inner.valid_until.lock().unwrap_or_else(PoisonError::into_inner).remaining()
    }

    /// Whether the epoch has neither ended nor outlived [`Epoch::valid_until`]. No RPC; looked up in the clock at each
    /// call, so it is right even when the process has just been resumed after a long stop.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// [`Error::SessionLost`] unless [`Epoch::is_valid`].
    ///
    /// # Errors
    /// [`Error::SessionLost`].
    pub fn check(&self) -> Result<()> {
        if self.is_valid() {
            return Ok(());
        }
        Err(self.lost_error())
    }

    /// Waits for the end of the epoch.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn lost(&self) -> LostReason {
        self.inner.lost.cancelled().await;
        self.reason()
    }

    /// Why it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<LostReason> {
        self.inner.ended.get().copied()
    }

    /// The condition that this epoch is still alive in etcd, for a transaction of the caller's own.
    #[must_use]
    pub fn fence(&self) -> Compare {
        Compare::created_at(&self.inner.key, self.inner.token)
    }

    /// The key that lives as long as the epoch.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.inner.key
    }

    pub(crate) fn lease(&self) -> i64 {
        self.inner.lease
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.inner.valid_until.lock().unwrap_or_else(PoisonError::into_inner).at
    }

    /// Counts an acknowledged keepalive. `false` when the deadline had already passed: what others may have concluded
    /// from that cannot be taken back.
    pub(crate) fn extend(&self, sent: Instant, ttl: Duration) -> bool {
        let mut valid_until = self.inner.valid_until.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.ended.get().is_some() || valid_until.remaining().is_zero() {
            return false;
        }
        let later = Deadline::of(sent, ttl);
        if later.at > valid_until.at {
            *valid_until = later;
        }
        true
    }

    pub(crate) fn end(&self, reason: LostReason) {
        if self.inner.ended.set(reason).is_ok() {
            tracing::info!(epoch = self.inner.number, %reason, "session epoch ended");
        }
        self.inner.lost.cancel();
    }

    /// The error for an operation that found this epoch to have ended.
    #[must_use]
    pub fn lost_error(&self) -> Error {
        Error::SessionLost { epoch: self.inner.number, reason: self.reason() }
    }

    fn reason(&self) -> LostReason {
        self.inner.ended.get().copied().unwrap_or(LostReason::Deadline)
    }
}

/// The lease's number is a capability on servers without authentication: it is not shown.
impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch")
            .field("number", &self.inner.number)
            .field("id", &self.inner.id)
            .field("token", &self.inner.token)
            .field("remaining", &self.remaining())
            .field("ended", &self.inner.ended.get())
            .finish_non_exhaustive()
    }
}

/// A reserve for clocks that run at different speeds (ordinary ones differ by less than a thousandth) and for the time between
/// asking whether an epoch is valid and acting on the answer.
fn margin(ttl: Duration) -> Duration {
    (ttl / 20).max(Duration::from_millis(200)).min(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Namespace;

    fn epoch(ttl: Duration) -> Epoch {
        let key = Namespace::default().prefix("x").unwrap().key("e").unwrap();
        Epoch::new(1, "e".into(), Granted { id: 7, ttl, sent: Instant::now() }, key, 3)
    }

    #[tokio::test(start_paused = true)]
    async fn validity_counts_from_the_sending_and_ends_before_the_lease() {
        let epoch = epoch(Duration::from_secs(10));
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(epoch.extend(sent, Duration::from_secs(10)), "an answer that took 4 s");
        assert_eq!(
            epoch.remaining(),
            Duration::from_millis(5500),
            "10 s less the 4 s of the answer less the margin"
        );
        tokio::time::advance(Duration::from_millis(5500)).await;
        assert!(!epoch.is_valid());
        assert!(matches!(epoch.check(), Err(Error::SessionLost { epoch: 1, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn an_epoch_that_outlived_its_deadline_is_never_revived() {
        let epoch = epoch(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!epoch.extend(Instant::now(), Duration::from_secs(2)));
        assert!(!epoch.is_valid());
    }

    #[tokio::test]
    async fn time_that_passed_while_the_machine_slept_counts() {
        let epoch = epoch(Duration::from_secs(10));
        assert!(epoch.is_valid());
        let then = Slept::now().less(Duration::from_secs(60));
        if Slept::now().since(then).is_zero() {
            return; // This machine has never slept so long, or does not say.
        }
        epoch.inner.valid_until.lock().unwrap().slept = then;
        assert!(!epoch.is_valid(), "it has slept since");
        assert!(!epoch.extend(Instant::now(), Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_epoch_says_why() {
        let epoch = epoch(Duration::from_secs(2));
        epoch.end(LostReason::Expired);
        epoch.end(LostReason::Closed);
        assert_eq!(epoch.lost().await, LostReason::Expired);
        assert!(!epoch.is_valid());
    }

    #[test]
    fn the_lease_number_stays_out_of_debug() {
        let key = Namespace::default().prefix("x").unwrap().key("e").unwrap();
        let granted = Granted { id: 7_777_777, ttl: Duration::from_secs(1), sent: Instant::now() };
        assert!(!format!("{:?}", Epoch::new(1, "e".into(), granted, key, 3)).contains("7777777"));
    }
}
