//! The requests of a REQ socket, from their sending to their answers.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::engine::{Engine, Role};
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::{Frame, Head, WRITE};
use crate::hello;
use crate::options::SocketOptions;
use crate::slots::Slots;
use crate::stats::{Refusal, add};
use crate::sync::lock;
use crate::tags;

/// The requests that are not answered yet, and who is to answer them.
pub(crate) struct Requests {
    state: Mutex<State>,
    slots: Slots,
    window: usize,
    resend: Option<Duration>,
}

struct State {
    /// How many requests there were: the place of the next.
    made: u64,
    /// The number of the next request.
    next: u32,
    open: HashMap<u32, Open, BuildHasherDefault<NumberHasher>>,
    /// Numbers of requests that no connection has, the next first. Some may be answered already.
    waiting: VecDeque<u32>,
    links: Vec<Option<Link>>,
    /// How many more requests all connections together can have.
    room: usize,
    /// Where the search for a connection begins, so that those that are equal have their turns.
    turn: usize,
    flushes: Vec<Flush>,
    ended: bool,
}

struct Open {
    body: Bytes,
    /// The order in which requests were made.
    place: u64,
    /// The connection that has it.
    link: Option<usize>,
    /// Since when.
    since: Option<Instant>,
    /// Whether that connection has begun to write it.
    written: bool,
    answer: Option<oneshot::Sender<Bytes>>,
}

struct Link {
    unanswered: usize,
    /// How many were taken from it because their answers did not come, since its last answer. Others come before it.
    failed: usize,
    /// Numbers of requests to be written.
    out: VecDeque<u32>,
    writer: Option<Waker>,
}

/// Somebody who waits until all requests made so far are answered.
struct Flush {
    before: u64,
    left: usize,
    done: oneshot::Sender<()>,
}

impl State {
    /// Gives waiting requests to connections that can take them. Returns the writers to wake.
    fn assign(&mut self, window: usize) -> Vec<Waker> {
        let mut writers = Vec::new();
        let mut now = None;
        while self.room > 0 {
            let Some(number) = self.waiting.pop_front() else { break };
            let Some(request) = self.open.get_mut(&number) else { continue };
            let count = self.links.len();
            let least = (0..count)
                .map(|step| (self.turn + step) % count)
                .filter_map(|index| Some((self.links.get(index)?.as_ref()?, index)))
                .filter(|(link, _)| link.unanswered < window)
                .min_by_key(|(link, _)| link.unanswered + link.failed)
                .map(|(_, index)| index);
            let link = least.and_then(|index| Some((index, self.links.get_mut(index)?.as_mut()?)));
            let Some((index, link)) = link else {
                self.waiting.push_front(number);
                break;
            };
            self.turn = index + 1;
            self.room -= 1;
            link.unanswered += 1;
            link.out.push_back(number);
            writers.extend(link.writer.take());
            request.link = Some(index);
            request.since = Some(*now.get_or_insert_with(Instant::now));
            request.written = false;
        }
        writers
    }

    /// Takes a request off the connection that has it.
    fn release(&mut self, link: Option<usize>) {
        if let Some(link) = link.and_then(|index| self.links.get_mut(index)?.as_mut()) {
            link.unanswered -= 1;
            self.room += 1;
        }
    }

    /// Puts requests before all that wait, in the order in which they were made.
    fn put_back(&mut self, mut requests: Vec<(u64, u32)>) {
        requests.sort_unstable();
        for (_, number) in requests.into_iter().rev() {
            if let Some(request) = self.open.get_mut(&number) {
                request.link = None;
                request.since = None;
            }
            self.waiting.push_front(number);
        }
    }

    /// Takes a request out, because it is answered or not wanted any more.
    fn remove(&mut self, number: u32) -> Option<Open> {
        let request = self.open.remove(&number)?;
        self.release(request.link);
        let mut index = 0;
        while let Some(flush) = self.flushes.get_mut(index) {
            if request.place < flush.before {
                flush.left -= 1;
            }
            if flush.left > 0 {
                index += 1;
                continue;
            }
            // Whoever waited for it may have gone.
            let _ = self.flushes.swap_remove(index).done.send(());
        }
        Some(request)
    }
}

