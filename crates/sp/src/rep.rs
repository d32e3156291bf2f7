//! REP: answers requests.

use std::sync::Arc;

use bytes::Bytes;

use crate::answering::{Answering, Asked};
use crate::error::Result;
use crate::socket::{Socket, socket};

/// Receives requests, of many at once, and answers them in any order.
///
/// Clones are the same socket: each request is received once. When the last is dropped, everything ends at once.
#[derive(Clone)]
pub struct Rep {
    socket: Arc<Socket<Answering>>,
}

socket!(Rep, Answering, rep);

impl Rep {
    /// The next request. Its bytes are a part of the buffer they were read into (up to 64 KiB), which lives as long as they do.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    ///
    /// # Cancel safety
    /// No request is lost.
    pub async fn recv(&self) -> Result<Request> {
        self.socket.role().inbox.next().await.map(Request)
    }

    /// The next request, if it is there already.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    pub fn try_recv(&self) -> Result<Option<Request>> {
        Ok(self.socket.role().inbox.try_next()?.map(Request))
    }

    /// Appends what is there to `to`: at least one request, at most `most`. Returns how many.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    ///
    /// # Cancel safety
    /// No request is lost.
    pub async fn recv_many(&self, to: &mut Vec<Request>, most: usize) -> Result<usize> {
        let mut asked = Vec::new();
        let count = self.socket.role().inbox.many(&mut asked, most).await?;
        to.extend(asked.into_iter().map(Request));
        Ok(count)
    }
}

/// A request. Dropped without a reply it stays unanswered: whoever sent it may send it again.
pub struct Request(Asked);

impl Request {
    /// What it asks.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Which connection it came by: the [`Peer::id`](crate::Peer::id).
    #[must_use]
    pub fn peer(&self) -> u64 {
        self.0.peer()
    }

    /// The number by which its sender knows it, 31 bits; the same when it is sent again, save for
    /// [`RESENT`](crate::RESENT), which senders of this crate set then if they are asked to.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.0.number()
    }

    /// Takes the body out: it is empty from here on.
    #[must_use]
    pub fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.0.body)
    }

    /// Answers it, by the connection it came by. Queues the answer and does not wait: how many there can be is bounded by
    /// [`SocketOptions::unanswered`](crate::SocketOptions::unanswered).
    ///
    /// # Errors
    /// [`Error::PeerGone`](crate::Error::PeerGone) when the connection is gone, [`Error::TooLarge`](crate::Error::TooLarge).
    /// The request then stays unanswered.
    pub fn reply(self, body: impl Into<Bytes>) -> Result<()> {
        self.0.reply(body.into())
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("peer", &self.peer()).field("bytes", &self.body().len()).finish()
    }
}
