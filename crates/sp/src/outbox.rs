//! What waits to be written to one connection.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use crate::frame::{Frame, WRITE};
use crate::options::Queue;
use crate::slots::Slots;
use crate::sync::lock;

/// A queue for one writer. Putting in never waits.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    slots: Slots,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    slots: usize,
    writer: Option<Waker>,
    closed: bool,
}

impl Outbox {
    /// A queue that [`put_newest`](Self::put_newest) keeps within bounds.
    pub(crate) fn new(queue: Queue) -> Self {
        Self { state: Mutex::default(), slots: Slots::new(queue), most: queue.messages.max(1) }
    }

    /// Puts a frame in, whatever is there; whoever calls this bounds the queue by other means. `false`: the connection is gone.
    pub(crate) fn put(&self, frame: Frame) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        state.queue.push_back(frame);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        true
    }

    /// Whether one more frame of this size fits.
    pub(crate) fn fits(&self, size: usize) -> bool {
        let state = lock(&self.state);
        state.queue.is_empty() || state.slots + self.slots.cost(size) <= self.most
    }

    /// Puts a frame in and drops as many of the oldest as that takes. Returns how many.
    pub(crate) fn put_newest(&self, frame: Frame) -> usize {
        let cost = self.slots.cost(frame.len());
        let mut state = lock(&self.state);
        if state.closed {
            return 1;
        }
        let mut dropped = 0;
        while state.slots + cost > self.most {
            let Some(oldest) = state.queue.pop_front() else { break };
            state.slots -= self.slots.cost(oldest.len());
            dropped += 1;
        }
        state.slots += cost;
        state.queue.push_back(frame);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        dropped
    }

    /// Moves what one write takes to `batch`, when there is something. `false`: the queue is closed. `took` is called under
    /// the lock, so that what left the queue is counted elsewhere at the same moment.
    pub(crate) async fn take(&self, batch: &mut VecDeque<Frame>, mut took: impl FnMut(usize)) -> bool {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.closed {
                return Poll::Ready(false);
            }
            let mut size = 0;
            let mut count = 0;
            while let Some(frame) = state.queue.front() {
                if count > 0 && size + frame.len() > WRITE {
                    break;
                }
                size += frame.len();
                count += 1;
                state.slots = state.slots.saturating_sub(self.slots.cost(frame.len()));
                batch.extend(state.queue.pop_front());
            }
            if count > 0 {
                took(count);
                return Poll::Ready(true);
            }
            state.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).queue.len()
    }

    /// Ends the connection's writing. Returns how many frames were in the queue.
    pub(crate) fn close(&self) -> usize {
        let mut state = lock(&self.state);
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        queue.len()
    }
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}