impl Requests {
    pub(crate) fn new(options: &SocketOptions) -> Self {
        let state = State {
            made: 0,
            next: rand::random(),
            open: HashMap::default(),
            waiting: VecDeque::new(),
            links: Vec::new(),
            room: 0,
            turn: 0,
            flushes: Vec::new(),
            ended: false,
        };
        Self {
            state: Mutex::new(state),
            slots: Slots::new(options.send_queue),
            window: options.window.max(1),
            resend: options.resend,
        }
    }

    /// The room that is taken before a request is put in; it comes back when the request is answered.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Puts in requests that the room has been taken for. Returns the number of the last. The answer is for the first.
    pub(crate) fn put<I: Iterator<Item = Bytes>>(
        &self,
        bodies: impl FnOnce() -> I,
        mut answer: Option<oneshot::Sender<Bytes>>,
    ) -> Result<u32> {
        let mut state = lock(&self.state);
        if state.ended {
            return Err(Error::Closed);
        }
        let mut number = 0;
        for body in bodies() {
            number = state.next & !tags::LAST;
            while state.open.contains_key(&number) {
                number = number.wrapping_add(1) & !tags::LAST;
            }
            state.next = number.wrapping_add(1);
            let place = state.made;
            state.made += 1;
            let answer = answer.take();
            state.open.insert(number, Open { body, place, link: None, since: None, written: false, answer });
            state.waiting.push_back(number);
        }
        let writers = state.assign(self.window);
        drop(state);
        wake(writers);
        Ok(number)
    }

    /// Forgets a request.
    pub(crate) fn withdraw(&self, number: u32) {
        let mut state = lock(&self.state);
        let Some(request) = state.remove(number) else { return };
        let writers = state.assign(self.window);
        // Nobody would ever look at numbers that wait for connections that do not come, or do not write.
        let State { waiting, open, links, .. } = &mut *state;
        if waiting.len() > 2 * open.len() + 64 {
            waiting.retain(|number| open.contains_key(number));
        }
        if let Some(link) = request.link.and_then(|index| links.get_mut(index)?.as_mut())
            && link.out.len() > 2 * self.window + 64
        {
            link.out.retain(|number| open.contains_key(number));
        }
        drop(state);
        self.slots.give_back(self.slots.cost(request.body.len()));
        wake(writers);
    }

    /// What tells when everything made so far is answered; `None` when it is.
    pub(crate) fn flush(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = lock(&self.state);
        let left = state.open.len();
        if left == 0 {
            return None;
        }
        let (done, receiver) = oneshot::channel();
        let before = state.made;
        state.flushes.retain(|flush| !flush.done.is_closed());
        state.flushes.push(Flush { before, left, done });
        Some(receiver)
    }

    /// Takes the requests that wait for their answers too long off their connections. Returns how many.
    fn overdue(&self, limit: Duration) -> usize {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let late: Vec<_> = state
            .open
            .iter()
            .filter(|(_, request)| request.since.is_some_and(|since| now - since >= limit))
            .map(|(number, request)| (request.place, *number, request.link))
            .collect();
        for (_, _, link) in &late {
            state.release(*link);
            if let Some(link) = link.and_then(|index| state.links.get_mut(index)?.as_mut()) {
                link.failed += 1;
            }
        }
        let count = late.len();
        state.put_back(late.into_iter().map(|(place, number, _)| (place, number)).collect());
        let writers = state.assign(self.window);
        drop(state);
        wake(writers);
        count
    }
}

