//! SUB: publications that begin as wanted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::engine::Engine;
use crate::error::Result;
use crate::event::Peer;
use crate::filter::Filter;
use crate::frame::Frame;
use crate::hello;
use crate::inbox::Inbox;
use crate::options::SocketOptions;
use crate::role::Role;
use crate::socket::{Socket, socket};
use crate::stats::Refusal;
use crate::sync::lock;

/// The receiving end of publications. It wants nothing until it has subscribed to a prefix.
///
/// Publications that were sent before it was connected, or while its connection was lost, do not come. When it does not receive,
/// its connections are not read from, and what is lost then is lost by the publisher. Clones are the same socket: each message
/// is received once. When the last is dropped, everything ends at once.
#[derive(Clone)]
pub struct Sub {
    socket: Arc<Socket<SubRole>>,
}

socket!(Sub, SubRole, new);

impl Sub {
    /// Wants messages that begin with this prefix, from now on; an empty prefix wants all. `false` when it did so already.
    pub fn subscribe(&self, prefix: impl Into<Bytes>) -> bool {
        lock(&self.socket.role().filter).insert(prefix.into())
    }

    /// Wants messages that begin with this prefix no longer, unless another prefix matches them. What has come and is not
    /// received yet goes too. `false` when it had not subscribed to just this prefix.
    pub fn unsubscribe(&self, prefix: impl AsRef<[u8]>) -> bool {
        let role = self.socket.role();
        let mut filter = lock(&role.filter);
        let removed = filter.remove(prefix.as_ref());
        if removed {
            role.inbox.retain(|body: &Bytes| filter.matches(body));
        }
        removed
    }

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

pub(crate) struct SubRole {
    /// Locked while anything is put into the inbox, so that nothing comes in that was unsubscribed from.
    filter: Mutex<Filter>,
    inbox: Inbox<Bytes>,
}

impl SubRole {
    fn new(options: &SocketOptions) -> Self {
        Self { filter: Mutex::default(), inbox: Inbox::new(options.recv_queue) }
    }
}

impl Role for SubRole {
    type Link = ();

    fn ours(&self) -> u16 {
        hello::SUB
    }

    fn theirs(&self) -> u16 {
        hello::PUB
    }

    fn attach(_: &Arc<Engine<Self>>, _: &Peer) {}

    fn detach(_: &Arc<Engine<Self>>, (): &()) {}

    async fn deliver(engine: &Arc<Engine<Self>>, (): &(), frames: &mut Vec<Bytes>) -> Result<(), Refusal> {
        let SubRole { filter, inbox } = &engine.role;
        let choose = |frames: &mut Vec<Bytes>| {
            let filter = lock(filter);
            frames.retain(|body| filter.matches(body));
            filter.version()
        };
        let mut version = choose(frames);
        while !frames.is_empty() {
            let Ok((count, slots)) = inbox.slots().take_turn(frames.iter().map(Bytes::len)).await else {
                // The socket ends, and this connection with it.
                return std::future::pending().await;
            };
            let filter = lock(filter);
            if filter.version() == version {
                inbox.put(frames.drain(..count), slots);
            } else {
                version = filter.version();
                inbox.put(frames.drain(..count).filter(|body| filter.matches(body)), slots);
                frames.retain(|body| filter.matches(body));
            }
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
