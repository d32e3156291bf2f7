//! Who has which request: the book of a REQ socket.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::frame::{Frame, Head, WRITE};
use crate::tags;

/// The requests that are not answered yet, and the connections that have them.
pub(crate) struct Ledger {
    /// How many unanswered requests a connection may have.
    window: usize,
    /// How many requests there were: the place of the next.
    made: u64,
    /// The number of the next request.
    next: u32,
    open: HashMap<u32, Request, BuildHasherDefault<NumberHasher>>,
    /// Numbers of requests that no connection has, the next first. Some may be answered already.
    waiting: VecDeque<u32>,
    links: Vec<Option<Link>>,
    /// How many more requests all connections together can have.
    room: usize,
    /// Where the search for a connection begins, so that those that are equal have their turns.
    turn: usize,
    flushes: Vec<Flush>,
}

/// A request that is not answered yet.
pub(crate) struct Request {
    pub(crate) body: Bytes,
    /// Who waits for the answer itself.
    pub(crate) answer: Option<oneshot::Sender<Bytes>>,
    /// The order in which requests were made.
    place: u64,
    /// The connection that has it.
    link: Option<usize>,
    /// Since when.
    since: Option<Instant>,
    /// Whether that connection has begun to write it.
    written: bool,
}

#[derive(Default)]
struct Link {
    unanswered: usize,
    /// How many were taken from it because their answers did not come, since its last answer. Others come before it.
    failed: usize,
    /// Numbers of requests to be written. Some may be elsewhere already.
    out: VecDeque<u32>,
    writer: Option<Waker>,
}

/// Somebody who waits until all requests made so far are answered.
struct Flush {
    before: u64,
    left: usize,
    done: oneshot::Sender<()>,
}

impl Ledger {
    /// A book in which each connection has at most `window` unanswered requests, and the first request the number `first`.
    pub(crate) fn new(window: usize, first: u32) -> Self {
        Self {
            window: window.max(1),
            made: 0,
            next: first,
            open: HashMap::default(),
            waiting: VecDeque::new(),
            links: Vec::new(),
            room: 0,
            turn: 0,
            flushes: Vec::new(),
        }
    }

    /// How many requests are not answered.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Adds a request and returns its number. [`assign`](Self::assign) gives it to a connection.
    pub(crate) fn add(&mut self, body: Bytes, answer: Option<oneshot::Sender<Bytes>>) -> u32 {
        let mut number = self.next & !tags::LAST;
        while self.open.contains_key(&number) {
            number = number.wrapping_add(1) & !tags::LAST;
        }
        self.next = number.wrapping_add(1);
        let place = self.made;
        self.made += 1;
        self.open.insert(number, Request { body, answer, place, link: None, since: None, written: false });
        self.waiting.push_back(number);
        number
    }

