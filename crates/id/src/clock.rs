//! The wall clock, the only one in these crates: ids say when they were made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sereno_core::pace;

/// Where the time of ids comes from: the system's clock, or one of the caller's (say, in tests).
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The system's clock. A time before 1970 counts as 1970.
    #[must_use]
    pub fn system() -> Self {
        Self::new(pace::wall)
    }

    /// A clock that gives the time since the start of 1970, UTC. It may stand still and may be set back.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time since the start of 1970, UTC.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
