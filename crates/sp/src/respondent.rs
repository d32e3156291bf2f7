//! RESPONDENT: answers surveys.

use std::sync::Arc;

use bytes::Bytes;

use crate::answering::{Answering, Asked};
use crate::error::Result;
use crate::socket::{Socket, socket};

/// Receives surveys, of several surveyors at once, and answers them in any order.
///
/// Clones are the same socket: each survey is received once. When the last is dropped, everything ends at once.
#[derive(Clone)]
pub struct Respondent {
    socket: Arc<Socket<Answering>>,
}

socket!(Respondent, Answering, respondent);

impl Respondent {
    /// The next survey. Its bytes are a part of the buffer they were read into (up to 64 KiB), which lives as long as they do.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    ///
    /// # Cancel safety
    /// No survey is lost.
    pub async fn recv(&self) -> Result<Question> {
        self.socket.role().inbox.next().await.map(Question)
    }

    /// The next survey, if it is there already.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    pub fn try_recv(&self) -> Result<Option<Question>> {
        Ok(self.socket.role().inbox.try_next()?.map(Question))
    }
}

/// What a surveyor asks. Dropped without a reply it stays unanswered.
pub struct Question(Asked);

impl Question {
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

    /// Answers it, by the connection it came by. Queues the answer and does not wait: how many there can be is bounded by
    /// [`SocketOptions::unanswered`](crate::SocketOptions::unanswered).
    ///
    /// # Errors
    /// [`Error::PeerGone`](crate::Error::PeerGone) when the connection is gone, [`Error::TooLarge`](crate::Error::TooLarge).
    /// The survey then stays unanswered.
    pub fn reply(self, body: impl Into<Bytes>) -> Result<()> {
        self.0.reply(body.into())
    }
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("peer", &self.peer()).field("bytes", &self.body().len()).finish()
    }
}
