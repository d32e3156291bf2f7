//! One connection: the hello, then reading and writing until either ends.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::engine::{Engine, Entered};
use crate::frame::{Decoder, Encoder, Frame, Parts};
use crate::hello;
use crate::role::Role;
use crate::stats::{Refusal, add};
use crate::sync::give_way;
use crate::transport::{Raw, Stream};

/// Both directions of a connection after the hello.
pub(crate) struct Pipe {
    source: Source,
    sink: Sink,
}

/// Why a connection ended, or did not begin.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer or the network ended it.
    Gone,
    /// This side did.
    Refused(Refusal),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Exchanges hellos. The caller bounds the time.
pub(crate) async fn handshake<R: Role>(engine: &Engine<R>, raw: Raw) -> Result<Pipe, Refusal> {
    #[cfg(feature = "tls")]
    use crate::frame::Style;
    let (stream, style) = match raw {
        Raw::Stream(stream, style) => (stream, style),
        #[cfg(feature = "tls")]
        Raw::TlsServer(stream, acceptor) => {
            let stream = crate::transport::tls::accept(acceptor, stream).await;
            (stream.map_err(|error| failed(Refusal::Tls, &error))?, Style::Tcp)
        }
        #[cfg(feature = "tls")]
        Raw::TlsClient(stream, connector) => {
            let stream = connector.connect(stream).await;
            (stream.map_err(|error| failed(Refusal::Tls, &error))?, Style::Tcp)
        }
        Raw::Inproc(raw) if raw.theirs == engine.role.theirs() => {
            let source = Source::Channel(raw.receiver, largest(engine));
            return Ok(Pipe { source, sink: Sink::Channel(raw.sender) });
        }
        Raw::Inproc(_) => return Err(Refusal::WrongProtocol),
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let exchange = async {
        writer.write_all(&hello::encode(engine.role.ours())).await?;
        writer.flush().await?;
        let mut theirs = [0; hello::LEN];
        reader.read_exact(&mut theirs).await?;
        io::Result::Ok(theirs)
    };
    let theirs = exchange.await.map_err(|error| failed(Refusal::HandshakeBroken, &error))?;
    if hello::decode(theirs)? != engine.role.theirs() {
        return Err(Refusal::WrongProtocol);
    }
    let ahead = engine.options.recv_buffer.unwrap_or(usize::MAX);
    let decoder = Decoder::new(style, largest(engine), ahead, BytesMut::new());
    Ok(Pipe {
        source: Source::Stream { reader, decoder, begun: None },
        sink: Sink::Stream { writer, encoder: Encoder::new(style), parts: Parts::default() },
    })
}

/// The largest message that may come, with the words before its payload.
fn largest<R: Role>(engine: &Engine<R>) -> usize {
    engine.options.max_message.saturating_add(R::ROOM)
}

/// The cause goes to the log: whoever is refused may not see more than that.
fn failed(why: Refusal, error: &io::Error) -> Refusal {
    tracing::debug!(%why, %error, "a handshake failed");
    why
}

/// Reads and writes until the connection ends.
pub(crate) async fn run<R: Role>(entered: &mut Entered<R>, pipe: Pipe) {
    let Pipe { mut source, mut sink } = pipe;
    let end = {
        let (engine, link) = (&entered.engine, &entered.link);
        let reading = read(engine, link, &mut source);
        let writing = write(engine, link, &mut sink);
        let refused = R::refused(link);
        tokio::pin!(reading, writing, refused);
        // Whoever goes first may use up the task's turn, so they take turns in going first.
        let mut read_first = true;
        std::future::poll_fn(|context| {
            if let Poll::Ready(why) = refused.as_mut().poll(context) {
                return Poll::Ready(End::Refused(why));
            }
            read_first = !read_first;
            for read in [read_first, !read_first] {
                let end = if read { reading.as_mut().poll(context) } else { writing.as_mut().poll(context) };
                if end.is_ready() {
                    return end;
                }
            }
            Poll::Pending
        })
        .await
    };
    if let End::Refused(why) = end {
        entered.why = Some(why);
    }
}

async fn read<R: Role>(engine: &Arc<Engine<R>>, link: &R::Link, source: &mut Source) -> End {
    let mut frames = Vec::new();
    loop {
        if let Err(end) = source.fill(&mut frames, engine.options.frame_time).await {
            return end;
        }
        add(&engine.counters.messages_in, frames.len());
        add(&engine.counters.bytes_in, frames.iter().map(Bytes::len).sum());
        if let Err(why) = R::deliver(engine, link, &mut frames).await {
            return End::Refused(why);
        }
        frames.clear();
        give_way().await;
    }
}

async fn write<R: Role>(engine: &Arc<Engine<R>>, link: &R::Link, sink: &mut Sink) -> End {
    let mut batch = Batch::<R> { engine, link, frames: VecDeque::new() };
    loop {
        match R::take(engine, link, &mut batch.frames).await {
            Ok(()) => {}
            Err(None) => return End::Gone,
            Err(Some(why)) => return End::Refused(why),
        }
        while !batch.frames.is_empty() {
            match sink.write(&batch.frames).await {
                Ok(count) => batch.written(count),
                Err(_) => return End::Gone,
            }
        }
    }
}

/// What a writer has taken and not written yet. Dropping it gives it back to the role.
struct Batch<'a, R: Role> {
    engine: &'a Arc<Engine<R>>,
    link: &'a R::Link,
    frames: VecDeque<Frame>,
}

