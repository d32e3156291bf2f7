//! Who a member is among how many.

use std::fmt;

use sereno_core::LostReason;

use crate::share::{Moves, Share};

/// What a member is at a moment: at a position, or without a valid one.
pub type Standing = std::result::Result<Position, Invalid>;

/// A member's place in its group, as of one moment. It is a value and does not change: ask
/// [`Member::position`](crate::Member::position) whether it still holds.
///
/// Positions are equal when they say the same of the same stay and the same members; the revision does not count.
#[derive(Clone)]
#[non_exhaustive]
pub struct Position {
    /// Its index, from 0. Compact assignment: the number of members that joined before it. Stable: its slot.
    pub index: usize,
    /// How many members have a place.
    pub count: usize,
    /// The number of the session's epoch under which it is held.
    pub epoch: u64,
    /// The revision at which the member joined, anew if it had to rejoin: members are ordered by it.
    pub since: i64,
    /// The revision up to which every change of the group is in.
    pub revision: i64,
    /// The revision at which the place was taken: that of the seat, or of the slot.
    pub(crate) taken: i64,
    pub(crate) share: Share,
}

impl Position {
    /// Whether a key is among this member's share of all keys: see [`Position::partitions`]. Takes time for each member.
    #[must_use]
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.share.owns(key.as_ref())
    }

    /// Which of `partitions` numbered ones, from 0, are this member's. No RPC; takes time for each member and partition.
    ///
    /// Among members with the same view each partition has exactly one owner. When a member comes or goes, only its own
    /// share moves: rendezvous hashing, over the members under compact assignment, where an index says nothing lasting of
    /// who has it, and over the slots under stable assignment, so that whoever takes a slot anew has the share of its former
    /// holder. Two members can have different views for a moment, and both or neither then take a partition for theirs:
    /// what must not overlap needs a [`Claim`](crate::Claim) or a fencing token.
    #[must_use]
    pub fn partitions(&self, partitions: u32) -> Vec<u32> {
        self.share.partitions(partitions)
    }

    /// What of `partitions` was gained and lost between two positions of a member; `None` is no position, and no share.
    #[must_use]
    pub fn moves(before: Option<&Self>, after: Option<&Self>, partitions: u32) -> Moves {
        let share = |position: Option<&Self>| position.map(|position| position.partitions(partitions));
        Moves::between(&share(before).unwrap_or_default(), &share(after).unwrap_or_default())
    }

    /// Whether both are of one stay: no seat, no slot and no epoch was lost in between.
    pub(crate) fn same_stay(&self, other: &Self) -> bool {
        (self.epoch, self.since, self.taken) == (other.epoch, other.since, other.taken)
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.count) == (other.index, other.count)
            && self.same_stay(other)
            && self.share == other.share
    }
}

impl Eq for Position {}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position")
            .field("index", &self.index)
            .field("count", &self.count)
            .field("epoch", &self.epoch)
            .field("since", &self.since)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// As etcdseq (Go) writes it: `index/count`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// Why a member has no valid position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Its seat is there and its place is not known yet: it has just joined or rejoined, or its slot is still to be taken.
    #[error("it has no place yet")]
    Unplaced,
    /// Its seat, or its slot, was deleted or overwritten underneath.
    #[error("its seat was deleted underneath")]
    SeatLost,
    /// The session's epoch has ended, by its own clock or because etcd said so.
    #[error("the session's epoch was lost: {0}")]
    EpochLost(LostReason),
    /// The group cannot be followed at the moment, say for a lost permission. It is tried again.
    #[error("the group cannot be followed")]
    Unwatched,
    /// It has left. Final.
    #[error("it has left")]
    Left,
    /// The session was closed, or its runtime has ended. Final.
    #[error("the session is closed")]
    Closed,
}

impl Invalid {
    /// Whether no position can follow. Under [`OnLoss::Leave`](crate::OnLoss::Leave) none follows a lost seat or epoch either.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Left | Self::Closed)
    }

    pub(crate) fn epoch_lost(reason: LostReason) -> Self {
        match reason {
            LostReason::Closed => Self::Closed,
            reason => Self::EpochLost(reason),
        }
    }
}
