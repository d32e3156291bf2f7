//! Counts of what a registration did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mode::Mode;

/// What a [`Registration`](crate::Registration) has done so far: counts that only grow, and each group as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages accepted by `send`.
    pub sent: u64,
    /// Of these, those that there was no group for: they went to nobody.
    pub to_nobody: u64,
    /// Messages dropped because the queue of a group was full, over all groups there were. One that two groups had no room
    /// for counts twice.
    pub dropped: u64,
    /// Messages that were queued for a group when it ended and were not sent or, at least once, not acknowledged. Those
    /// that the network lost with a connection are in no count.
    pub lost: u64,
    /// Keys below the destination's groups that could not be read, when they were last looked at.
    pub malformed: u64,
    /// The groups there are now, by name.
    pub groups: BTreeMap<String, GroupStats>,
}

/// One group as it is now; its counts begin when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// How it gets its messages.
    pub mode: Mode,
    /// How many are connected: members, and others that speak the protocol.
    pub connections: u64,
    /// Messages that wait to be sent or, at least once, for their acknowledgement. Falls again.
    pub queued: u64,
    /// Messages that were handed to the system; at least once: sent again ones count again.
    pub sent: u64,
    /// Messages dropped because the queue was full, or, at most once, with a connection that was lost before they were
    /// written.
    pub dropped: u64,
    /// At least once: messages that were sent, or to be sent, to a connection that was lost, and went to another.
    pub requeued: u64,
    /// At least once: messages sent once more because no acknowledgement came in time, or a member gave them back.
    pub resent: u64,
    /// Whether it let the time of [`WhenFull::WaitUpTo`](crate::WhenFull::WaitUpTo) pass and has taken nothing since.
    pub stalled: bool,
}

/// The counts themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) to_nobody: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

pub(crate) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
