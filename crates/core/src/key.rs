//! Keys: a namespace, then prefixes, then a key, each step one escaped segment. No other file knows `/`.
//!
//! ```text
//! sereno/counter/jobs/value
//! ------ ------- ---- -----
//!   |       |      |    `-- key:     Prefix::key("value")
//!   |       |      `------- prefix:  Prefix::join("jobs")
//!   |       `-------------- prefix:  Namespace::prefix("counter")
//!   `---------------------- Namespace
//! ```
//! A segment's bytes outside `[A-Za-z0-9._~-]` are written as `%XX`, and so is a leading dot, because segments that
//! start with a dot are reserved for the core's own keys. A prefix ends in `/` and is never empty: `svc` never matches
//! `svc2`, and no name can leave its recipe.

use std::fmt;

use bytes::Bytes;

/// The longest name (one segment, before escaping), in bytes.
pub const MAX_SEGMENT: usize = 255;
/// The longest whole key, in bytes.
pub const MAX_KEY: usize = 4096;

const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

/// Why a name cannot be a segment of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Names have at least one byte.
    #[error("a name must not be empty")]
    Empty,
    /// A name is longer than [`MAX_SEGMENT`].
    #[error("a name of {len} bytes is too long, at most {MAX_SEGMENT}")]
    TooLong {
        /// The name's length in bytes.
        len: usize,
    },
    /// The whole key would be longer than [`MAX_KEY`].
    #[error("a key of {len} bytes is too long, at most {MAX_KEY}")]
    KeyTooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// A namespace has something other than letters, digits, `.`, `_`, `~`, `-` and single slashes between them.
    #[error("a namespace consists of letters, digits, '.', '_', '~', '-' in segments separated by '/'")]
    BadNamespace,
}

/// The root under which everything of one deployment lives. Default: `sereno`.
///
/// A role that may read and write the range of [`Namespace::root`] can use every recipe, and nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Prefix);

impl Namespace {
    /// A namespace of one or more segments, such as `sereno` or `prod/team-a`; a leading slash is kept.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, too long, or has other characters than those of a plain segment.
    pub fn new(name: &str) -> Result<Self, KeyError> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        if bare.is_empty() {
            return Err(KeyError::Empty);
        }
        for segment in bare.split('/') {
            if segment.is_empty() || segment.starts_with('.') || !segment.bytes().all(is_plain) {
                return Err(KeyError::BadNamespace);
            }
            if segment.len() > MAX_SEGMENT {
                return Err(KeyError::TooLong { len: segment.len() });
            }
        }
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(b'/');
        Prefix::checked(bytes).map(Self)
    }

    /// The prefix of one recipe (or anything else that wants a subtree of its own).
    ///
    /// # Errors
    /// As [`Prefix::join`].
    pub fn prefix(&self, name: impl AsRef<[u8]>) -> Result<Prefix, KeyError> {
        self.0.join(name)
    }

    /// The prefix of everything in this namespace.
    #[must_use]
    pub fn root(&self) -> &Prefix {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Prefix(Bytes::from_static(b"sereno/")))
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

/// A subtree of keys: never empty, always ends in `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Bytes);