    /// Gives waiting requests to the connections with the fewest unanswered ones. Returns the writers to wake.
    pub(crate) fn assign(&mut self) -> Vec<Waker> {
        let mut writers = Vec::new();
        let mut now = None;
        while self.room > 0 {
            let Some(number) = self.waiting.pop_front() else { break };
            let Some(request) = self.open.get_mut(&number) else { continue };
            let count = self.links.len();
            let least = (0..count)
                .map(|step| (self.turn + step) % count)
                .filter_map(|index| Some((self.links.get(index)?.as_ref()?, index)))
                .filter(|(link, _)| link.unanswered < self.window)
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

    /// A connection is up. Returns its index.
    pub(crate) fn connect(&mut self) -> usize {
        self.room += self.window;
        match self.links.iter_mut().enumerate().find(|(_, link)| link.is_none()) {
            Some((index, free)) => {
                *free = Some(Link::default());
                index
            }
            None => {
                self.links.push(Some(Link::default()));
                self.links.len() - 1
            }
        }
    }

    /// A connection is gone. What it had waits again, before all others. Returns how many.
    pub(crate) fn disconnect(&mut self, index: usize) -> usize {
        if self.links.get(index).is_none_or(Option::is_none) {
            return 0;
        }
        let had = self.open.iter().filter(|(_, request)| request.link == Some(index));
        let back = had.map(|(number, request)| (request.place, *number)).collect();
        let count = self.put_back(back);
        // Now that it has nothing, all its room goes with it.
        self.room -= self.window;
        if let Some(link) = self.links.get_mut(index) {
            *link = None;
        }
        count
    }

    /// Takes requests that wait for their answers longer than `limit` off their connections, to be sent again. Returns how many.
    pub(crate) fn overdue(&mut self, limit: Duration) -> usize {
        let now = Instant::now();
        let late = self.open.iter().filter(|(_, request)| {
            request.since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        });
        let late: Vec<_> = late.map(|(number, request)| (request.place, *number)).collect();
        self.put_back(late)
    }

    /// Puts requests before all that wait, in the order in which they were made.
    fn put_back(&mut self, mut requests: Vec<(u64, u32)>) -> usize {
        requests.sort_unstable();
        for (_, number) in requests.iter().rev() {
            if let Some(request) = self.open.get_mut(number) {
                request.since = None;
                let link = request.link.take();
                self.release(link, true);
            }
            self.waiting.push_front(*number);
        }
        requests.len()
    }

    /// Takes a request off the connection that has it.
    fn release(&mut self, link: Option<usize>, failed: bool) {
        if link.is_some() {
            self.room += 1;
        }
        if let Some(link) = link.and_then(|index| self.links.get_mut(index)?.as_mut()) {
            link.unanswered -= 1;
            link.failed += usize::from(failed);
        }
    }

    /// An answer came by a connection. `None` when nothing is open that it answers.
    pub(crate) fn answer(&mut self, index: usize, number: u32) -> Option<Request> {
        if let Some(link) = self.links.get_mut(index).and_then(Option::as_mut) {
            link.failed = 0;
        }
        self.remove(number, false)
    }

    /// Forgets a request. `None` when it is answered already.
    pub(crate) fn withdraw(&mut self, number: u32) -> Option<Request> {
        let request = self.remove(number, true)?;
        // Nobody would ever look at numbers that wait for connections that do not come, or do not write.
        let open = &self.open;
        if self.waiting.len() > 2 * open.len() + 64 {
            self.waiting.retain(|number| open.contains_key(number));
        }
        if let Some(link) = request.link.and_then(|index| self.links.get_mut(index)?.as_mut())
            && link.out.len() > 2 * self.window + 64
        {
            link.out.retain(|number| open.contains_key(number));
        }
        Some(request)
    }

    fn remove(&mut self, number: u32, failed: bool) -> Option<Request> {
        let request = self.open.remove(&number)?;
        self.release(request.link, failed);
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

    /// Moves what one write of a connection takes to `batch`. `false`: the connection is gone. When there is nothing, `writer` is
    /// woken as soon as there is.
    pub(crate) fn write(&mut self, index: usize, batch: &mut VecDeque<Frame>, writer: &Waker) -> bool {
        let Some(link) = self.links.get_mut(index).and_then(Option::as_mut) else { return false };
        let mut size = 0;
        while size < WRITE {
            let Some(number) = link.out.pop_front() else { break };
            // Answered, withdrawn, with another connection by now, or with this one once more.
            let Some(request) = self.open.get_mut(&number) else { continue };
            if request.link != Some(index) || std::mem::replace(&mut request.written, true) {
                continue;
            }
            size += request.body.len() + 12;
            batch.push_back(Frame { head: Head::Word(number | tags::LAST), body: request.body.clone() });
        }
        if batch.is_empty() {
            link.writer = Some(writer.clone());
        }
        true
    }

    /// What tells when everything made so far is answered; `None` when it is.
    pub(crate) fn flush(&mut self) -> Option<oneshot::Receiver<()>> {
        let left = self.open.len();
        if left == 0 {
            return None;
        }
        let (done, receiver) = oneshot::channel();
        self.flushes.retain(|flush| !flush.done.is_closed());
        self.flushes.push(Flush { before: self.made, left, done });
        Some(receiver)
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

#[cfg(test)]
mod tests;
