//! A message as a member gets it.

use std::fmt;

use bytes::Bytes;
use sereno_sp::{RESENT, Request};

use crate::error::{Error, Result};
use crate::line::GIVEN_BACK;

/// A message.
///
/// At least once: it is done with when it is acknowledged. Dropped without that, it is given back, and comes again at
/// once, to another member if one has room. At most once: there is nothing to acknowledge.
#[must_use = "a message that is dropped is not acknowledged"]
pub struct Delivery {
    body: Bytes,
    /// What is to be answered; `None` when there is nothing to acknowledge, or it was.
    request: Option<Request>,
}

impl Delivery {
    pub(crate) fn plain(body: Bytes) -> Self {
        Self { body, request: None }
    }

    pub(crate) fn acked(mut request: Request) -> Self {
        Self { body: request.take_body(), request: Some(request) }
    }

    /// The message. Its bytes are a part of the buffer they were read into (up to 64 KiB), which lives as long as they do.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the sender had handed it to a connection before, this member's or another's: then it may have been
    /// processed already, or not. `false` says that nobody can have got it before. Always `false` at most once.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.number() & RESENT != 0)
    }

    /// At least once: the number of the message, the same whenever it comes again. Of any 2^30 messages that a registration
    /// sends to a group, no two have the same: to recognise those that come again.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.request.as_ref().map(|request| request.number() & !RESENT)
    }

    /// Acknowledges it: it does not come again. Queues the acknowledgement and does not wait for it to arrive; when it is lost
    /// on the way, the message comes again. At most once, this does nothing. Returns the message.
    ///
    /// # Errors
    /// [`Error::NotAcknowledged`] when the connection it came by is gone: it comes again, here or elsewhere.
    pub fn ack(mut self) -> Result<Bytes> {
        if let Some(request) = self.request.take() {
            request.reply(Bytes::new()).map_err(|_| Error::NotAcknowledged)?;
        }
        Ok(std::mem::take(&mut self.body))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            // Without the connection it comes again by itself.
            let _ = request.reply(GIVEN_BACK);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("number", &self.number())
            .field("redelivered", &self.is_redelivered())
            .finish()
    }
}
