//! The value of a batch.
//!
//! ```text
//! version = 1   u8
//! published     u64, little endian: microseconds since 1970
//! count         u32, little endian: how many messages follow
//! count times:
//!   length      varint: payload length × 2, plus 1 if there are headers
//!   headers     only then: varint of their length in bytes, then pairs of texts (varint length, UTF-8)
//!   payload
//! ```
//! Nothing may follow. Another version is not read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::message::{Draft, Headers, Message, Origin};
use crate::position::Position;

const VERSION: u8 = 1;
const HEAD: usize = 13;

/// Batches under construction.
#[derive(Debug)]
pub(crate) struct Packer {
    value: Vec<u8>,
    count: u32,
}

impl Packer {
    pub(crate) fn new(published: u64) -> Self {
        let mut value = Vec::with_capacity(256);
        value.push(VERSION);
        value.extend_from_slice(&published.to_le_bytes());
        value.extend_from_slice(&0_u32.to_le_bytes());
        Self { value, count: 0 }
    }

    /// Adds a message and gives its index.
    pub(crate) fn push(&mut self, draft: &Draft) -> u32 {
        let index = self.count;
        let length = (draft.payload.len() as u64) << 1;
        if draft.headers.is_empty() {
            put_varint(&mut self.value, length);
        } else {
            put_varint(&mut self.value, length | 1);
            put_varint(&mut self.value, draft.headers.len() as u64);
            self.value.extend_from_slice(&draft.headers);
        }
        self.value.extend_from_slice(&draft.payload);
        self.count += 1;
        index
    }

    pub(crate) fn len(&self) -> usize {
        self.value.len()
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn finish(mut self) -> Bytes {
        if let Some(slot) = self.value.get_mut(9..HEAD) {
            slot.copy_from_slice(&self.count.to_le_bytes());
        }
        self.value.into()
    }
}

/// The most that a message adds to a batch.
pub(crate) fn size(draft: &Draft) -> usize {
    draft.payload.len() + draft.headers.len() + 10
}

/// A batch being taken apart, without copying: every payload is a slice of the value.
#[derive(Debug)]
pub(crate) struct Unpacker {
    value: Bytes,
    at: usize,
    index: u32,
    count: u32,
    revision: i64,
    ordinal: Option<u64>,
    origin: Arc<Origin>,
}

impl Unpacker {
    /// Checks the whole value, so that a batch is either delivered or reported, never half of it.
    pub(crate) fn open(
        value: Bytes,
        publisher: String,
        revision: i64,
        ordinal: Option<u64>,
    ) -> Result<Self, &'static str> {
        let head = value.get(..HEAD).ok_or("the value ends within its head")?;
        let (version, rest) = head.split_first().ok_or("the value is empty")?;
        if *version != VERSION {
            return Err("the value has another version");
        }
        let (published, count) = rest.split_first_chunk::<8>().ok_or("the value ends within its head")?;
        let count = u32::from_le_bytes(count.try_into().map_err(|_| "the value ends within its head")?);
        let published = Duration::from_micros(u64::from_le_bytes(*published));
        let origin = Arc::new(Origin { publisher, published });
        let mut at = HEAD;
        for _ in 0..count {
            let parts = Parts::find(&value, at).ok_or("a message reaches beyond the value")?;
            let mut headers = value.get(parts.headers.0..parts.headers.1).ok_or("headers out of place")?;
            while !headers.is_empty() {
                let pair = take_text(&mut headers).and_then(|_| take_text(&mut headers).map(|_| ()));
                pair.ok_or("headers are not pairs of texts")?;
            }
            at = parts.payload.1;
        }
        if at != value.len() {
            return Err("something follows the last message");
        }
        Ok(Self { value, at: HEAD, index: 0, count, revision, ordinal, origin })
    }

    /// Passes over the messages up to and including `index`.
    pub(crate) fn skip_through(&mut self, index: u32) {
        while self.index <= index && self.next().is_some() {}
    }
}

impl Iterator for Unpacker {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        if self.index >= self.count {
            return None;
        }
        let parts = Parts::find(&self.value, self.at)?;
        self.at = parts.payload.1;
        let encoded = match parts.headers {
            (start, end) if start == end => Bytes::new(),
            (start, end) => self.value.slice(start..end),
        };
        let remaining = self.count - self.index - 1;
        let position =
            Position { revision: self.revision, index: self.index, ordinal: self.ordinal, remaining };
        self.index += 1;
        Some(Message {
            payload: self.value.slice(parts.payload.0..parts.payload.1),
            headers: Headers { encoded },
            position,
            origin: self.origin.clone(),
        })
    }
}

