//! How fresh and how whole a view is.

use std::time::Duration;

use crate::error::Error;

/// Where what a view says comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// From etcd, which tells changes as they happen.
    Live,
    /// From etcd, which has not been heard for more than 3 s, or cannot be followed at the moment.
    Stale,
    /// From a file of [`DirectoryOptions::cache_dir`](crate::DirectoryOptions::cache_dir): etcd has not been read yet.
    Disk,
}

/// What [`View::status`](crate::View::status) tells of a view. It is of the whole service, also for a view of one shard.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ViewStatus {
    /// Where it comes from.
    pub source: Source,
    /// How old it may be: the time since etcd was last heard, or since the reading when that was later. Below 2 s while all
    /// is well.
    pub age: Duration,
    /// etcd's revision at the last change of a host.
    pub revision: i64,
    /// How many hosts there are, with those that are held.
    pub hosts: usize,
    /// How many hosts the guard holds: their keys are gone.
    pub held: usize,
    /// How many entries cannot be read at the moment.
    pub malformed: usize,
    /// The last few of those, newest first.
    pub recent_malformed: Vec<Malformed>,
    /// How many hosts there are beyond [`DirectoryOptions::max_hosts`](crate::DirectoryOptions::max_hosts).
    pub untaken: usize,
    /// How often it was read as a whole again, because history was compacted or etcd had refused to tell it.
    pub resyncs: u64,
    /// What stands in the way of following, if anything does. With
    /// [`StoreRolledBack`](sereno_core::Error::StoreRolledBack) in it, nothing new will come from this client.
    pub error: Option<Error>,
    /// Why it could not be written to its file the last time.
    pub cache_error: Option<String>,
}

/// An entry that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Malformed {
    /// Its key, escaped for display.
    pub key: String,
    /// What is wrong with it; nothing of the value itself.
    pub reason: String,
}
