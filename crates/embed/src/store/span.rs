//! Which keys a request means.

/// One key, or a range of them, as `key` and `range_end` of a request say it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Span {
    /// One key: no `range_end`.
    Key(Vec<u8>),
    /// From a key (included) to another one (not included).
    Range(Vec<u8>, Vec<u8>),
    /// From a key on: a `range_end` of one zero byte.
    From(Vec<u8>),
}

impl Span {
    pub(crate) fn new(key: Vec<u8>, range_end: Vec<u8>) -> Self {
        match range_end.as_slice() {
            [] => Self::Key(key),
            [0] => Self::From(key),
            _ => Self::Range(key, range_end),
        }
    }

    pub(crate) fn start(&self) -> &[u8] {
        match self {
            Self::Key(key) | Self::Range(key, _) | Self::From(key) => key,
        }
    }

    /// Whether a key at or after [`Span::start`] is within.
    pub(crate) fn reaches(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => key == only.as_slice(),
            Self::Range(_, end) => key < end.as_slice(),
            Self::From(_) => true,
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start() && self.reaches(key)
    }

    /// Whether no key can be within.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Range(start, end) if end <= start)
    }

    /// The prefix that all keys within have and no others, if the span is that of a prefix.
    pub(crate) fn prefix(&self) -> Option<&[u8]> {
        let Self::Range(start, end) = self else { return None };
        let (last, head) = end.split_last()?;
        let (last_start, head_start) = start.split_last()?;
        // Where the prefix itself ends in 0xff bytes, its range end is shorter: such a span is treated as any range.
        (head == head_start && last_start.checked_add(1) == Some(*last)).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &[u8], end: &[u8]) -> Span {
        Span::new(key.to_vec(), end.to_vec())
    }

    #[test]
    fn a_span_holds_what_key_and_range_end_say() {
        assert!(span(b"a", b"").contains(b"a") && !span(b"a", b"").contains(b"aa"));
        assert!(span(b"a", b"b").contains(b"a/x") && !span(b"a", b"b").contains(b"b"));
        assert!(span(b"b", b"\0").contains(b"\xff") && !span(b"b", b"\0").contains(b"a"));
        assert!(span(b"b", b"a").is_empty() && span(b"b", b"b").is_empty() && !span(b"b", b"").is_empty());
    }

    #[test]
    fn prefixes_are_recognised() {
        assert_eq!(span(b"a/", b"a0").prefix(), Some(&b"a/"[..]));
        assert_eq!(span(b"a", b"c").prefix(), None);
        assert_eq!(span(b"a", b"").prefix(), None);
        assert_eq!(span(b"a\xff", b"b").prefix(), None);
        assert_eq!(span(b"ab", b"b").prefix(), None);
    }
}