fn wake(writers: Vec<Waker>) {
    for writer in writers {
        writer.wake();
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
        let role = &engine.role;
        let mut state = lock(&role.state);
        let link = Some(Link { unanswered: 0, failed: 0, out: VecDeque::new(), writer: None });
        let index = match state.links.iter().position(Option::is_none) {
            Some(index) => {
                if let Some(free) = state.links.get_mut(index) {
                    *free = link;
                }
                index
            }
            None => {
                state.links.push(link);
                state.links.len() - 1
            }
        };
        state.room += role.window;
        let writers = state.assign(role.window);
        drop(state);
        wake(writers);
        index
    }

    fn detach(engine: &Arc<Engine<Self>>, index: &usize) {
        let role = &engine.role;
        let mut state = lock(&role.state);
        let Some(link) = state.links.get_mut(*index).and_then(Option::take) else { return };
        state.room -= role.window - link.unanswered;
        let had = state.open.iter().filter(|(_, request)| request.link == Some(*index));
        let back: Vec<_> = had.map(|(number, request)| (request.place, *number)).collect();
        add(&engine.counters.requeued, back.len());
        state.put_back(back);
        let writers = state.assign(role.window);
        drop(state);
        wake(writers);
    }

    async fn deliver(
        engine: &Arc<Engine<Self>>,
        index: &usize,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let role = &engine.role;
        let mut answers = Vec::new();
        let (mut late, mut slots) = (0, 0);
        let mut bad = None;
        let writers = {
            let mut state = lock(&role.state);
            if let Some(link) = state.links.get_mut(*index).and_then(Option::as_mut) {
                link.failed = 0;
            }
            for frame in frames.drain(..) {
                let (word, body) = match tags::number(frame) {
                    Ok((word, body)) if word & tags::LAST != 0 => (word, body),
                    _ => {
                        bad = Some(Refusal::BadHeader);
                        break;
                    }
                };
                match state.remove(word & !tags::LAST) {
                    Some(request) => {
                        slots += role.slots.cost(request.body.len());
                        answers.extend(request.answer.map(|answer| (answer, body)));
                    }
                    None => late += 1,
                }
            }
            state.assign(role.window)
        };
        wake(writers);
        role.slots.give_back(slots);
        add(&engine.counters.late, late);
        for (answer, body) in answers {
            // Whoever waited for it may have gone.
            let _ = answer.send(body);
        }
        engine.advanced();
        bad.map_or(Ok(()), Err)
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        index: &usize,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        std::future::poll_fn(|context| {
            let mut state = lock(&engine.role.state);
            let State { links, open, .. } = &mut *state;
            let Some(link) = links.get_mut(*index).and_then(Option::as_mut) else {
                return Poll::Ready(Err(None));
            };
            let mut size = 0;
            while size < WRITE {
                let Some(number) = link.out.pop_front() else { break };
                // Answered, withdrawn, with another connection by now, or with this one once more.
                let Some(request) = open.get_mut(&number) else { continue };
                if request.link != Some(*index) || std::mem::replace(&mut request.written, true) {
                    continue;
                }
                size += request.body.len() + 12;
                batch.push_back(Frame { head: Head::Word(number | tags::LAST), body: request.body.clone() });
            }
            if batch.is_empty() {
                link.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            engine.took(batch.len());
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Requests are kept until they are answered: `detach` sends them elsewhere.
    fn unsent(_: &Arc<Engine<Self>>, _: &usize, _: VecDeque<Frame>) {}

    fn queued(&self) -> usize {
        lock(&self.state).open.len()
    }

    fn background(engine: &Arc<Engine<Self>>) -> Option<impl Future<Output = ()> + Send + 'static> {
        let limit = engine.role.resend?;
        let engine = Arc::clone(engine);
        Some(async move {
            loop {
                sleep((limit / 4).max(Duration::from_millis(1))).await;
                add(&engine.counters.resent, engine.role.overdue(limit));
            }
        })
    }

    fn stop_accepting(&self) {
        self.slots.close();
    }

    fn end(&self) -> usize {
        let mut state = lock(&self.state);
        state.ended = true;
        // Their tickets are told by this.
        state.flushes.clear();
        state.waiting.clear();
        let open = std::mem::take(&mut state.open);
        drop(state);
        open.len()
    }
}

/// Numbers are consecutive, so that they are spread enough by themselves; the map wants its high bits changed.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
