//! Kinds of requests, to choose those that a fault applies to.

use std::fmt;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// A read of one key or a range.
    Range,
    /// A write of one key.
    Put,
    /// A deletion of one key or a range.
    DeleteRange,
    /// A transaction.
    Txn,
    /// A compaction.
    Compact,
    /// The grant of a lease.
    LeaseGrant,
    /// The revocation of a lease.
    LeaseRevoke,
    /// One keepalive on a lease stream.
    LeaseKeepAlive,
    /// A query for the remaining time of a lease.
    LeaseTimeToLive,
    /// A query for the list of leases.
    LeaseLeases,
    /// The creation of one watch on a watch stream.
    Watch,
    /// A request to the Maintenance or Cluster service: status, members, alarms.
    Maintenance,
    /// Covers [`Call::Put`], [`Call::DeleteRange`] and [`Call::Txn`]. For scripting faults only: no request has this kind.
    Write,
    /// Covers every request. For scripting faults only: no request has this kind.
    Any,
}

impl Call {
    /// The kinds that requests have.
    pub(crate) const KINDS: [Self; 12] = [
        Self::Range,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compact,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseKeepAlive,
        Self::LeaseTimeToLive,
        Self::LeaseLeases,
        Self::Watch,
        Self::Maintenance,
    ];

    /// Returns whether a fault scripted for `self` applies to a request of kind `kind`.
    #[must_use]
    pub fn covers(self, kind: Self) -> bool {
        match self {
            Self::Any => true,
            Self::Write => matches!(kind, Self::Put | Self::DeleteRange | Self::Txn),
            exact => exact == kind,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
