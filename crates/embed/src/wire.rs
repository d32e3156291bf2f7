//! One connection, which can be cut or frozen under whoever uses it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

const OPEN: u8 = 0;
const FROZEN: u8 = 1;
const CUT: u8 = 2;

/// What a connection runs over.
pub(crate) enum Pipe {
    Tcp(TcpStream),
    Memory(DuplexStream),
}

/// The server's end of a connection.
pub(crate) struct Wire {
    pipe: Pipe,
    switch: Link,
}

/// The switch of a connection. Every request that came over it carries one.
#[derive(Clone)]
pub(crate) struct Link(Arc<Switch>);

#[derive(Default)]
struct Switch {
    state: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Link {
    /// Ends the connection at once: what has not been written yet is lost.
    pub(crate) fn cut(&self) {
        self.set(CUT);
    }

    fn set(&self, state: u8) {
        // A cut is for ever.
        let change = |now: u8| (now != CUT).then_some(state);
        self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok();
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// Whether the connection may be used now; otherwise `waker` is called when that changes.
    fn poll(&self, waker: &AtomicWaker, context: &Context<'_>) -> Poll<io::Result<()>> {
        waker.register(context.waker());
        match self.0.state.load(Ordering::Acquire) {
            OPEN => Poll::Ready(Ok(())),
            FROZEN => Poll::Pending,
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_read(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll(&self.0.reader, context)
    }

    fn poll_write(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll(&self.0.writer, context)
    }
}

/// All connections there are.
#[derive(Default)]
pub(crate) struct Wires {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    links: Vec<Weak<Switch>>,
    frozen: bool,
}

impl Wires {
    pub(crate) fn connect(&self, pipe: Pipe) -> Wire {
        let switch = Arc::new(Switch::default());
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.links.retain(|link| link.strong_count() > 0);
        book.links.push(Arc::downgrade(&switch));
        if book.frozen {
            switch.state.store(FROZEN, Ordering::Release);
        }
        Wire { pipe, switch: Link(switch) }
    }

    pub(crate) fn cut_all(&self) {
        self.set_all(CUT);
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).frozen = frozen;
        self.set_all(if frozen { FROZEN } else { OPEN });
    }

    fn set_all(&self, state: u8) {
        let links = self.book.lock().unwrap_or_else(PoisonError::into_inner).links.clone();
        for link in links.iter().filter_map(Weak::upgrade) {
            Link(link).set(state);
        }
    }
}

impl Connected for Wire {
    type ConnectInfo = Link;

    fn connect_info(&self) -> Link {
        self.switch.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        std::task::ready!(wire.switch.poll_read(context))?;
        match &mut wire.pipe {
            Pipe::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Pipe::Memory(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        std::task::ready!(wire.switch.poll_write(context))?;
        match &mut wire.pipe {
            Pipe::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Pipe::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        std::task::ready!(wire.switch.poll_write(context))?;
        match &mut wire.pipe {
            Pipe::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Pipe::Memory(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.pipe {
            Pipe::Tcp(stream) => stream.is_write_vectored(),
            Pipe::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        std::task::ready!(wire.switch.poll_write(context))?;
        match &mut wire.pipe {
            Pipe::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Pipe::Memory(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        std::task::ready!(wire.switch.poll_write(context))?;
        match &mut wire.pipe {
            Pipe::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Pipe::Memory(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
