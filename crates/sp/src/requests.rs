//! REQ's part of every connection: requests go out by the book, answers come in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::Frame;
use crate::hello;
use crate::ledger::Ledger;
use crate::options::SocketOptions;
use crate::role::Role;
use crate::slots::Slots;
use crate::stats::{Refusal, add};
use crate::sync::lock;
use crate::tags;

/// The role of REQ.
pub(crate) struct Requests {
    /// `None` when the socket is at its end.
    ledger: Mutex<Option<Ledger>>,
    slots: Slots,
    resend: Option<Duration>,
}

impl Requests {
    pub(crate) fn new(options: &SocketOptions) -> Self {
        Self {
            ledger: Mutex::new(Some(Ledger::new(options.window, rand::random()))),
            slots: Slots::new(options.send_queue),
            resend: options.resend,
        }
    }

    /// Works on the book, gives requests to connections, and wakes those. `None` at the end of the socket.
    fn book<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        let mut ledger = lock(&self.ledger);
        let book = ledger.as_mut()?;
        let done = work(book);
        let writers = book.assign();
        drop(ledger);
        writers.into_iter().for_each(Waker::wake);
        Some(done)
    }

    /// The room that is taken before a request is put in; it comes back when the request is answered.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Puts in a request that the room has been taken for. Returns its number.
    pub(crate) fn put(&self, body: Bytes, answer: Option<oneshot::Sender<Bytes>>) -> Result<u32> {
        self.book(|book| book.add(body, answer)).ok_or(Error::Closed)
    }

    /// Puts in several; nothing is taken from `bodies` when it fails.
    pub(crate) fn put_all<I: Iterator<Item = Bytes>>(&self, bodies: impl FnOnce() -> I) -> Result<()> {
        let put = self.book(|book| {
            for body in bodies() {
                book.add(body, None);
            }
        });
        put.ok_or(Error::Closed)
    }

    /// Forgets a request.
    pub(crate) fn withdraw(&self, number: u32) {
        if let Some(request) = self.book(|book| book.withdraw(number)).flatten() {
            self.slots.give_back(self.slots.cost(request.body.len()));
        }
    }

    /// What tells when everything made so far is answered; `None` when it is.
    pub(crate) fn flush(&self) -> Result<Option<oneshot::Receiver<()>>> {
        lock(&self.ledger).as_mut().map(Ledger::flush).ok_or(Error::Closed)
    }
}

impl Role for Requests {
    /// The index of the connection.
    type Link = usize;
    const ROOM: usize = tags::ROOM;
    const UNTIL_ANSWERED: bool = true;

    fn ours(&self) -> u16 {
        hello::REQ
    }

    fn theirs(&self) -> u16 {
        hello::REP
    }

    fn attach(engine: &Arc<Engine<Self>>, _: &Peer) -> usize {
        // At the end of the socket, no index is as good as any: nothing is asked of it.
        engine.role.book(Ledger::connect).unwrap_or(usize::MAX)
    }

    fn detach(engine: &Arc<Engine<Self>>, index: &usize) {
        let back = engine.role.book(|book| book.disconnect(*index));
        add(&engine.counters.requeued, back.unwrap_or_default());
    }

    async fn deliver(
        engine: &Arc<Engine<Self>>,
        index: &usize,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let role = &engine.role;
        let mut answers = Vec::new();
        let (mut late, mut slots) = (0, 0);
        let read = role.book(|book| {
            for frame in frames.drain(..) {
                let (word, body) = tags::number(frame)?;
                if word & tags::LAST == 0 {
                    return Err(Refusal::BadHeader);
                }
                match book.answer(*index, word & !tags::LAST) {
                    Some(request) => {
                        slots += role.slots.cost(request.body.len());
                        answers.extend(request.answer.map(|answer| (answer, body)));
                    }
                    None => late += 1,
                }
            }
            Ok(())
        });
        role.slots.give_back(slots);
        add(&engine.counters.late, late);
        for (answer, body) in answers {
            // Whoever waited for it may have gone.
            let _ = answer.send(body);
        }
        engine.advanced();
        read.unwrap_or(Ok(()))
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        index: &usize,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        std::future::poll_fn(|context| {
            let mut ledger = lock(&engine.role.ledger);
            let up = ledger.as_mut().is_some_and(|book| book.write(*index, batch, context.waker()));
            if up && batch.is_empty() {
                return Poll::Pending;
            }
            engine.took(batch.len());
            Poll::Ready(if up { Ok(()) } else { Err(None) })
        })
        .await
    }

    /// Requests are kept until they are answered: `detach` sends them elsewhere.
    fn unsent(_: &Arc<Engine<Self>>, _: &usize, _: VecDeque<Frame>) {}

    fn queued(&self) -> usize {
        lock(&self.ledger).as_ref().map_or(0, Ledger::len)
    }

    fn background(engine: &Arc<Engine<Self>>) -> Option<impl Future<Output = ()> + Send + 'static> {
        let limit = engine.role.resend?;
        let engine = Arc::clone(engine);
        Some(async move {
            loop {
                sleep((limit / 4).max(Duration::from_millis(1))).await;
                let again = engine.role.book(|book| book.overdue(limit));
                add(&engine.counters.resent, again.unwrap_or_default());
            }
        })
    }

    fn stop_accepting(&self) {
        self.slots.close();
    }

    fn end(&self) -> usize {
        // Tickets and flushes are told by this.
        let book = lock(&self.ledger).take();
        book.map_or(0, |book| book.len())
    }
}
