//! What is counted.

use std::cmp::Reverse;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What the figures are called, in the order of [`Figures`].
pub(crate) const NAMES: [&str; 4] = ["files", "lines", "words", "bytes"];

/// Files, lines, words and bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures(pub(crate) [u64; 4]);

impl Figures {
    /// The figures of one file, in one pass over its bytes: words are what white space separates, and the last line counts
    /// although nothing ends it.
    pub(crate) fn of(text: &[u8]) -> Self {
        let (mut lines, mut words) = (0, 0);
        let (mut in_line, mut in_word) = (false, false);
        for byte in text {
            let is_space = byte.is_ascii_whitespace();
            if !is_space && !in_word {
                words += 1;
            }
            in_word = !is_space;
            if *byte == b'\n' {
                lines += 1;
            }
            in_line = *byte != b'\n';
        }
        Self([1, lines + u64::from(in_line), words, text.len() as u64])
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// More letters make no word. Nor do capitals, nor one letter three times in a row.
pub(crate) const MAX_WORD: usize = 24;

/// The longest words of a text: exact however the text is divided, because no part's eleventh can be among the ten of all.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Longest(pub(crate) Vec<String>);

impl Longest {
    const KEPT: usize = 10;

    /// Of words that somebody might say: the names and the test data in sources are full of others.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut longest = Self::default();
        for word in text.split(|byte| !byte.is_ascii_alphabetic()) {
            let stutters = || word.windows(3).any(|three| matches!(three, [a, b, c] if a == b && b == c));
            if word.len() <= MAX_WORD && word.iter().all(u8::is_ascii_lowercase) && !stutters() {
                longest.take(word);
            }
        }
        longest
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|word| self.take(word.as_bytes()));
    }

    /// Longer before shorter, then by the alphabet.
    fn take(&mut self, word: &[u8]) {
        // Most words are shorter than all that are kept: no need to look further.
        if self.0.len() == Self::KEPT && self.0.last().is_some_and(|last| last.len() > word.len()) {
            return;
        }
        let rank = |word: &[u8]| (Reverse(word.len()), word.to_vec());
        if let Err(at) = self.0.binary_search_by(|kept| rank(kept.as_bytes()).cmp(&rank(word)))
            && let Ok(word) = String::from_utf8(word.to_vec())
            && !word.is_empty()
        {
            self.0.insert(at, word);
            self.0.truncate(Self::KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_figures_one_would_count() {
        assert_eq!(Figures::of(b""), Figures([1, 0, 0, 0]));
        assert_eq!(Figures::of(b"one"), Figures([1, 1, 1, 3]));
        assert_eq!(Figures::of(b"one two\n\n  three\tfour \nfive"), Figures([1, 4, 5, 27]));
        assert_eq!(Figures::of(b"\xff\xfe \x00\r\n"), Figures([1, 1, 2, 6]));
    }

    #[test]
    fn words_that_nobody_says_are_none() {
        let text = b"aaab sass SASSy x_abc 1234 unsaidbecauseoftwentyfiveletters";
        assert_eq!(Longest::of(text).0, ["sass", "abc", "x"]);
    }

    #[test]
    fn the_longest_words_do_not_depend_on_how_a_text_is_divided() {
        let words: Vec<String> = (1..60).map(|n| "abc".repeat(n % 8) + &"yz".repeat(n % 5) + "e").collect();
        let whole = Longest::of(words.join(" ").as_bytes());
        assert_eq!(whole.0.len(), 10);
        assert!(whole.0.windows(2).all(|two| two[0].len() >= two[1].len() && two[0] != two[1]), "{whole:?}");
        for size in [1, 2, 7, 59] {
            let mut merged = Longest::default();
            for part in words.chunks(size) {
                merged.merge(&Longest::of(part.join("-").as_bytes()));
            }
            assert_eq!(merged, whole, "in parts of {size}");
        }
    }
}
