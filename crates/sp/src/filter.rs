//! Which publications a subscriber wants.

use bytes::Bytes;

/// A set of prefixes.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// In order, so that a prefix stands before everything that begins with it.
    prefixes: Vec<Bytes>,
    version: u64,
}

impl Filter {
    /// `false` when it was there already.
    pub(crate) fn insert(&mut self, prefix: Bytes) -> bool {
        let Err(index) = self.prefixes.binary_search(&prefix) else { return false };
        self.prefixes.insert(index, prefix);
        self.version += 1;
        true
    }

    /// `false` when it was not there.
    pub(crate) fn remove(&mut self, prefix: &[u8]) -> bool {
        let Ok(index) = self.prefixes.binary_search_by(|other| other.as_ref().cmp(prefix)) else {
            return false;
        };
        self.prefixes.remove(index);
        self.version += 1;
        true
    }

    /// Changes with every change of the set.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether a message begins with one of the prefixes. Takes a search in the ordered set, and one more for each prefix that
    /// stands between and only begins like the message.
    pub(crate) fn matches(&self, message: &[u8]) -> bool {
        let mut key = message;
        let mut prefixes = self.prefixes.as_slice();
        loop {
            // The greatest prefix that is not after the key. If it begins the message, that is it. If not, then all that do
            // are also no longer than what it has in common with the message.
            let below = prefixes.partition_point(|prefix| prefix.as_ref() <= key);
            let Some((last, rest)) = prefixes.get(..below).and_then(<[Bytes]>::split_last) else {
                return false;
            };
            let common = last.iter().zip(message).take_while(|(a, b)| a == b).count();
            if common == last.len() {
                return true;
            }
            prefixes = rest;
            key = message.get(..common).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_prefix_matches_nothing_and_the_empty_prefix_everything() {
        let mut filter = Filter::default();
        assert!(!filter.matches(b""));
        assert!(!filter.matches(b"a"));
        assert!(filter.insert(Bytes::new()));
        assert!(filter.matches(b""));
        assert!(filter.matches(b"a"));
        assert!(filter.remove(b""));
        assert!(!filter.matches(b""));
    }

    proptest! {
        #[test]
        fn it_matches_what_begins_with_one_of_its_prefixes(
            prefixes in prop::collection::vec("[ab]{0,4}", 0..8),
            removed in prop::collection::vec("[ab]{0,2}", 0..3),
            messages in prop::collection::vec("[abc]{0,6}", 1..20),
        ) {
            let mut filter = Filter::default();
            let mut plain: Vec<String> = Vec::new();
            for prefix in prefixes {
                prop_assert_eq!(filter.insert(Bytes::from(prefix.clone())), !plain.contains(&prefix));
                plain.push(prefix);
            }
            for prefix in removed {
                prop_assert_eq!(filter.remove(prefix.as_bytes()), plain.contains(&prefix));
                plain.retain(|other| *other != prefix);
            }
            for message in messages {
                let expected = plain.iter().any(|prefix| message.starts_with(prefix.as_str()));
                prop_assert_eq!(filter.matches(message.as_bytes()), expected, "{}", message);
            }
        }
    }
}
