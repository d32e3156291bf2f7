//! How a handle waits.

/// Options of [`WaitGroup::with_options`](crate::WaitGroup::with_options).
///
/// They say how *this* handle waits: handles for one group, in one process or in several, may differ.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WaitGroupOptions {
    /// What to do about a group that nothing was ever added to. Default: [`EmptyWait::Wait`].
    pub empty: EmptyWait,
    /// What to do about a worker that died. Default: [`CrashPolicy::Fail`].
    pub crash: CrashPolicy,
}

impl WaitGroupOptions {
    /// Sets [`WaitGroupOptions::empty`].
    #[must_use]
    pub fn empty(mut self, empty: EmptyWait) -> Self {
        self.empty = empty;
        self
    }

    /// Sets [`WaitGroupOptions::crash`].
    #[must_use]
    pub fn crash(mut self, crash: CrashPolicy) -> Self {
        self.crash = crash;
        self
    }
}

/// What [`WaitGroup::wait`](crate::WaitGroup::wait) does with a group that nothing was ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmptyWait {
    /// Waits for the first `add` or `enter`, and then until the group is released. So a waiter may start before the
    /// one who adds.
    #[default]
    Wait,
    /// Returns at once, as Go's `sync.WaitGroup` does.
    Return,
}

/// What [`WaitGroup::wait`](crate::WaitGroup::wait) does about a worker whose session ended, or whose guard was dropped,
/// before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CrashPolicy {
    /// Ends with [`Error::WorkerDied`](crate::Error::WorkerDied), which names them. Nothing is changed: every other
    /// waiter is told the same until somebody [dismisses](crate::WaitGroup::dismiss) them.
    #[default]
    Fail,
    /// Takes them out of the group as if they were done, and goes on waiting. If they were the last, this releases the
    /// group for everybody.
    CountAsDone,
}
