//! Which requests a fault is for.

use std::fmt;

/// A kind of request, as a fault names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// A read.
    Range,
    /// A write of one key.
    Put,
    /// A deletion.
    DeleteRange,
    /// A transaction.
    Txn,
    /// A compaction.
    Compact,
    /// A new lease.
    LeaseGrant,
    /// The end of a lease.
    LeaseRevoke,
    /// One keepalive on a lease stream.
    LeaseKeepAlive,
    /// The question how long a lease still lives.
    LeaseTimeToLive,
    /// The list of all leases.
    LeaseLeases,
    /// The beginning of one watch on a stream.
    Watch,
    /// A request about the server itself: its status, members or alarms.
    Maintenance,
    /// [`Call::Put`], [`Call::DeleteRange`] or [`Call::Txn`]. Only for faults: no request is of this kind.
    Write,
    /// Every request. Only for faults: no request is of this kind.
    Any,
}

impl Call {
    /// What requests can be.
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

    /// Whether a fault for `self` is one for a request of kind `kind`.
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
