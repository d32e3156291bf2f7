//! How far a subscription has come, and what is missing before the next publish.

use sereno_core::Snapshot;

use crate::message::Delivery;
use crate::position::Position;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) revision: i64,
    pub(crate) count: Count,
}

/// How many publishes of the topic lie before the mark.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Known(u64),
    /// From a position without an ordinal.
    Unknown,
    /// The oldest kept is where it begins: what is missing before that was never asked for.
    Beginning,
}

/// The end of the topic at some revision.
pub(crate) struct End {
    pub(crate) revision: i64,
    /// The revision of the last publish.
    pub(crate) last: i64,
    pub(crate) ordinal: u64,
}

impl End {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let tail = snapshot.entries.first();
        Self {
            revision: snapshot.revision,
            last: tail.map_or(0, |tail| tail.mod_revision),
            ordinal: tail.map_or(0, |tail| tail.version.try_into().unwrap_or(0)),
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position::after(self.revision, self.ordinal)
    }
}

impl Mark {
    /// Behind a position, or before its batch when messages of that are still to come.
    pub(crate) fn behind(position: Position) -> (Self, Option<Position>) {
        let inside = position.remaining > 0;
        let count = match position.ordinal {
            Some(ordinal) => Count::Known(ordinal.saturating_sub(u64::from(inside))),
            None => Count::Unknown,
        };
        let revision = position.revision.saturating_sub(i64::from(inside));
        (Self { revision, count }, inside.then_some(position))
    }

    /// Counts one more publish and says how many are missing before it.
    pub(crate) fn count(&mut self, revision: i64, ordinal: u64) -> Option<Delivery> {
        let before = std::mem::replace(&mut self.count, Count::Known(ordinal));
        self.revision = revision;
        match before {
            Count::Known(before) if ordinal > before => {
                let missed = ordinal - before - 1;
                (missed > 0).then_some(Delivery::Lagged { missed: Some(missed) })
            }
            // Counted anew: the topic was deleted and begun again.
            Count::Known(_) => Some(Delivery::Lagged { missed: None }),
            Count::Unknown | Count::Beginning => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(count: Count) -> Mark {
        Mark { revision: 5, count }
    }

    #[test]
    fn missing_publishes_are_counted_by_their_ordinals() {
        let lagged = |missed| Some(Delivery::Lagged { missed });
        assert_eq!(mark(Count::Known(3)).count(9, 4), None);
        assert_eq!(mark(Count::Known(3)).count(9, 7), lagged(Some(3)));
        assert_eq!(mark(Count::Known(3)).count(9, 1), lagged(None), "counted anew");
        assert_eq!(mark(Count::Unknown).count(9, 7), None);
        assert_eq!(mark(Count::Beginning).count(9, 7), None);
    }

    #[test]
    fn a_position_within_a_batch_begins_before_it() {
        let at = Position { revision: 9, index: 2, ordinal: Some(4), remaining: 1 };
        let (mut mark, within) = Mark::behind(at);
        assert_eq!((mark.revision, within), (8, Some(at)));
        assert_eq!(mark.count(9, 4), None);
        let (mut mark, within) = Mark::behind(Position { remaining: 0, ..at });
        assert_eq!((mark.revision, within), (9, None));
        assert_eq!(mark.count(12, 5), None);
    }
}
