//! The count that the job's is checked against: one process, no etcd, and none of the code that the workers count with.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::figures::{Figures, Longest, MAX_WORD};

/// Counts files one after the other.
pub(crate) fn count<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> anyhow::Result<(Figures, Longest)> {
    let [mut files, mut lines, mut words, mut bytes] = [0; 4];
    let mut longest = BTreeSet::new();
    for path in paths {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        files += 1;
        bytes += text.len() as u64;
        lines += text.split_inclusive(|byte| *byte == b'\n').count() as u64;
        words += text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() as u64;
        let text = String::from_utf8_lossy(&text);
        for word in text.split(|letter: char| !letter.is_ascii_alphabetic()) {
            // Whether anybody says a word takes longer to find out than whether it would be among the longest.
            let shortest = longest.last().map_or(0, |(_, word): &(usize, String)| word.len());
            let is_of_interest = longest.len() < 10 || word.len() >= shortest;
            if is_of_interest && !word.is_empty() && is_said(word) {
                longest.insert((usize::MAX - word.len(), word.to_owned()));
                if longest.len() > 10 {
                    longest.pop_last();
                }
            }
        }
    }
    let longest = longest.into_iter().map(|(_, word)| word).collect();
    Ok((Figures([files, lines, words, bytes]), Longest(longest)))
}

fn is_said(word: &str) -> bool {
    let letters: BTreeSet<char> = word.chars().collect();
    let stutters = |letter: &char| word.contains(&letter.to_string().repeat(3));
    word.len() <= MAX_WORD && !letters.iter().any(|letter| letter.is_uppercase() || stutters(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_counting_agree() {
        let folder = tempfile::tempdir().unwrap();
        let texts: [&[u8]; 6] = [
            b"",
            b"\n",
            b"one two\nthree",
            b"\xff\xfe Caf\xc3\xa9s caf\xc3\xa9s\0naive Naivety naiVe\r\n\r\n\tend\x0c",
            b"internationalization localization a bbb ccc dddd eeeee ffffff ggggggg hhhhhhhh iiiiiiiii",
            include_bytes!("plain.rs"),
        ];
        let mut paths = Vec::new();
        let (mut figures, mut longest) = (Figures::default(), Longest::default());
        for (number, text) in texts.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            fs::write(&path, text).unwrap();
            paths.push(path);
            figures += Figures::of(text);
            longest.merge(&Longest::of(text));
        }
        assert_eq!(count(&paths).unwrap(), (figures, longest));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = count(&[PathBuf::from("/no/such/file")]).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file"));
    }
}
