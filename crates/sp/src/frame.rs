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
