//! What makes a socket the kind it is.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::event::Peer;
use crate::frame::Frame;
use crate::stats::Refusal;

/// One kind of socket.
///
/// A connection is one task. It hands what it reads to `deliver`, and writes what `take` gives it.
pub(crate) trait Role: Send + Sync + Sized + 'static {
    /// What the socket keeps for each connection.
    type Link: Send + Sync + 'static;
    /// How many bytes messages have before what counts for the largest size.
    const ROOM: usize = 0;
    /// Whether `queued` counts messages until they are answered, those in the hands of a connection included.
    const UNTIL_ANSWERED: bool = false;

    /// The protocol this socket speaks.
    fn ours(&self) -> u16;

    /// The protocol its peers speak.
    fn theirs(&self) -> u16;

    /// A connection is up.
    fn attach(engine: &Arc<Engine<Self>>, peer: &Peer) -> Self::Link;

    /// A connection is gone. What its queue held and is lost is counted here.
    fn detach(engine: &Arc<Engine<Self>>, link: &Self::Link);

    /// Messages came. Takes them out of `frames`; does not return before there was room for them.
    fn deliver(
        engine: &Arc<Engine<Self>>,
        link: &Self::Link,
        frames: &mut Vec<Bytes>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Waits for something to write to this connection and calls [`Engine::took`] with the count, at the moment it leaves
    /// its queue. An error ends the connection. Cancel safe.
    fn take(
        engine: &Arc<Engine<Self>>,
        link: &Self::Link,
        batch: &mut VecDeque<Frame>,
    ) -> impl Future<Output = Result<(), Option<Refusal>>> + Send;

    /// Waits until this side ends the connection, even in the middle of a write to a peer that does not read. Most roles never
    /// do.
    fn refused(_link: &Self::Link) -> impl Future<Output = Refusal> + Send {
        std::future::pending()
    }

    /// So many frames were handed over.
    fn written(_link: &Self::Link, _count: usize) {}

    /// These were taken and not handed over.
    fn unsent(engine: &Arc<Engine<Self>>, _link: &Self::Link, frames: VecDeque<Frame>) {
        engine.lose(frames.len());
    }

    /// How many messages were accepted and are in a queue, or, for requests, unanswered.
    fn queued(&self) -> usize;

    /// What goes on beside the connections from the first address on.
    fn background(_core: &Arc<Engine<Self>>) -> Option<impl Future<Output = ()> + Send + 'static> {
        None::<std::future::Ready<()>>
    }

    /// Nothing is accepted any more.
    fn stop_accepting(&self);

    /// Everything is over: whoever waits for something is told. Returns how many messages were still queued, and are not
    /// any more.
    fn end(&self) -> usize;
}
