//! Between the hub and one consumer: bounded in items and bytes, never blocking the hub.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::event::Changes;
use crate::error::Error;

const MAX_ITEMS: usize = 1024;
const MAX_BYTES: usize = 8 << 20;

/// What happens when a consumer does not keep up with its watch. The others on the same stream are never held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The backlog stays in etcd: the watch is paused there and resumed from where the consumer is. Nothing is lost
    /// unless etcd compacts that history meanwhile, and that is reported.
    #[default]
    Pause,
    /// The oldest queued changes are dropped, and counted in [`TailItem::Missed`](super::TailItem::Missed).
    DropOldest,
    /// The watch ends with [`Error::TooLarge`].
    End,
}

/// Whether the hub could hand something over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    Taken,
    /// Pause this watch; [`Popped::resume`] will say when it may go on.
    Full,
    /// The watch is over.
    Ended,
}

#[derive(Debug)]
pub(super) enum Item {
    Changes(Changes),
    /// Events dropped under [`Overflow::DropOldest`].
    Missed(u64),
    /// History is gone from the wanted revision on: nothing more will come.
    Compacted(i64),
}

pub(super) struct Popped {
    pub(super) item: Option<Result<Item, Error>>,
    /// The hub waits to be told that there is room again.
    pub(super) resume: bool,
}

#[derive(Default)]
struct State {
    items: VecDeque<Changes>,
    bytes: usize,
    missed: u64,
    paused: bool,
    end: Option<Result<i64, Error>>,
    finished: bool,
    waker: Option<Waker>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    overflow: Overflow,
}

impl Queue {
    pub(super) fn new(overflow: Overflow) -> Self {
        Self { state: Mutex::default(), overflow }
    }

    pub(super) fn push(&self, changes: Changes) -> Push {
        let mut state = self.lock();
        if state.end.is_some() {
            return Push::Ended;
        }
        let size = changes.size();
        let full = |state: &State| {
            !state.items.is_empty() && (state.items.len() >= MAX_ITEMS || state.bytes + size > MAX_BYTES)
        };
        if full(&state) {
            match self.overflow {
                Overflow::Pause => {
                    state.paused = true;
                    return Push::Full;
                }
                Overflow::DropOldest => {
                    while full(&state) {
                        let Some(dropped) = state.items.pop_front() else { break };
                        state.bytes -= dropped.size();
                        state.missed += dropped.events.len() as u64;
                    }
                }
                Overflow::End => {
                    let error =
                        Error::TooLarge { what: "backlog", size: state.bytes + size, limit: MAX_BYTES };
                    state.end = Some(Err(error));
                    wake(&mut state);
                    return Push::Ended;
                }
            }
        }
        state.bytes += size;
        state.items.push_back(changes);
        wake(&mut state);
        Push::Taken
    }

    /// Nothing more will come: history is gone (`Ok`) or the watch cannot go on.
    pub(super) fn end(&self, end: Result<i64, Error>) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        wake(&mut state);
    }

    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Popped> {
        let mut state = self.lock();
        if state.missed > 0 {
            let missed = std::mem::take(&mut state.missed);
            return Poll::Ready(Popped { item: Some(Ok(Item::Missed(missed))), resume: false });
        }
        if let Some(changes) = state.items.pop_front() {
            state.bytes -= changes.size();
            let drained = state.items.len() <= MAX_ITEMS / 4 && state.bytes <= MAX_BYTES / 4;
            let resume = state.paused && drained;
            if resume {
                state.paused = false;
            }
            return Poll::Ready(Popped { item: Some(Ok(Item::Changes(changes))), resume });
        }
        if state.finished {
            return Poll::Ready(Popped { item: None, resume: false });
        }
        let Some(end) = &state.end else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let item = end.clone().map(Item::Compacted);
        state.finished = true;
        Poll::Ready(Popped { item: Some(item), resume: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(state: &mut State) {
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(revision: i64) -> Changes {
        Changes { revision, events: Vec::new() }
    }

    fn pop(queue: &Queue) -> Poll<Popped> {
        queue.poll_pop(&mut Context::from_waker(Waker::noop()))
    }

    fn fill(queue: &Queue) -> i64 {
        let mut revision = 1;
        while queue.push(changes(revision)) == Push::Taken && revision < 5000 {
            revision += 1;
        }
        revision
    }

    #[test]
    fn a_full_queue_pauses_and_says_when_it_may_go_on() {
        let queue = Queue::new(Overflow::Pause);
        assert_eq!(fill(&queue), MAX_ITEMS as i64 + 1);
        let mut popped = 0;
        loop {
            let Poll::Ready(Popped { item: Some(Ok(Item::Changes(_))), resume }) = pop(&queue) else {
                panic!()
            };
            popped += 1;
            if resume {
                break;
            }
        }
        assert_eq!(popped, MAX_ITEMS - MAX_ITEMS / 4);
        assert_eq!(queue.push(changes(9999)), Push::Taken);
    }

    #[test]
    fn dropping_the_oldest_is_counted() {
        let queue = Queue::new(Overflow::DropOldest);
        let event = || Event {
            kind: EventKind::Put,
            kv: KeyValue {
                key: Key::from_store(b"k".to_vec()),
                value: vec![0; 1 << 20].into(),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                lease: 0,
            },
        };
        for revision in 0..20 {
            assert_eq!(queue.push(Changes { revision, events: vec![event()] }), Push::Taken);
        }
        let Poll::Ready(Popped { item: Some(Ok(Item::Missed(missed))), .. }) = pop(&queue) else { panic!() };
        let Poll::Ready(Popped { item: Some(Ok(Item::Changes(first))), .. }) = pop(&queue) else { panic!() };
        assert_eq!(i64::try_from(missed).unwrap(), first.revision);
        assert!(missed > 10);
    }

    #[test]
    fn ending_delivers_what_is_queued_and_then_the_reason_once() {
        let queue = Queue::new(Overflow::Pause);
        queue.push(changes(1));
        queue.end(Err(Error::Stopped));
        assert!(matches!(pop(&queue), Poll::Ready(Popped { item: Some(Ok(Item::Changes(_))), .. })));
        assert!(matches!(pop(&queue), Poll::Ready(Popped { item: Some(Err(Error::Stopped)), .. })));
        assert!(matches!(pop(&queue), Poll::Ready(Popped { item: None, .. })));
        assert_eq!(queue.push(changes(2)), Push::Ended);
    }

    use super::super::event::{Event, EventKind};
    use crate::key::Key;
    use crate::kv::KeyValue;
}
