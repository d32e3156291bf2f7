//! Going back to what was, as a cluster does that is restored from a snapshot.

use super::state::State;

/// Why the store cannot go back to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RollBack {
    /// It has been compacted.
    #[error("revision {revision} has been compacted: the oldest one kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        revision: i64,
        /// The oldest one the store can go back to.
        oldest: i64,
    },
    /// It is yet to come.
    #[error("revision {revision} has not been reached: the store is at {current}")]
    Future {
        /// The revision asked for.
        revision: i64,
        /// The revision of the store.
        current: i64,
    },
}

impl State {
    /// Undoes every change after a revision. Leases stay as they are, with the keys they have then; a key whose lease is
    /// gone by now comes back without one. Watchers are told nothing.
    pub(crate) fn roll_back(&mut self, revision: i64) -> Result<(), RollBack> {
        let oldest = self.compacted.max(1);
        if revision < oldest {
            return Err(RollBack::Compacted { revision, oldest });
        }
        if revision > self.revision {
            return Err(RollBack::Future { revision, current: self.revision });
        }
        while self.history.last_revision().is_some_and(|last| last > revision) {
            let Some((change, before)) = self.history.undo() else { break };
            self.quota.remove(&change);
            if let Some(undone) = self.index.remove(&change.key) {
                self.leases.detach(undone.lease, &undone.key);
            }
            if let Some(before) = before {
                self.leases.attach(before.lease, &before.key);
                self.index.insert(before);
            }
        }
        self.revision = revision;
        self.watches.rolled_back(revision);
        Ok(())
    }
}
