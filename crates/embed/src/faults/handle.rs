//! The handle through which a test injects faults.

use std::fmt;
use std::sync::Arc;

use super::call::Call;
use super::chaos::Chaos;
use super::fault::{Fault, Injected};
use crate::engine::Engine;
use crate::store::RollBack;

/// The faults of a running server: each method makes one happen, at once. Clones command the same server.
///
/// Faults of requests are scripted ([`Faults::next`]) or drawn from a seed ([`Faults::random`]); the other methods change
/// the server itself. [`Faults::calm`] ends everything that lasts. All methods are synchronous and may be called from any
/// thread.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sereno_embed::{Call, Fault, Server};
///
/// let server = Server::start().await?;
/// // The next transaction is applied, but its client gets no answer: the connection is reset.
/// server.faults().next(Call::Txn, 1, Fault::LoseReply);
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

    /// Applies `fault` to the next `count` requests that `call` covers.
    ///
    /// Faults scripted for the same requests are used up in the order in which they were scripted. A scripted fault takes
    /// precedence over a random one.
    pub fn next(&self, call: Call, count: usize, fault: Fault) {
        self.engine.plan(|plan| plan.script(call, count, fault));
    }

    /// Injects random faults from now on, drawn from the seed of `chaos`. Replaces an earlier [`Chaos`].
    pub fn random(&self, chaos: Chaos) {
        self.engine.plan(|plan| plan.randomize(&chaos));
    }

    /// Ends every fault that lasts: scripted and random faults, a missing leader, a full database. Faults that were already
    /// injected are not undone.
    pub fn calm(&self) {
        self.engine.plan(super::plan::Plan::calm);
        self.out_of_space(false);
        self.engine.settle_leases();
    }

    /// Returns the injected faults, oldest first. The server remembers the last 100,000.
    #[must_use]
    pub fn injected(&self) -> Vec<Injected> {
        self.engine.plan(|plan| plan.injected())
    }

    /// Ends all watch and keepalive streams with `Unavailable`, `etcdserver: server stopped`. Connections stay open.
    pub fn cut_streams(&self) {
        self.engine.cut_streams();
    }

    /// Resets every connection. Clients can connect again at once.
    pub fn cut_connections(&self) {
        self.engine.wires.cut_all();
    }

    /// Takes the leader away (`true`) or brings one back (`false`).
    ///
    /// Without a leader, requests that require one are refused and streams that require one are ended; other requests fail
    /// after 7 s. Leases do not expire. When the leader is back, every lease has its whole time to live again, as in etcd
    /// after an election.
    pub fn no_leader(&self, none: bool) {
        self.engine.plan(|plan| plan.no_leader = none);
        self.engine.settle_leases();
        if none {
            self.engine.lose_leader();
        }
    }

    /// Fills the database (`true`) or makes room again (`false`). While it is full, writes and new leases are refused;
    /// reads, deletions and keepalives work.
    pub fn out_of_space(&self, full: bool) {
        self.engine.with(|state, _| state.set_alarm(full));
    }

    /// Compacts the history up to the current revision and returns that revision.
    pub fn compact(&self) -> i64 {
        self.engine.compact_to_head();
        self.engine.with(|state, _| state.compacted())
    }

    /// Expires the lease of one session: its keys are deleted in one revision, as when its process was away for longer than
    /// its time to live. Other leases, such as those by which old messages of a topic age, stay.
    ///
    /// `epoch` is the id of the session's current epoch, `session.epoch().id()`. Returns whether there was such a session.
    /// The session notices, and begins its next epoch under another id.
    pub fn expire_session(&self, epoch: &str) -> bool {
        self.engine.with(|state, _| state.end_session(epoch))
    }

    /// Expires the leases of all sessions, in any namespace, as [`Faults::expire_session`] does for one, and returns how many
    /// there were.
    pub fn expire_all_sessions(&self) -> usize {
        self.engine.with(|state, _| state.end_all_sessions())
    }

    /// Expires the lease with this id, for clients that know the ids of their leases. Its keys are deleted in one revision.
    /// Returns whether there was such a lease.
    pub fn expire_lease(&self, id: i64) -> bool {
        self.engine.with(|state, _| state.end_lease(id))
    }

    /// Expires every lease, those of sessions and all others, and returns how many there were.
    pub fn expire_all_leases(&self) -> usize {
        self.engine.with(|state, _| state.end_all_leases())
    }

    /// Resets the keys to those of an earlier revision, as if the store had been restored from a snapshot. Leases stay.
    /// Watches stay open and are sent nothing until the store passes the revision that they had reached.
    ///
    /// # Errors
    /// [`RollBack`] when the revision was compacted or is in the future.
    pub fn roll_back(&self, revision: i64) -> Result<(), RollBack> {
        self.engine.with(|state, _| state.roll_back(revision))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("injected", &self.injected().len()).finish_non_exhaustive()
    }
}
