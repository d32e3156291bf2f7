//! The handle by which a test commands faults.

use std::fmt;
use std::sync::Arc;

use super::call::Call;
use super::chaos::Chaos;
use super::fault::{Fault, Injected};
use crate::engine::Engine;
use crate::store::RollBack;

/// Faults of a running server, on command. Everything here takes effect at once and may be called from anywhere.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sereno_embed::{Call, Fault, Server};
///
/// let server = Server::start().await?;
/// server.faults().next(Call::Txn, 1, Fault::LoseReply); // the next transaction is applied, and nobody is told
/// # server.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    engine: Arc<Engine>,
}

impl Faults {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Does this to the next `count` requests of that kind. Several orders for one kind are carried out one after the
    /// other; a scripted fault comes before a random one.
    pub fn next(&self, call: Call, count: usize, fault: Fault) {
        self.engine.plan(|plan| plan.script(call, count, fault));
    }

    /// From now on, does what the seed says. Replaces what was random before.
    pub fn random(&self, chaos: Chaos) {
        self.engine.plan(|plan| plan.randomize(&chaos));
    }

    /// Ends all faults that last: scripted and random ones, no leader, out of space. What has been done stays done.
    pub fn calm(&self) {
        self.engine.plan(super::plan::Plan::calm);
        self.out_of_space(false);
        self.engine.settle_leases();
    }

    /// What has been done to which request, in order: the last 100,000 of them.
    #[must_use]
    pub fn injected(&self) -> Vec<Injected> {
        self.engine.plan(|plan| plan.injected())
    }

    /// Ends all watch and keepalive streams: `Unavailable`, `etcdserver: server stopped`.
    pub fn cut_streams(&self) {
        self.engine.cut_streams();
    }

    /// Resets every connection.
    pub fn cut_connections(&self) {
        self.engine.wires.cut_all();
    }

    /// With `true` there is no leader: requests and streams that ask for one are refused or ended, others get no answer
    /// for 7 s, and no lease runs out. With `false` there is one again, and every lease has its whole time before it.
    pub fn no_leader(&self, none: bool) {
        self.engine.plan(|plan| plan.no_leader = none);
        self.engine.settle_leases();
        if none {
            self.engine.lose_leader();
        }
    }

    /// With `true` the database is full: writes and new leases are refused; deletions, reads and keepalives work.
    pub fn out_of_space(&self, full: bool) {
        self.engine.with(|state, _| state.set_alarm(full));
    }

    /// Forgets the history up to now and returns that revision. One that was compacted before counts as done.
    pub fn compact(&self) -> i64 {
        self.engine.compact_to_head();
        self.engine.with(|state, _| state.compacted())
    }

    /// Ends a lease as if its time were up. False when there is no such lease.
    pub fn expire(&self, lease: i64) -> bool {
        self.engine.with(|state, _| state.end_lease(lease))
    }

    /// Ends a lease as an operator would, which nobody can tell from [`Faults::expire`].
    pub fn revoke(&self, lease: i64) -> bool {
        self.expire(lease)
    }

    /// Ends all leases, and returns how many there were.
    pub fn expire_all(&self) -> usize {
        self.engine.with(|state, _| state.end_all_leases())
    }

    /// Puts the store back to what it was at a revision, as if it had been restored from a snapshot. Leases stay.
    /// Watches go on, and see nothing until the store has passed the revision they had seen.
    ///
    /// # Errors
    /// [`RollBack`] for a revision that has been compacted or is yet to come.
    pub fn roll_back(&self, revision: i64) -> Result<(), RollBack> {
        self.engine.with(|state, _| state.roll_back(revision))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("injected", &self.injected().len()).finish_non_exhaustive()
    }
}
