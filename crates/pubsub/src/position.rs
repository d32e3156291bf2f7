//! Where a message is in its topic.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The place of a message in its topic, or a place between messages. Ordered as all subscribers see the messages.
///
/// It can be kept as text ([`Display`](fmt::Display) and [`FromStr`], also through serde) and used for
/// [`From::Position`](crate::From::Position) at any later time, by any process. It means nothing in another store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Position {
    pub(crate) revision: i64,
    pub(crate) index: u32,
    /// The publish's place among all publishes of the topic, from 1; `None` where only its revision is known.
    pub(crate) ordinal: Option<u64>,
    /// How many messages follow in the same batch: at 0 the next message is another publish.
    pub(crate) remaining: u32,
}

impl Position {
    /// Before everything.
    pub(crate) const BEGINNING: Self = Self { revision: 0, index: u32::MAX, ordinal: None, remaining: 0 };

    /// After everything up to `revision`, of which the last publish was the `ordinal`-th.
    pub(crate) fn after(revision: i64, ordinal: u64) -> Self {
        Self { revision, index: u32::MAX, ordinal: Some(ordinal), remaining: 0 }
    }

    /// The store's revision at which the message was published: also the order in which this message stands to every
    /// other change in the same etcd.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Its index within the batch that was published at that revision, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Which publish of the topic it belongs to, from 1, without gaps. A packed batch is one publish. `None` where that
    /// could not be found out after a lost answer.
    #[must_use]
    pub fn ordinal(&self) -> Option<u64> {
        self.ordinal
    }

    fn place(&self) -> (i64, u32) {
        (self.revision, self.index)
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Position {}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

/// `revision.index.ordinal.remaining`, with `-` for an unknown ordinal.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, index, ordinal, remaining } = self;
        match ordinal {
            Some(ordinal) => write!(f, "{revision}.{index}.{ordinal}.{remaining}"),
            None => write!(f, "{revision}.{index}.-.{remaining}"),
        }
    }
}

/// The text is not a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
#[non_exhaustive]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.split('.');
        let mut part = || parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        let (revision, index, ordinal, remaining) = (part(), part(), part(), part());
        let position = (|| {
            let revision = revision?.parse().ok().filter(|revision| *revision >= 0)?;
            let ordinal = match ordinal? {
                "-" => None,
                number => Some(number.parse().ok()?),
            };
            Some(Self { revision, index: index?.parse().ok()?, ordinal, remaining: remaining?.parse().ok()? })
        })();
        match (position, parts.next()) {
            (Some(position), None) => Ok(position),
            _ => Err(InvalidPosition),
        }
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

impl TryFrom<String> for Position {
    type Error = InvalidPosition;

    fn try_from(text: String) -> Result<Self, InvalidPosition> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_is_revision_then_index_whatever_else_is_known() {
        let at = |revision, index, ordinal| Position { revision, index, ordinal, remaining: 0 };
        assert!(at(5, 9, None) < at(6, 0, Some(1)));
        assert!(at(6, 0, None) < at(6, 1, None));
        assert_eq!(at(6, 1, None), at(6, 1, Some(4)));
        assert!(Position::BEGINNING < at(1, 0, None));
        assert!(at(7, 3, None) < Position::after(7, 2) && Position::after(7, 2) < at(8, 0, None));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "1", "1.2.3", "1.2.3.4.5", "-1.0.1.0", "1.x.1.0", "+1.0.1.0", "1.0.1.-", "a.b.c.d"] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(revision in 0..=i64::MAX, index: u32, ordinal: Option<u64>, remaining: u32) {
            let position = Position { revision, index, ordinal, remaining };
            let back: Position = position.to_string().parse().unwrap();
            prop_assert_eq!((back, back.ordinal, back.remaining), (position, ordinal, remaining));
            let json = serde_json::to_string(&position).unwrap();
            prop_assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Position>();
        }
    }
}
