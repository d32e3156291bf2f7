//! The latest news of a kept key, for whoever does not hold it.

use tokio::sync::watch;

use super::PresenceStatus;

/// The stream of a presence's states: [`Presence::events`](super::Presence::events). It keeps nothing there.
#[derive(Debug, Clone)]
pub struct PresenceEvents {
    receiver: watch::Receiver<PresenceStatus>,
}

impl PresenceEvents {
    pub(super) fn new(receiver: watch::Receiver<PresenceStatus>) -> Self {
        Self { receiver }
    }

    /// As [`Presence::changed`](super::Presence::changed).
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<PresenceStatus> {
        self.receiver.changed().await.ok()?;
        Some(*self.receiver.borrow_and_update())
    }
}
