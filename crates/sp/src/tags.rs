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
