//! The latest news of a session, as a stream.

use tokio::sync::watch;

use super::{SessionState, SessionStatus};

/// The stream of a session's states: [`Session::events`](crate::Session::events).
#[derive(Debug)]
pub struct SessionEvents {
    receiver: watch::Receiver<SessionStatus>,
}

impl SessionEvents {
    pub(super) fn new(receiver: watch::Receiver<SessionStatus>) -> Self {
        Self { receiver }
    }

    /// The next state that differs from the one seen last; the one at the time of [`Session::events`](crate::Session::events) counts as seen.
    /// `None` after the session has ended for good.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<SessionStatus> {
        if self.receiver.borrow().state == SessionState::Closed
            && !self.receiver.has_changed().unwrap_or(false)
        {
            return None;
        }
        self.receiver.changed().await.ok()?;
        Some(*self.receiver.borrow_and_update())
    }
}
