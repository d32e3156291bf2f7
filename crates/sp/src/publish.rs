//! PUB: each message to everybody who is connected.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::Frame;
use crate::hello;
use crate::options::{SocketOptions, WhenFull};
use crate::outbox::Outbox;
use crate::role::Role;
use crate::socket::{Socket, socket};
use crate::stats::Refusal;
use crate::sync::lock;

/// The sending end of publications: every message goes to every subscriber that is connected. Its topic is how it begins;
/// subscribers choose, so that everything goes to everybody.
///
/// Every subscriber has a queue of its own ([`SocketOptions::send_queue`]): one that does not keep up loses its oldest messages,
/// or its connection ([`WhenFull`]), and holds up nobody. Clones are the same socket; when the last is dropped, everything ends
/// at once and what is queued is lost.
#[derive(Clone)]
pub struct Pub {
    socket: Arc<Socket<PubRole>>,
}

socket!(Pub, PubRole, new);

impl Pub {
    /// Publishes a message. Does not wait for subscribers; gives way to other tasks now and then.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: the message was not and will not be sent.
    pub async fn send(&self, body: impl Into<Bytes>) -> Result<()> {
        tokio::task::consume_budget().await;
        self.try_send(body)
    }

    /// Publishes a message. Never waits: in a loop without any `.await`, the connections may get no time to write.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`].
    pub fn try_send(&self, body: impl Into<Bytes>) -> Result<()> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        let role = &engine.role;
        if role.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let mut dropped = 0;
        for link in lock(&role.links).iter() {
            let frame = Frame::plain(body.clone());
            dropped += match role.when_full {
                WhenFull::DropOldest => link.outbox.put_newest(frame),
                WhenFull::Disconnect if link.outbox.fits(body.len()) => link.outbox.put_newest(frame),
                WhenFull::Disconnect => {
                    link.slow.cancel();
                    1 + link.outbox.close()
                }
            };
        }
        engine.lose(dropped);
        Ok(())
    }
}

pub(crate) struct PubRole {
    links: Mutex<Vec<Arc<Link>>>,
    queue: crate::options::Queue,
    when_full: WhenFull,
    closed: AtomicBool,
}

pub(crate) struct Link {
    id: u64,
    outbox: Outbox,
    slow: CancellationToken,
}

impl PubRole {
    fn new(options: &SocketOptions) -> Self {
        Self {
            links: Mutex::default(),
            queue: options.send_queue,
            when_full: options.when_full,
            closed: AtomicBool::new(false),
        }
    }
}

impl Role for PubRole {
    type Link = Arc<Link>;

    fn ours(&self) -> u16 {
        hello::PUB
    }

    fn theirs(&self) -> u16 {
        hello::SUB
    }

    fn attach(engine: &Arc<Engine<Self>>, peer: &Peer) -> Arc<Link> {
        let role = &engine.role;
        let link =
            Arc::new(Link { id: peer.id, outbox: Outbox::new(role.queue), slow: CancellationToken::new() });
        lock(&role.links).push(Arc::clone(&link));
        link
    }

    fn detach(engine: &Arc<Engine<Self>>, link: &Arc<Link>) {
        lock(&engine.role.links).retain(|other| other.id != link.id);
        engine.lose(link.outbox.close());
    }

    async fn deliver(_: &Arc<Engine<Self>>, _: &Arc<Link>, _: &mut Vec<Bytes>) -> Result<(), Refusal> {
        Err(Refusal::Unexpected)
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        link: &Arc<Link>,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        if link.outbox.take(batch, |count| engine.took(count)).await {
            return Ok(());
        }
        Err(link.slow.is_cancelled().then_some(Refusal::TooSlow))
    }

    async fn refused(link: &Arc<Link>) -> Refusal {
        link.slow.cancelled().await;
        Refusal::TooSlow
    }

    fn queued(&self) -> usize {
        lock(&self.links).iter().map(|link| link.outbox.len()).sum()
    }

    fn stop_accepting(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn end(&self) -> usize {
        0
    }
}
