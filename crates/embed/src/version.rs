//! What releases of etcd do differently.

use std::fmt;

/// The etcd release whose behaviour a server shows where releases differ: see the table in the crate's documentation.
///
/// Each variant is a release that the differential tests compare the server with. Variants are ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// etcd 3.5.1. etcd 3.4.23 behaves the same.
    V3_5_1,
    /// etcd 3.5.16.
    V3_5_16,
    /// etcd 3.5.30. The default.
    #[default]
    V3_5_30,
}

impl Version {
    /// The number, as the server reports it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3_5_1 => "3.5.1",
            Self::V3_5_16 => "3.5.16",
            Self::V3_5_30 => "3.5.30",
        }
    }

    /// Whether a compaction at the revision of a deletion leaves the deletion to watches from that revision on.
    pub(crate) fn keeps_deletion_at_compaction(self) -> bool {
        self >= Self::V3_5_16
    }

    /// Whether a progress request is dropped while the stream has no watch, or one that is not synchronized.
    pub(crate) fn drops_progress_when_unsynchronized(self) -> bool {
        self >= Self::V3_5_16
    }

    /// Whether a watch gets no progress, requested or not, before the store has reached its start revision.
    pub(crate) fn withholds_progress_before_start(self) -> bool {
        self >= Self::V3_5_30
    }

    /// Whether a watch from a negative revision is refused.
    pub(crate) fn refuses_negative_start(self) -> bool {
        self >= Self::V3_5_30
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
