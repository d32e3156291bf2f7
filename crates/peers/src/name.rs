//! Names of peers, and how they are written on the wire of survey mode: joined with `|`, and nothing when there are none.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use crate::error::{Error, PublicationFault, Result};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;

/// Stands between names in a publication.
const SEPARATOR: char = '|';

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameFault {
    /// It has no bytes.
    Empty,
    /// It is longer than [`MAX_NAME`].
    TooLong,
    /// It contains `|`, which separates names in survey mode. The mode that stands on etcd allows it.
    Separator,
    /// It is not valid UTF-8.
    NotUtf8,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_NAME} bytes"),
            Self::Separator => f.write_str("it contains `|`, which separates names"),
            Self::NotUtf8 => f.write_str("it is not UTF-8"),
        }
    }
}

/// Refuses what is too short or too long for a name.
pub(crate) fn check_length(name: &str) -> Result<()> {
    length(name.as_bytes()).map_err(|fault| Error::BadName { name: name.to_owned(), fault })
}

/// Refuses what cannot be a name in survey mode.
pub(crate) fn check(name: &str) -> Result<()> {
    parse(name.as_bytes()).map(drop).map_err(|fault| Error::BadName { name: name.to_owned(), fault })
}

/// The name in an answer to a survey.
pub(crate) fn parse(body: &[u8]) -> Result<&str, NameFault> {
    length(body)?;
    let name = std::str::from_utf8(body).map_err(|_| NameFault::NotUtf8)?;
    if name.contains(SEPARATOR) { Err(NameFault::Separator) } else { Ok(name) }
}

fn length(name: &[u8]) -> Result<(), NameFault> {
    match name.len() {
        0 => Err(NameFault::Empty),
        1..=MAX_NAME => Ok(()),
        _ => Err(NameFault::TooLong),
    }
}

/// How names are published.
pub(crate) fn join<'a>(names: impl Iterator<Item = &'a str>) -> Bytes {
    let mut body = String::new();
    for name in names {
        if !body.is_empty() {
            body.push(SEPARATOR);
        }
        body.push_str(name);
    }
    body.into()
}

/// The names that were published, in order, each once. Empty ones are nobody's.
pub(crate) fn split(body: &[u8], most: usize) -> Result<Vec<String>, PublicationFault> {
    let text = std::str::from_utf8(body).map_err(|_| PublicationFault::NotUtf8)?;
    let mut names = BTreeSet::new();
    for name in text.split(SEPARATOR).filter(|name| !name.is_empty()) {
        names.insert(name);
        if names.len() > most {
            return Err(PublicationFault::TooManyNames);
        }
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes_and_no_separator() {
        assert_eq!(parse(b""), Err(NameFault::Empty));
        assert_eq!(parse(&[b'a'; 256]), Err(NameFault::TooLong));
        assert_eq!(parse(b"a|b"), Err(NameFault::Separator));
        assert_eq!(parse(b"a\xff"), Err(NameFault::NotUtf8));
        assert_eq!(parse(&[b'a'; 255]).unwrap().len(), 255);
        assert_eq!(parse("z\u{fc}rich\0\n".as_bytes()), Ok("z\u{fc}rich\0\n"));
        assert!(check_length("a|b").is_ok());
    }

    #[test]
    fn nobody_is_an_empty_message_and_an_empty_message_is_nobody() {
        assert_eq!(join(std::iter::empty()), Bytes::new());
        assert_eq!(split(b"", 9), Ok(Vec::new()));
        assert_eq!(split(b"||", 9), Ok(Vec::new()));
    }

    #[test]
    fn a_publication_is_sorted_and_bounded() {
        assert_eq!(split(b"c|a|b|a", 3), Ok(vec!["a".to_owned(), "b".into(), "c".into()]));
        assert_eq!(split(b"c|a|b", 2), Err(PublicationFault::TooManyNames));
        assert_eq!(split(b"a|\xc3", 9), Err(PublicationFault::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split_again(names in prop::collection::btree_set("[^|]{1,8}", 0..20)) {
            let body = join(names.iter().map(String::as_str));
            prop_assert_eq!(split(&body, 20).unwrap(), names.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_split_or_refused_within_bounds(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(names) = split(&body, 5) {
                prop_assert!(names.len() <= 5 && names.is_sorted() && names.iter().all(|name| !name.is_empty()));
            }
        }
    }
}
