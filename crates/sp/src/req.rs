//! REQ: requests, and their answers.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::requests::Requests;
use crate::socket::{Socket, socket};

/// Sends requests, many at once, each to one of the peers that are connected, and gets their answers.
///
/// A request is kept until it is answered. It goes to the connection with the fewest unanswered ones that has fewer than
/// [`SocketOptions::window`](crate::SocketOptions::window); at once to another when that connection is lost; and once more after
/// [`SocketOptions::resend`](crate::SocketOptions::resend) without an answer. So it is processed at least once, perhaps more
/// often, as long as this process lives. [`SocketOptions::send_queue`](crate::SocketOptions::send_queue) bounds how many are kept.
///
/// Clones are the same socket; when the last is dropped, everything ends at once and requests stay unanswered.
#[derive(Clone)]
pub struct Req {
    socket: Arc<Socket<Requests>>,
}

socket!(Req, Requests, new);

impl Req {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`], [`Error::Unanswered`].
    ///
    /// # Cancel safety
    /// Cancelled: the request is withdrawn as if its [`Ticket`] was dropped.
    pub async fn request(&self, body: impl Into<Bytes>) -> Result<Bytes> {
        self.send(body).await?.await
    }

    /// Sends a request, when there is room for one more, and returns a ticket for its answer.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: the request was not and will not be sent.
    pub async fn send(&self, body: impl Into<Bytes>) -> Result<Ticket> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        let slots = engine.role.slots().cost(body.len());
        engine.role.slots().take(slots).await?;
        Ticket::new(engine, body)
    }

    /// Sends a request if there is room for it now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`], [`Error::Closed`].
    pub fn try_send(&self, body: impl Into<Bytes>) -> Result<Ticket> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        engine.role.slots().try_take(engine.role.slots().cost(body.len()))?;
        Ticket::new(engine, body)
    }

    /// Sends a request whose answer matters only in that it comes: it is kept, and sent again, until then. See
    /// [`flush`](Self::flush). Costs less than a ticket.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: the request was not and will not be sent.
    pub async fn post(&self, body: impl Into<Bytes>) -> Result<()> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        let requests = &engine.role;
        requests.slots().take(requests.slots().cost(body.len())).await?;
        requests.put(body, None).map(drop)
    }

    /// Like [`post`](Self::post), if there is room now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`], [`Error::Closed`].
    pub fn try_post(&self, body: impl Into<Bytes>) -> Result<()> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        let requests = &engine.role;
        requests.slots().try_take(requests.slots().cost(body.len()))?;
        requests.put(body, None).map(drop)
    }

    /// Posts all, in their order, taking them off the front of `bodies` as there is room for them. Faster than one by one.
    ///
    /// # Errors
    /// [`Error::TooLarge`], for the one that is then first; [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: what is in `bodies` was not and will not be sent, and what is not in it any more was posted.
    pub async fn post_all(&self, bodies: &mut VecDeque<Bytes>) -> Result<()> {
        let engine = self.socket.engine();
        let requests = &engine.role;
        while let Some(first) = bodies.front() {
            engine.check_size(first)?;
            let fits = bodies.iter().take_while(|body| engine.check_size(body).is_ok());
            let (count, _) = requests.slots().take_turn(fits.map(Bytes::len)).await?;
            requests.put_all(|| bodies.drain(..count))?;
        }
        Ok(())
    }

    /// Waits until everything that was sent or posted before has been answered, or withdrawn.
    ///
    /// # Errors
    /// [`Error::Unanswered`] when the socket is closed before that, [`Error::Closed`] when it was closed already.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn flush(&self) -> Result<()> {
        match self.socket.role().flush()? {
            Some(done) => done.await.map_err(|_| Error::Unanswered),
            None => Ok(()),
        }
    }
}

/// The answer to a request, as a future. Cancel safe: it can be awaited again.
///
/// Dropped before the answer came, the request is withdrawn: if it was sent it may be processed, but it is not sent again.
#[must_use = "a request whose ticket is dropped is withdrawn"]
pub struct Ticket {
    number: u32,
    answer: oneshot::Receiver<Bytes>,
    done: bool,
    engine: Arc<Engine<Requests>>,
}

impl Ticket {
    /// Sends a request that the room has been taken for.
    fn new(engine: &Arc<Engine<Requests>>, body: Bytes) -> Result<Self> {
        let (sender, answer) = oneshot::channel();
        let number = engine.role.put(body, Some(sender))?;
        Ok(Self { number, answer, done: false, engine: Arc::clone(engine) })
    }
}

impl Future for Ticket {
    type Output = Result<Bytes>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.done = true;
        Poll::Ready(answer.map_err(|_| Error::Unanswered))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.engine.role.withdraw(self.number);
            self.engine.advanced();
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("done", &self.done).finish_non_exhaustive()
    }
}
