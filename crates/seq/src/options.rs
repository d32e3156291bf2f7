//! How a group gives places to its members.

/// How members get their index. All members of a group must use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignment {
    /// Indices are 0, 1, … without gaps, in the order of joining. When a member leaves, all later ones move down by one.
    /// The default, and what etcdseq (Go) does.
    #[default]
    Compact,
    /// A member takes the lowest free slot and keeps it for as long as it stays; nobody else moves when one leaves. Indices
    /// can have gaps, and can be as high as the most members there have been at a time, less one.
    Stable,
}

impl Assignment {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Stable => "stable",
        }
    }

    /// `None` for what this version does not write.
    pub(crate) fn from_word(word: &[u8]) -> Option<Self> {
        [Self::Compact, Self::Stable].into_iter().find(|known| known.word().as_bytes() == word)
    }
}

/// What a member does when it has lost its place: its session's epoch ended, or its seat was deleted underneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnLoss {
    /// Joins again, as the latest one unless its seat is still there. It is told that its position was invalid in between. The
    /// default.
    #[default]
    Rejoin,
    /// Stays out: the position is invalid for good, and streams end.
    Leave,
}

/// Options of [`Sequence::with_options`](crate::Sequence::with_options).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SequenceOptions {
    /// How members get their index. Default: [`Assignment::Compact`].
    pub assignment: Assignment,
    /// What a member does that has lost its place. Default: [`OnLoss::Rejoin`].
    pub on_loss: OnLoss,
}

impl SequenceOptions {
    /// Sets [`SequenceOptions::assignment`].
    #[must_use]
    pub fn assignment(mut self, assignment: Assignment) -> Self {
        self.assignment = assignment;
        self
    }

    /// Sets [`SequenceOptions::on_loss`].
    #[must_use]
    pub fn on_loss(mut self, on_loss: OnLoss) -> Self {
        self.on_loss = on_loss;
        self
    }
}
