//! The time by which leases run out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// The clock of a server: its leases live by it, and nothing else does.
///
/// A clone is the same clock.
///
/// ```
/// # use std::time::Duration;
/// let clock = sereno_embed::Clock::manual();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now(), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct Clock {
    inner: Arc<Inner>,
}

struct Inner {
    /// When it was made; `None` for a clock that stands still.
    origin: Option<Instant>,
    /// How far it has been put forward.
    forward: Mutex<Duration>,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
}

/// Whoever must know that the clock was moved.
pub(crate) trait Listener: Send + Sync {
    fn moved(&self);
}

impl Clock {
    /// Goes as time goes: tokio's, so that it obeys a paused runtime. The default.
    #[must_use]
    pub fn real() -> Self {
        Self::new(Some(Instant::now()))
    }

    /// Stands still but for [`Clock::advance`].
    #[must_use]
    pub fn manual() -> Self {
        Self::new(None)
    }

    fn new(origin: Option<Instant>) -> Self {
        let inner = Inner { origin, forward: Mutex::default(), listeners: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The time since it was made, as it counts.
    #[must_use]
    pub fn now(&self) -> Duration {
        let passed = self.inner.origin.map_or(Duration::ZERO, |origin| origin.elapsed());
        passed + *self.inner.forward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it forward, be it a manual clock or a real one. Leases whose time is up then have ended, and their keys are
    /// gone, when this returns.
    pub fn advance(&self, by: Duration) {
        *self.inner.forward.lock().unwrap_or_else(PoisonError::into_inner) += by;
        let mut listeners = self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        let listeners = listeners.clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.moved();
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.inner.origin.is_none()
    }

    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_manual() { "manual" } else { "real" };
        f.debug_struct("Clock").field("kind", &kind).field("now", &self.now()).finish()
    }
}