impl<R: Role> Batch<'_, R> {
    fn written(&mut self, count: usize) {
        let bytes = self.frames.drain(..count).map(|frame| frame.len()).sum();
        add(&self.engine.counters.messages_out, count);
        add(&self.engine.counters.bytes_out, bytes);
        R::written(self.link, count);
        self.engine.settled(count);
    }
}

impl<R: Role> Drop for Batch<'_, R> {
    fn drop(&mut self) {
        let count = self.frames.len();
        if count > 0 {
            R::unsent(self.engine, self.link, std::mem::take(&mut self.frames));
            self.engine.settled(count);
        }
    }
}

/// Where messages come from.
enum Source {
    Stream {
        reader: ReadHalf<Stream>,
        decoder: Decoder,
        /// Since when the message that has begun is waited for.
        begun: Option<Instant>,
    },
    /// Messages, and the largest that may come.
    Channel(mpsc::Receiver<Bytes>, usize),
}

impl Source {
    /// Waits until there are messages and takes all that are whole.
    async fn fill(&mut self, frames: &mut Vec<Bytes>, limit: Option<std::time::Duration>) -> Result<(), End> {
        let (reader, decoder, begun) = match self {
            Self::Stream { reader, decoder, begun } => (reader, decoder, begun),
            Self::Channel(receiver, largest) => {
                if receiver.recv_many(frames, 128).await == 0 {
                    return Err(End::Gone);
                }
                if frames.iter().any(|frame| frame.len() > *largest) {
                    return Err(End::Refused(Refusal::TooLarge));
                }
                return Ok(());
            }
        };
        loop {
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    // What came before counts; the error comes again.
                    Err(_) if !frames.is_empty() => break,
                    Err(why) => return Err(End::Refused(why)),
                }
            }
            if !frames.is_empty() {
                *begun = None;
                return Ok(());
            }
            let count = match limit {
                Some(limit) if decoder.is_partial() => {
                    let deadline = *begun.get_or_insert_with(Instant::now) + limit;
                    let read = reader.read_buf(decoder.room());
                    timeout_at(deadline, read).await.map_err(|_| End::Refused(Refusal::Stalled))??
                }
                _ => reader.read_buf(decoder.room()).await?,
            };
            if count == 0 {
                return Err(End::Gone);
            }
            decoder.has_read(count);
        }
    }
}

/// Where messages go.
enum Sink {
    Stream { writer: WriteHalf<Stream>, encoder: Encoder, parts: Parts },
    Channel(mpsc::Sender<Bytes>),
}

impl Sink {
    /// Hands over some of the frames, from the front, and returns how many.
    async fn write(&mut self, frames: &VecDeque<Frame>) -> io::Result<usize> {
        match self {
            Self::Stream { writer, encoder, parts } => {
                let count = encoder.encode(frames.iter(), parts);
                writer.write_all_buf(parts).await?;
                writer.flush().await?;
                Ok(count)
            }
            Self::Channel(sender) => {
                let Some(frame) = frames.front() else { return Ok(0) };
                let permit = sender.reserve().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                permit.send(frame.clone().into_bytes());
                Ok(1)
            }
        }
    }
}
