//! How streams are ended on command.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tonic::Status;

use crate::store::Refusal;

/// How often streams have been ended, and how often only those that want a leader.
///
/// No watch channel, which wakes whom it tells in a random order: the same faults shall be the same run.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    all: AtomicU64,
    leaderless: AtomicU64,
    told: Notify,
}

impl Cuts {
    /// Ends all streams.
    pub(crate) fn cut(&self) {
        self.all.fetch_add(1, Ordering::AcqRel);
        self.told.notify_waiters();
    }

    /// Ends those streams that want a leader.
    pub(crate) fn cut_leaderless(&self) {
        self.leaderless.fetch_add(1, Ordering::AcqRel);
        self.told.notify_waiters();
    }

    fn now(&self) -> (u64, u64) {
        (self.all.load(Ordering::Acquire), self.leaderless.load(Ordering::Acquire))
    }
}

/// What may end one stream. Commands from before it began are not for it.
#[derive(Clone)]
pub(crate) struct Ending {
    cuts: Arc<Cuts>,
    before: (u64, u64),
    wants_leader: bool,
}

impl Ending {
    pub(crate) fn new(cuts: &Arc<Cuts>, wants_leader: bool) -> Self {
        Self { before: cuts.now(), cuts: Arc::clone(cuts), wants_leader }
    }

    /// Waits for the command, and gives the words the stream ends with. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Status {
        loop {
            let mut told = pin!(self.cuts.told.notified());
            // From here on no command is missed.
            told.as_mut().enable();
            let (all, leaderless) = self.cuts.now();
            if all != self.before.0 {
                return Refusal::STOPPED.into();
            }
            if self.wants_leader && leaderless != self.before.1 {
                return Refusal::NO_LEADER.into();
            }
            told.await;
        }
    }
}