/// Where one message's parts are: always inside the value.
struct Parts {
    headers: (usize, usize),
    payload: (usize, usize),
}

impl Parts {
    fn find(value: &[u8], at: usize) -> Option<Self> {
        let mut rest = value.get(at..)?;
        let length = take_varint(&mut rest)?;
        let headers = if length & 1 == 1 { usize::try_from(take_varint(&mut rest)?).ok()? } else { 0 };
        let headers_at = value.len() - rest.len();
        let payload_at = headers_at.checked_add(headers)?;
        let end = payload_at.checked_add(usize::try_from(length >> 1).ok()?)?;
        (end <= value.len()).then_some(Self { headers: (headers_at, payload_at), payload: (payload_at, end) })
    }
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

pub(crate) fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take_varint(from)?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(value: Bytes) -> Result<Unpacker, &'static str> {
        Unpacker::open(value, "p".into(), 7, Some(3))
    }

    fn pack(drafts: &[Draft]) -> Bytes {
        let mut packer = Packer::new(1_700_000_000_000_000);
        for (index, draft) in drafts.iter().enumerate() {
            assert_eq!(packer.push(draft) as usize, index);
        }
        packer.finish()
    }

    /// The format is a promise to other versions.
    #[test]
    fn the_bytes_are_those_of_version_one() {
        let value = pack(&[Draft::new([0xff, 0x00, 0xfe].as_slice()), Draft::from("x").header("k", "é")]);
        let mut expected = vec![1];
        expected.extend_from_slice(&1_700_000_000_000_000_u64.to_le_bytes());
        expected.extend_from_slice(&[2, 0, 0, 0, 6, 0xff, 0x00, 0xfe, 3, 5, 1, b'k', 2, 0xc3, 0xa9, b'x']);
        assert_eq!(value, expected);
    }

    #[test]
    fn payloads_are_slices_of_the_value() {
        let value = pack(&[Draft::new(vec![7; 1000])]);
        let inside = value.as_ptr_range();
        let message = open(value.clone()).unwrap().next().unwrap();
        assert!(inside.contains(&message.payload.as_ptr()));
    }

    #[test]
    fn every_cut_and_every_addition_is_noticed() {
        let value = pack(&[Draft::from("abc").header("k", "v"), Draft::from("def")]);
        for end in 0..value.len() {
            assert!(open(value.slice(..end)).is_err(), "{end}");
        }
        let longer = [value.as_ref(), &[0]].concat();
        assert!(open(longer.into()).is_err());
        let newer = [&[2], value.get(1..).unwrap()].concat();
        assert!(open(newer.into()).is_err());
    }

    #[test]
    fn skipping_goes_through_the_index_and_no_further() {
        let drafts: Vec<Draft> = (0..5_u8).map(|n| Draft::new(vec![n])).collect();
        let mut messages = open(pack(&drafts)).unwrap();
        messages.skip_through(2);
        let left: Vec<_> = messages.map(|m| (m.position.index, m.position.remaining, m.payload[0])).collect();
        assert_eq!(left, [(3, 1, 3), (4, 0, 4)]);
    }

    fn drafts() -> impl Strategy<Value = Vec<Draft>> {
        let headers = proptest::collection::vec((".{0,8}", ".{0,8}"), 0..3);
        let one = (proptest::collection::vec(any::<u8>(), 0..300), headers).prop_map(|(payload, headers)| {
            headers.iter().fold(Draft::new(payload), |draft, (name, value)| draft.header(name, value))
        });
        proptest::collection::vec(one, 0..20)
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(drafts in drafts()) {
            let value = pack(&drafts);
            let bound: usize = drafts.iter().map(size).sum();
            prop_assert!(value.len() <= HEAD + bound);
            let messages: Vec<Message> = open(value).unwrap().collect();
            prop_assert_eq!(messages.len(), drafts.len());
            for (index, (message, draft)) in messages.iter().zip(&drafts).enumerate() {
                prop_assert_eq!(&message.payload, &draft.payload);
                prop_assert_eq!(message.headers.encoded.as_ref(), draft.headers.as_slice());
                prop_assert_eq!(message.position.index as usize, index);
                prop_assert_eq!(message.position.remaining as usize, drafts.len() - index - 1);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(messages) = open(bytes.into()) {
                messages.for_each(drop);
            }
        }

        #[test]
        fn any_damage_is_read_or_refused(drafts in drafts(), at: prop::sample::Index, byte: u8) {
            let mut value = pack(&drafts).to_vec();
            let at = at.index(value.len());
            value[at] = byte;
            if let Ok(messages) = open(value.into()) {
                messages.for_each(|message| assert!(message.headers.iter().count() <= 1 << 16));
            }
        }
    }
}
