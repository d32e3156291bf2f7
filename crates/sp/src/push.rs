//! PUSH: each message to one of those who are connected.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::{Frame, WRITE};
use crate::hello;
use crate::options::SocketOptions;
use crate::role::Role;
use crate::slots::Slots;
use crate::socket::{Socket, socket};
use crate::stats::{Refusal, add};
use crate::sync::{give_way, lock};

/// How much a connection takes at once when there are others that could have it.
const SHARED_WRITE: usize = 16 * 1024;

/// The sending end of a pipeline: every message goes to one of the pullers that are connected, whichever is free.
///
/// At most once: what a connection had been given when it broke is lost, see the guarantees of this crate. Clones are the
/// same socket; when the last is dropped, everything ends at once and what is queued is lost.
#[derive(Clone)]
pub struct Push {
    socket: Arc<Socket<PushRole>>,
}

socket!(Push, PushRole, new);

impl Push {
    /// Sends a message: queues it, when there is room, for the next puller that is free. Without pullers it waits in the
    /// queue.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: the message was not and will not be sent.
    pub async fn send(&self, body: impl Into<Bytes>) -> Result<()> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        let queue = &engine.role;
        let slots = queue.slots.cost(body.len());
        queue.slots.take(slots).await?;
        queue.put(|messages| messages.push_back(body))
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`],
    /// [`Error::Closed`].
    pub fn try_send(&self, body: impl Into<Bytes>) -> Result<()> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        engine.role.slots.try_take(engine.role.slots.cost(body.len()))?;
        engine.role.put(|messages| messages.push_back(body))
    }

    /// Sends all messages, in their order, taking them off the front of `messages` as there is room for them. Faster than one
    /// by one.
    ///
    /// # Errors
    /// [`Error::TooLarge`], for the message that is then first; [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelled: what is in `messages` was not and will not be sent, and what is not in it any more was.
    pub async fn send_all(&self, messages: &mut VecDeque<Bytes>) -> Result<()> {
        let engine = self.socket.engine();
        let queue = &engine.role;
        while let Some(first) = messages.front() {
            engine.check_size(first)?;
            let fits = messages.iter().take_while(|body| engine.check_size(body).is_ok());
            let (count, _) = queue.slots.take_turn(fits.map(Bytes::len)).await?;
            queue.put(|queued| queued.extend(messages.drain(..count)))?;
        }
        Ok(())
    }
}

pub(crate) struct PushRole {
    queue: Mutex<Queue>,
    slots: Slots,
    requeue: bool,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    /// Connections that have nothing to write. The one that has waited longest gets the next message.
    idle: VecDeque<(u64, Waker)>,
    /// Connections that were called from there and have not come yet.
    called: Vec<u64>,
    connections: usize,
    ended: bool,
}

impl Queue {
    /// The connection to wake for what is in the queue.
    fn call(&mut self) -> Option<Waker> {
        if self.messages.is_empty() {
            return None;
        }
        let (id, writer) = self.idle.pop_front()?;
        self.called.push(id);
        Some(writer)
    }

    /// A connection is there, or gone: either way it is not to be called.
    fn uncall(&mut self, link: u64) {
        self.idle.retain(|(id, _)| *id != link);
        self.called.retain(|id| *id != link);
    }
}

impl PushRole {
    fn new(options: &SocketOptions) -> Self {
        Self { queue: Mutex::default(), slots: Slots::new(options.send_queue), requeue: options.requeue }
    }

    /// Puts in what the room has been taken for.
    fn put(&self, add: impl FnOnce(&mut VecDeque<Bytes>)) -> Result<()> {
        let mut queue = lock(&self.queue);
        if queue.ended {
            return Err(Error::Closed);
        }
        add(&mut queue.messages);
        let writer = queue.call();
        drop(queue);
        wake(writer);
        Ok(())
    }
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

impl Role for PushRole {
    type Link = u64;

    fn ours(&self) -> u16 {
        hello::PUSH
    }

    fn theirs(&self) -> u16 {
        hello::PULL
    }

    fn attach(engine: &Arc<Engine<Self>>, peer: &Peer) -> u64 {
        lock(&engine.role.queue).connections += 1;
        peer.id
    }

    fn detach(engine: &Arc<Engine<Self>>, link: &u64) {
        let mut queue = lock(&engine.role.queue);
        queue.connections -= 1;
        queue.uncall(*link);
        // This one may have been woken for a message that it does not take any more.
        let writer = queue.call();
        drop(queue);
        wake(writer);
    }

    async fn deliver(_: &Arc<Engine<Self>>, _: &u64, _: &mut Vec<Bytes>) -> Result<(), Refusal> {
        Err(Refusal::Unexpected)
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        link: &u64,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        let role = &engine.role;
        if lock(&role.queue).connections > 1 {
            // Those who were called have their turn before this one takes more.
            give_way().await;
        }
        std::future::poll_fn(|context| {
            let mut queue = lock(&role.queue);
            queue.uncall(*link);
            if queue.messages.is_empty() {
                queue.idle.push_back((*link, context.waker().clone()));
                return Poll::Pending;
            }
            // A share for everybody who could take one, this connection included, so that what a stalled peer keeps is little.
            let share = queue.messages.len().div_ceil(queue.idle.len() + queue.called.len() + 1);
            let most = if queue.connections > 1 { SHARED_WRITE } else { WRITE };
            let (mut slots, mut size) = (0, 0);
            while let Some(body) = queue.messages.front() {
                if !batch.is_empty() && (batch.len() >= share || size + body.len() > most) {
                    break;
                }
                size += body.len();
                slots += role.slots.cost(body.len());
                batch.extend(queue.messages.pop_front().map(Frame::plain));
            }
            engine.took(batch.len());
            let next = queue.call();
            drop(queue);
            wake(next);
            role.slots.give_back(slots);
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn unsent(engine: &Arc<Engine<Self>>, _: &u64, frames: VecDeque<Frame>) {
        if !engine.role.requeue {
            return engine.lose(frames.len());
        }
        // They come before all others, and over the bounds of the queue.
        add(&engine.counters.requeued, frames.len());
        let mut queue = lock(&engine.role.queue);
        let mut taken = 0;
        for frame in frames.into_iter().rev() {
            taken += engine.role.slots.cost(frame.body.len());
            queue.messages.push_front(frame.body);
        }
        let writer = queue.call();
        drop(queue);
        engine.role.slots.owe(taken);
        wake(writer);
    }

    fn queued(&self) -> usize {
        lock(&self.queue).messages.len()
    }

    fn stop_accepting(&self) {
        self.slots.close();
    }

    fn end(&self) -> usize {
        let mut queue = lock(&self.queue);
        queue.ended = true;
        let messages = std::mem::take(&mut queue.messages);
        drop(queue);
        messages.len()
    }
}
