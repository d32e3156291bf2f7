//! Messages as they stand in a stream of bytes: a length, then that many bytes; on Unix sockets a byte 1 before.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::stats::Refusal;

/// The byte before each length on Unix sockets.
const IPC_MESSAGE: u8 = 1;
/// Buffers for reading start at this size, and grow on connections that are busy.
const FIRST_READ: usize = 8 * 1024;
/// Bodies of at least this size are written from where they are; smaller ones are cheaper to copy.
const IN_PLACE: usize = 8 * 1024;
/// How much one write takes at most, a larger body apart.
pub(crate) const WRITE: usize = 64 * 1024;

/// Whether messages have the leading byte of Unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Tcp,
    Ipc,
}

impl Style {
    const fn header(self) -> usize {
        match self {
            Self::Tcp => 8,
            Self::Ipc => 9,
        }
    }
}

/// What stands before the body of a message to be sent.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    None,
    /// One word: the number of a request or survey.
    Word(u32),
    /// The words with which a request or survey came.
    Words(Bytes),
}

/// A message to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

impl Frame {
    pub(crate) fn plain(body: Bytes) -> Self {
        Self { head: Head::None, body }
    }

    /// How many bytes follow the length.
    pub(crate) fn len(&self) -> usize {
        let head = match &self.head {
            Head::None => 0,
            Head::Word(_) => 4,
            Head::Words(words) => words.len(),
        };
        head + self.body.len()
    }

    /// Head and body in one piece; a copy only where there is a head.
    pub(crate) fn into_bytes(self) -> Bytes {
        if matches!(self.head, Head::None) {
            return self.body;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.put_head(&mut whole);
        whole.put_slice(&self.body);
        whole.freeze()
    }

    fn put_head(&self, to: &mut BytesMut) {
        match &self.head {
            Head::None => {}
            Head::Word(word) => to.put_u32(*word),
            Head::Words(words) => to.put_slice(words),
        }
    }
}

/// Cuts a stream of bytes into messages, without copying them.
#[derive(Debug)]
pub(crate) struct Decoder {
    style: Style,
    limit: usize,
    buffer: BytesMut,
    /// How much to make room for when reading.
    chunk: usize,
    largest_chunk: usize,
}

impl Decoder {
    /// Refuses messages of more than `limit` bytes; reads at most `chunk` bytes ahead.
    pub(crate) fn new(style: Style, limit: usize, chunk: usize, begun: BytesMut) -> Self {
        let largest_chunk = chunk.clamp(1024, WRITE);
        Self { style, limit, buffer: begun, chunk: FIRST_READ.min(largest_chunk), largest_chunk }
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// A first byte that begins no message, and a length over the limit, before any room is made for it.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(length) = self.length()? else { return Ok(None) };
        if self.buffer.len() - self.style.header() < length {
            return Ok(None);
        }
        self.buffer.advance(self.style.header());
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The length of the message that begins the buffer, when it is known already.
    fn length(&self) -> Result<Option<usize>, Refusal> {
        let mut head = self.buffer.as_ref();
        if self.style == Style::Ipc {
            match head.try_get_u8() {
                Ok(IPC_MESSAGE) => {}
                Ok(_) => return Err(Refusal::BadFrame),
                Err(_) => return Ok(None),
            }
        }
        let Ok(length) = head.try_get_u64() else { return Ok(None) };
        match usize::try_from(length) {
            Ok(length) if length <= self.limit => Ok(Some(length)),
            _ => Err(Refusal::TooLarge),
        }
    }

    /// Whether a message has begun that is not whole yet.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The buffer to read into, with room in it. The room follows what has come, never what a length promises.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let missing = match self.length() {
            Ok(Some(length)) => (length + self.style.header()).saturating_sub(self.buffer.len()),
            _ => 0,
        };
        let spare = self.buffer.capacity() - self.buffer.len();
        let wanted = missing.min(self.buffer.len().max(self.chunk));
        if spare < wanted.max(self.chunk / 8) {
            self.buffer.reserve(wanted.max(self.chunk));
        }
        &mut self.buffer
    }

    /// Takes note of how much a read brought: a connection that fills its buffer gets a larger one.
    pub(crate) fn has_read(&mut self, count: usize) {
        if count >= self.chunk {
            self.chunk = (self.chunk * 2).min(self.largest_chunk);
        }
    }
}

/// Puts messages together into few and large writes.
#[derive(Debug)]
pub(crate) struct Encoder {
    style: Style,
    scratch: BytesMut,
}

impl Encoder {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, scratch: BytesMut::new() }
    }

    /// Adds frames to `to` until a write is full. Returns how many were added, at least one of any.
    pub(crate) fn encode<'a>(&mut self, frames: impl Iterator<Item = &'a Frame>, to: &mut Parts) -> usize {
        let mut count = 0;
        let mut size = 0;
        for frame in frames {
            if count > 0 && size + frame.len() > WRITE {
                break;
            }
            size += self.style.header() + frame.len();
            count += 1;
            if self.style == Style::Ipc {
                self.scratch.put_u8(IPC_MESSAGE);
            }
            self.scratch.put_u64(frame.len() as u64);
            frame.put_head(&mut self.scratch);
            if frame.body.len() < IN_PLACE {
                self.scratch.put_slice(&frame.body);
            } else {
                to.push(self.scratch.split().freeze());
                to.push(frame.body.clone());
            }
        }
        to.push(self.scratch.split().freeze());
        count
    }
}

