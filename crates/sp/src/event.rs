//! Who comes and goes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::address::Address;
use crate::error::{Error, Result};
use crate::stats::Refusal;

/// How many events wait for a reader that does not come.
const KEPT: usize = 256;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// Tells the connections of one socket apart: no two ever have the same.
    pub id: u64,
    /// Where the peer is, such as `tcp://10.0.0.7:40112`. Peers that came by `ipc` or `inproc` have no address of their
    /// own, and are named by ours.
    pub address: String,
    /// The address this socket listens on or dials, by which the connection came to be.
    pub endpoint: Address,
    /// Whether this side dialled.
    pub dialled: bool,
}

/// Something happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer of the right kind is connected.
    Connected(Peer),
    /// It is not any more.
    Disconnected {
        /// Who it was.
        peer: Peer,
        /// Why this side ended it; `None` when the peer or the network did.
        why: Option<Refusal>,
    },
    /// An attempt to dial failed, for another reason than the one before.
    DialFailed {
        /// The address that is dialled.
        address: Address,
        /// The system's reason.
        reason: String,
    },
    /// Somebody was turned away before it was a peer.
    Refused {
        /// Where it came from, or where this side had dialled.
        address: String,
        /// Why.
        why: Refusal,
    },
}

/// The coming and going at a socket, from the moment this was made on. Ends when the socket is closed.
///
/// At most 256 events are kept for a reader that does not come; the number of those that were not is told as
/// [`Error::Missed`]. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<PeerEvent>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event; `None` when the socket is closed.
    ///
    /// # Errors
    /// [`Error::Missed`], after which it goes on.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<PeerEvent>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<PeerEvent>>> {
        // What was kept is older than what was missed.
        match self.events.try_recv() {
            Ok(event) => return Poll::Ready(Some(Ok(event))),
            Err(_) => match self.missed.swap(0, Ordering::Relaxed) {
                0 => {}
                count => return Poll::Ready(Some(Err(Error::Missed { count }))),
            },
        }
        Poll::Ready(ready!(self.events.poll_recv(context)).map(Ok))
    }
}

impl Stream for Events {
    type Item = Result<PeerEvent>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

/// Those who follow a socket's events.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    followers: Vec<(mpsc::Sender<PeerEvent>, Arc<AtomicU64>)>,
}

impl Followers {
    pub(crate) fn add(&mut self) -> Events {
        let (sender, events) = mpsc::channel(KEPT);
        let missed = Arc::new(AtomicU64::new(0));
        self.followers.push((sender, Arc::clone(&missed)));
        Events { events, missed }
    }

    pub(crate) fn tell(&mut self, event: &PeerEvent) {
        self.followers.retain(|(sender, missed)| match sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Ends them all.
    pub(crate) fn end(&mut self) {
        self.followers.clear();
    }
}
