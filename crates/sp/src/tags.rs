//! The words before the body of surveys, requests and their answers.
//!
//! `word* | payload`, each word 32 bits, most significant byte first. The last word has its top bit set and is the number
//! of the survey or request; words before it were added by devices on the way, one per hop.

use bytes::{Buf, Bytes};

use crate::stats::Refusal;

/// How many devices a message may have passed.
pub(crate) const MAX_HOPS: usize = 8;
/// How many bytes the words may have.
pub(crate) const ROOM: usize = (MAX_HOPS + 1) * WORD;
/// The bit that marks the last word.
pub(crate) const LAST: u32 = 1 << 31;
const WORD: usize = 4;

/// Splits a message into its words, the last included, and its payload.
///
/// # Errors
/// A message without a last word, or one with more words than hops are allowed.
pub(crate) fn split(mut message: Bytes) -> Result<(Bytes, Bytes), Refusal> {
    let mut rest = message.as_ref();
    for index in 0..=MAX_HOPS {
        let Ok(word) = rest.try_get_u32() else { return Err(Refusal::BadHeader) };
        if word & LAST != 0 {
            let words = message.split_to((index + 1) * WORD);
            return Ok((words, message));
        }
    }
    // What has no last word at all is malformed; what has more words than allowed has come too far.
    while let Ok(word) = rest.try_get_u32() {
        if word & LAST != 0 {
            return Err(Refusal::TooManyHops);
        }
    }
    Err(Refusal::BadHeader)
}

/// Splits an answer to something this socket has sent: one word, its number.
///
/// # Errors
/// A message without a word.
pub(crate) fn number(mut message: Bytes) -> Result<(u32, Bytes), Refusal> {
    match message.try_get_u32() {
        Ok(word) => Ok((word, message)),
        Err(_) => Err(Refusal::BadHeader),
    }
}

/// Splits a survey of the old protocol, which has exactly one word, with or without its top bit.
///
/// # Errors
/// A message without a word.
pub(crate) fn split_old(mut message: Bytes) -> Result<(Bytes, Bytes), Refusal> {
    if message.len() < WORD {
        return Err(Refusal::BadHeader);
    }
    let words = message.split_to(WORD);
    Ok((words, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(hops: &[u32], number: u32, payload: &[u8]) -> Bytes {
        let mut bytes: Vec<u8> = hops.iter().flat_map(|hop| (hop & !LAST).to_be_bytes()).collect();
        bytes.extend((number | LAST).to_be_bytes());
        bytes.extend(payload);
        bytes.into()
    }

    proptest! {
        #[test]
        fn words_and_payload_come_apart_as_they_were_put_together(
            hops in prop::collection::vec(any::<u32>(), 0..12),
            number in any::<u32>(),
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let whole = message(&hops, number, &payload);
            let words = whole.slice(..(hops.len() + 1) * WORD);
            let expected = if hops.len() <= MAX_HOPS { Ok((words, Bytes::from(payload))) } else { Err(Refusal::TooManyHops) };
            prop_assert_eq!(split(whole), expected);
        }

        #[test]
        fn any_bytes_come_apart_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes = Bytes::from(bytes);
            if let Ok((words, payload)) = split(bytes.clone()) {
                prop_assert!(words.len() <= ROOM);
                prop_assert_eq!([words, payload].concat(), bytes.clone());
            }
            prop_assert_eq!(split_old(bytes.clone()).is_ok(), bytes.len() >= WORD);
            prop_assert_eq!(number(bytes.clone()).is_ok(), bytes.len() >= WORD);
        }
    }

    #[test]
    fn a_message_without_a_last_word_is_malformed() {
        for bytes in [&b""[..], b"\x80", b"\x80\0\0", b"\0\0\0\x01", b"\0\0\0\x01\x80\0\0", &[0; 400]] {
            assert_eq!(split(Bytes::copy_from_slice(bytes)), Err(Refusal::BadHeader), "{bytes:?}");
        }
    }
}