/// The pieces of one write.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    parts: std::collections::VecDeque<Bytes>,
}

impl Parts {
    fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.parts.push_back(part);
        }
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part.as_ref())
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [std::io::IoSlice<'a>]) -> usize {
        to.iter_mut().zip(&self.parts).map(|(slot, part)| *slot = std::io::IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1024 * 1024;

    fn style() -> impl Strategy<Value = Style> {
        prop_oneof![Just(Style::Tcp), Just(Style::Ipc)]
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let head = prop_oneof![
            3 => Just(Head::None),
            1 => any::<u32>().prop_map(Head::Word),
            1 => prop::collection::vec(any::<u8>(), 4..36).prop_map(|words| Head::Words(words.into())),
        ];
        let size = prop_oneof![6 => 0..100_usize, 2 => 0..20_000_usize, 1 => 60_000..200_000_usize];
        let frame = (head, size, any::<u8>())
            .prop_map(|(head, size, byte)| Frame { head, body: vec![byte; size].into() });
        prop::collection::vec(frame, 0..12)
    }

    /// Everything as it goes over the wire, write by write.
    fn written(style: Style, frames: &[Frame]) -> Vec<u8> {
        let (mut encoder, mut parts, mut bytes) = (Encoder::new(style), Parts::default(), Vec::new());
        let mut rest = frames;
        while !rest.is_empty() {
            let count = encoder.encode(rest.iter(), &mut parts);
            let size: usize = rest[..count].iter().map(|frame| frame.len() + style.header()).sum();
            assert_eq!(parts.remaining(), size);
            assert!(
                count == 1 || size <= WRITE + count * style.header(),
                "{count} frames in one write of {size}"
            );
            rest = &rest[count..];
            while parts.has_remaining() {
                // As a system that takes what it likes.
                let mut slices = [std::io::IoSlice::new(&[]); 4];
                let filled = parts.chunks_vectored(&mut slices);
                let gathered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = gathered.len().min(10_007);
                bytes.extend_from_slice(&gathered[..taken]);
                parts.advance(taken);
            }
        }
        bytes
    }

    /// What a decoder makes of bytes that come in pieces.
    fn read(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<Vec<Bytes>, Refusal> {
        let mut frames = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() {
                let room = decoder.room();
                let count = piece.len().min(room.capacity() - room.len());
                assert!(count > 0, "no room to read into");
                room.extend_from_slice(&piece[..count]);
                decoder.has_read(count);
                piece = &piece[count..];
                while let Some(frame) = decoder.next()? {
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_written_is_read_wherever_the_stream_is_cut(
            style in style(),
            frames in frames(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            chunk in 1_usize..100_000,
        ) {
            let bytes = written(style, &frames);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut begin) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&bytes[begin..cut]);
                begin = cut;
            }
            pieces.push(&bytes[begin..]);
            let mut decoder = Decoder::new(style, LIMIT, chunk, BytesMut::new());
            let expected: Vec<_> = frames.into_iter().map(Frame::into_bytes).collect();
            prop_assert_eq!(read(&mut decoder, &pieces), Ok(expected));
            prop_assert!(!decoder.is_partial());
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_take_little_room(
            style in style(),
            limit in 0..LIMIT,
            start in prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![0; 5]), Just(vec![1, 0, 0, 0, 0, 0])],
            rest in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let bytes = [start, rest].concat();
            let mut decoder = Decoder::new(style, limit, WRITE, BytesMut::new());
            if let Ok(frames) = read(&mut decoder, &[&bytes]) {
                prop_assert!(frames.iter().all(|frame| frame.len() <= limit));
            }
            let room = decoder.room().capacity();
            prop_assert!(room <= 2 * FIRST_READ, "{} bytes came, and room for {} was made", bytes.len(), room);
        }
    }

    #[test]
    fn a_promised_length_makes_no_room_and_one_over_the_limit_is_refused() {
        for (length, refused) in
            [(LIMIT as u64, false), (LIMIT as u64 + 1, true), (1 << 63, true), (u64::MAX, true)]
        {
            let mut decoder = Decoder::new(Style::Tcp, LIMIT, WRITE, BytesMut::new());
            decoder.room().put_u64(length);
            assert_eq!(decoder.next(), if refused { Err(Refusal::TooLarge) } else { Ok(None) }, "{length}");
            assert!(decoder.room().capacity() <= 2 * FIRST_READ);
        }
    }

    #[test]
    fn a_message_on_a_unix_socket_begins_with_a_one() {
        let frame = Frame::plain(Bytes::from_static(b"hi"));
        assert_eq!(written(Style::Tcp, std::slice::from_ref(&frame)), *b"\0\0\0\0\0\0\0\x02hi");
        let bytes = written(Style::Ipc, &[frame]);
        assert_eq!(bytes, *b"\x01\0\0\0\0\0\0\0\x02hi");
        for first in [0, 2, 255] {
            let mut wrong = bytes.clone();
            wrong[0] = first;
            let mut decoder = Decoder::new(Style::Ipc, LIMIT, WRITE, BytesMut::new());
            assert_eq!(read(&mut decoder, &[&wrong]), Err(Refusal::BadFrame));
        }
    }
}
