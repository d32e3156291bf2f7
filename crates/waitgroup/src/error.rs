//! What can go wrong, as facts a caller can branch on.

use crate::roster::Died;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a wait group.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More was reported done than was added. Nothing was applied, and nobody but this caller is affected.
    ///
    /// Workers that [entered](crate::WaitGroup::enter) do not count here: they are done through their guards.
    #[error("{done} reported done, but only {count} were outstanding")]
    TooManyDone {
        /// What was outstanding of what had been added.
        count: u64,
        /// What was to be taken from it.
        done: u64,
    },
    /// More was added than a group can hold. Nothing was applied.
    #[error("adding {added} makes more than a group can hold")]
    Overflow {
        /// What was to be added.
        added: u64,
    },
    /// Workers died before they were done: their processes crashed, lost their sessions, or dropped their guards.
    #[error("{} died before being done: {}", how_many(.workers.len()), Died::list(.workers))]
    WorkerDied {
        /// All that are known to have died, in the order of their ids. Never empty.
        workers: Vec<Died>,
    },
    /// This worker does not count as alive any more: its sign of life was deleted, though its session had not ended.
    /// Waiters have been told that it died, or it was taken out of the group.
    #[error("worker {id} is no longer part of the group")]
    Dismissed {
        /// The worker's id.
        id: String,
    },
    /// The worker to be dismissed is alive.
    #[error("worker {id} is alive")]
    WorkerAlive {
        /// The worker's id.
        id: String,
    },
    /// [`WaitGroup::remove`](crate::WaitGroup::remove) was refused: something is outstanding. Nothing was applied.
    #[error("{count} are outstanding; wait for them, or use WaitGroup::remove_forced")]
    InUse {
        /// The number outstanding: added and not done, and workers, dead ones included.
        count: u64,
    },
    /// The group was removed, or its keys were deleted, while it was waited for: whether its work was done can no longer be known.
    #[error("the group was removed while it was waited for")]
    Deleted,
    /// What every recipe has in common: etcd, sessions, keys.
    #[error(transparent)]
    Core(#[from] sereno_core::Error),
}

impl Error {
    /// Whether the same call may succeed later *and* is safe to make again: nothing of it was applied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_retryable())
    }

    /// Whether the session (or the epoch of it) on which the operation stood is gone.
    #[must_use]
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_session_lost())
    }

    /// Whether a write may or may not have been applied.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Core(error) if error.is_outcome_unknown())
    }
}

impl From<sereno_core::KeyError> for Error {
    fn from(error: sereno_core::KeyError) -> Self {
        Self::Core(error.into())
    }
}

fn how_many(count: usize) -> String {
    if count == 1 { "a worker".into() } else { format!("{count} workers") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_dead_but_not_all_of_a_multitude() {
        let died = |id: u32| Died { id: format!("e-{id}"), label: format!("node {id}") };
        let error = Error::WorkerDied { workers: vec![died(1)] };
        assert_eq!(error.to_string(), "a worker died before being done: node 1");
        let error = Error::WorkerDied { workers: (0..100).map(died).collect() };
        let message = error.to_string();
        assert!(message.starts_with("100 workers died before being done: node 0, node 1,"), "{message}");
        assert!(message.ends_with("and 92 more"), "{message}");
    }
}
