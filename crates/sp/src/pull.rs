//! PULL: messages of all who push.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::error::Result;
use crate::event::Peer;
use crate::frame::Frame;
use crate::hello;
use crate::inbox::Inbox;
use crate::options::SocketOptions;
use crate::role::Role;
use crate::socket::{Socket, socket};
use crate::stats::Refusal;

/// The receiving end of a pipeline. Of all messages pushed, each goes to one puller.
///
/// Connections have their turns, so that none keeps the others waiting. Clones are the same socket: each message is received
/// once. When the last is dropped, everything ends at once and what had come and was not received is lost.
#[derive(Clone)]
pub struct Pull {
    socket: Arc<Socket<PullRole>>,
}

socket!(Pull, PullRole, new);

impl Pull {
    /// The next message. Its bytes are a part of the buffer they were read into (up to 64 KiB), which lives as long as they do.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv(&self) -> Result<Bytes> {
        self.socket.role().inbox.next().await
    }

    /// The next message, if it is there already.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    pub fn try_recv(&self) -> Result<Option<Bytes>> {
        self.socket.role().inbox.try_next()
    }

    /// Appends what is there to `to`: at least one message, at most `most`. Returns how many.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), when nothing is left that came before.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv_many(&self, to: &mut Vec<Bytes>, most: usize) -> Result<usize> {
        self.socket.role().inbox.many(to, most).await
    }
}

pub(crate) struct PullRole {
    inbox: Inbox<Bytes>,
}

impl PullRole {
    fn new(options: &SocketOptions) -> Self {
        Self { inbox: Inbox::new(options.recv_queue) }
    }
}

impl Role for PullRole {
    type Link = ();

    fn ours(&self) -> u16 {
        hello::PULL
    }

    fn theirs(&self) -> u16 {
        hello::PUSH
    }

    fn attach(_: &Arc<Engine<Self>>, _: &Peer) {}

    fn detach(_: &Arc<Engine<Self>>, (): &()) {}

    async fn deliver(engine: &Arc<Engine<Self>>, (): &(), frames: &mut Vec<Bytes>) -> Result<(), Refusal> {
        let inbox = &engine.role.inbox;
        while !frames.is_empty() {
            let Ok((count, slots)) = inbox.slots().take_turn(frames.iter().map(Bytes::len)).await else {
                // The socket ends, and this connection with it.
                return std::future::pending().await;
            };
            inbox.put(frames.drain(..count), slots);
        }
        Ok(())
    }

    async fn take(_: &Arc<Engine<Self>>, (): &(), _: &mut VecDeque<Frame>) -> Result<(), Option<Refusal>> {
        std::future::pending().await
    }

    fn queued(&self) -> usize {
        0
    }

    fn stop_accepting(&self) {
        self.inbox.close();
    }

    fn end(&self) -> usize {
        0
    }
}
