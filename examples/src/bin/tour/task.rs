//! What is said on the two topics of a job.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How many tasks a worker takes at a time. One at a time would be right too, and mean sixteen times as many round trips.
const BATCH: usize = 16;

/// From the leader to the workers. Every worker hears everything, in one order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Count this file.
    Count(Task),
    /// That was all: so many tasks.
    End(usize),
}

/// One file to count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
}

/// From a worker to whoever wants to know: a task's file was counted, and that is on record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct News {
    pub(crate) worker: String,
    pub(crate) task: Task,
}

/// How many batches `tasks` tasks make.
pub(crate) fn batches(tasks: usize) -> usize {
    tasks.div_ceil(BATCH)
}

/// The tasks of a batch, when there are `tasks` in all.
pub(crate) fn tasks_of(batch: usize, tasks: usize) -> Range<usize> {
    let start = batch.saturating_mul(BATCH).min(tasks);
    start..start.saturating_add(BATCH).min(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_in_exactly_one_batch() {
        for tasks in [0, 1, 15, 16, 17, 3000] {
            let divided: Vec<usize> = (0..batches(tasks)).flat_map(|batch| tasks_of(batch, tasks)).collect();
            assert_eq!(divided, (0..tasks).collect::<Vec<usize>>());
            assert!((0..batches(tasks)).all(|batch| !tasks_of(batch, tasks).is_empty()));
            assert!(tasks_of(batches(tasks), tasks).is_empty());
        }
    }
}