impl Prefix {
    fn checked(bytes: Vec<u8>) -> Result<Self, KeyError> {
        if bytes.len() > MAX_KEY {
            return Err(KeyError::KeyTooLong { len: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    /// The subtree of `name` below this one.
    ///
    /// # Errors
    /// [`KeyError::Empty`], [`KeyError::TooLong`] or [`KeyError::KeyTooLong`].
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let mut bytes = self.0.to_vec();
        escape(name.as_ref(), &mut bytes)?;
        bytes.push(b'/');
        Self::checked(bytes)
    }

    /// A subtree no name can collide with: its segment starts with a dot, which [`Prefix::join`] always escapes.
    pub(crate) fn reserved(&self, name: &'static str) -> Self {
        let mut bytes = self.0.to_vec();
        bytes.push(b'.');
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'/');
        Self(bytes.into())
    }

    /// The key of `name` directly below this prefix.
    ///
    /// # Errors
    /// [`KeyError::Empty`], [`KeyError::TooLong`] or [`KeyError::KeyTooLong`].
    pub fn key(&self, name: impl AsRef<[u8]>) -> Result<Key, KeyError> {
        let mut bytes = self.0.to_vec();
        escape(name.as_ref(), &mut bytes)?;
        if bytes.len() > MAX_KEY {
            return Err(KeyError::KeyTooLong { len: bytes.len() });
        }
        Ok(Key(bytes.into()))
    }

    /// The names of the segments of `key` below this prefix: one for a key directly below it, more for deeper ones.
    /// `None` when the key is not below this prefix or is not one that this module wrote.
    #[must_use]
    pub fn parse(&self, key: &Key) -> Option<Vec<Vec<u8>>> {
        let rest = key.0.strip_prefix(self.0.as_ref())?;
        rest.split(|byte| *byte == b'/').map(unescape).collect()
    }

    /// The name of `key` when it lies directly below this prefix and is valid UTF-8.
    #[must_use]
    pub fn child(&self, key: &Key) -> Option<String> {
        let mut names = self.parse(key)?.into_iter();
        let name = names.next()?;
        if names.next().is_some() {
            return None;
        }
        String::from_utf8(name).ok()
    }

    /// Whether `key` lies below this prefix.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// The prefix's bytes, with the final `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// First key after the subtree: the final `/` (0x2f) counted up.
    pub(crate) fn end(&self) -> Vec<u8> {
        let mut end = self.0.to_vec();
        end.pop();
        end.push(b'/' + 1);
        end
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// One key. Made by [`Prefix::key`], or read from etcd.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    pub(crate) fn from_store(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The key's bytes, escaped as they are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", bytes.escape_ascii())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

fn escape(name: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
    if name.is_empty() {
        return Err(KeyError::Empty);
    }
    if name.len() > MAX_SEGMENT {
        return Err(KeyError::TooLong { len: name.len() });
    }
    for (at, byte) in name.iter().enumerate() {
        if is_plain(*byte) && !(at == 0 && *byte == b'.') {
            out.push(*byte);
        } else {
            out.push(b'%');
            for nibble in [byte >> 4, byte & 0xf] {
                out.push(HEX.get(usize::from(nibble)).map_or(b'0', |digit| *digit as u8));
            }
        }
    }
    Ok(())
}

/// The inverse of [`escape`]; `None` for anything that `escape` does not write, so that each name has one key only.
fn unescape(segment: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let high = char::from(*bytes.next()?).to_digit(16)?;
            let low = char::from(*bytes.next()?).to_digit(16)?;
            name.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            name.push(*byte);
        }
    }
    let mut canonical = Vec::with_capacity(segment.len());
    escape(&name, &mut canonical).ok()?;
    (canonical == segment).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> Prefix {
        Namespace::default().prefix("counter").unwrap()
    }

    #[test]
    fn awkward_names_round_trip() {
        for name in [
            &b"/"[..],
            b"%",
            b"%2F",
            b"\0",
            b"\xff\xff",
            b" ",
            "🦉".as_bytes(),
            &[b'a'; 255],
            b".",
            b"..",
            b".s",
        ] {
            let key = prefix().key(name).unwrap();
            assert_eq!(prefix().parse(&key), Some(vec![name.to_vec()]), "{key}");
        }
    }

    #[test]
    fn empty_and_over_long_names_are_refused() {
        assert_eq!(prefix().key(""), Err(KeyError::Empty));
        assert_eq!(prefix().join(""), Err(KeyError::Empty));
        assert_eq!(prefix().key([b'a'; 256]), Err(KeyError::TooLong { len: 256 }));
        let deep =
            prefix().join([0xff; 255]).and_then(|p| p.join([0xff; 255])).and_then(|p| p.join([0xff; 255]));
        let deepest = deep.and_then(|p| p.join([0xff; 255])).and_then(|p| p.join([0xff; 255]));
        assert!(matches!(deepest.and_then(|p| p.join([0xff; 255])), Err(KeyError::KeyTooLong { .. })));
    }

    #[test]
    fn a_prefix_does_not_match_a_longer_sibling() {
        let short = prefix().join("svc").unwrap();
        let long = prefix().join("svc2").unwrap().key("x").unwrap();
        assert!(!short.contains(&long));
        assert!(long.as_bytes() >= short.end().as_slice() || long.as_bytes() < short.as_bytes());
    }

    #[test]
    fn reserved_segments_cannot_be_named() {
        let reserved = prefix().reserved("s");
        let named = prefix().join(".s").unwrap();
        assert_ne!(reserved, named);
        assert!(!reserved.contains(&named.key("x").unwrap()));
    }

    #[test]
    fn namespaces_are_checked() {
        assert!(Namespace::new("prod/team-a").is_ok());
        assert!(Namespace::new("/services").is_ok());
        for bad in ["", "/", "a//b", "a/", "a b", ".s", "a/../b", "%41"] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn foreign_spellings_are_not_parsed() {
        for foreign in
            ["sereno/counter/%6a", "sereno/counter/%2f", "sereno/counter/a b", "sereno/counter/", "other/x"]
        {
            let key = Key::from_store(foreign.as_bytes().to_vec());
            assert_eq!(prefix().parse(&key), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip_and_stay_inside(name in proptest::collection::vec(any::<u8>(), 1..=255)) {
            let key = prefix().key(&name).unwrap();
            prop_assert!(prefix().contains(&key));
            prop_assert!(key.as_bytes() >= prefix().as_bytes() && key.as_bytes() < prefix().end().as_slice());
            prop_assert_eq!(prefix().parse(&key), Some(vec![name]));
        }

        #[test]
        fn different_names_have_different_keys(
            a in proptest::collection::vec(any::<u8>(), 1..=40),
            b in proptest::collection::vec(any::<u8>(), 1..=40),
        ) {
            prop_assume!(a != b);
            prop_assert_ne!(prefix().key(&a).unwrap(), prefix().key(&b).unwrap());
            let inside = prefix().join(&a).unwrap();
            prop_assert!(!inside.contains(&prefix().join(&b).unwrap().key("x").unwrap()));
        }

        #[test]
        fn parsing_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..=60)) {
            let _ = prefix().parse(&Key::from_store(bytes));
        }
    }
}
