//! One group's socket at the destination, with its queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sereno_sp::{Address, Closed, Push, Req};

use crate::error::{Error, Result};
use crate::line::GIVEN_BACK;
use crate::mode::Mode;
use crate::options::{DestinationOptions, WhenFull};
use crate::place::Place;
use crate::stats::{Counters, GroupStats, add, read};

/// The socket and the queue of one group.
#[derive(Debug)]
pub(crate) struct Pipe {
    wire: Wire,
    /// What members dial.
    pub(crate) url: Address,
    pub(crate) mode: Mode,
    when_full: WhenFull,
    /// It let the time to wait for room pass, and has had no room since.
    stalled: AtomicBool,
    dropped: AtomicU64,
    counters: Arc<Counters>,
}

/// What became of a message, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is in the queue, all of them are.
    Done,
    /// There was no room for it, or for some of them: dropped and counted.
    Dropped,
    /// There is no room now.
    Full,
    /// The group has ended.
    Ended,
}

impl Put {
    fn of<T>(put: &Result<T, sereno_sp::Error>) -> Self {
        if put.is_ok() { Self::Done } else { Self::Ended }
    }
}

#[derive(Debug)]
enum Wire {
    Push(Push),
    Req(Req),
}

/// Calls the method of either kind of socket.
macro_rules! either {
    ($wire:expr, $push:ident / $req:ident ( $($argument:expr),* ) $($wait:tt)*) => {
        match $wire {
            Wire::Push(socket) => socket.$push($($argument),*)$($wait)*,
            Wire::Req(socket) => socket.$req($($argument),*)$($wait)*,
        }
    };
}

impl Wire {
    fn new(mode: Mode, options: &DestinationOptions) -> Self {
        let socket = options
            .socket
            .clone()
            .send_queue(options.queue)
            .window(options.window)
            .resend(options.resend)
            .linger(options.linger)
            .requeue(false)
            .mark_resent(true)
            .again(Some(GIVEN_BACK));
        match mode {
            Mode::AtMostOnce => Self::Push(Push::with_options(socket)),
            Mode::AtLeastOnce => Self::Req(Req::with_options(socket)),
        }
    }

    async fn listen(&self, place: &Place) -> Result<Address> {
        let mut last = None;
        for address in place.candidates() {
            match either!(self, listen / listen(&address).await) {
                Ok(real) => return Ok(real),
                Err(error @ sereno_sp::Error::AddressInUse { .. }) => last = Some(error),
                Err(error) => return Err(Error::Socket(error)),
            }
        }
        Err(Error::Socket(last.unwrap_or(sereno_sp::Error::Closed)))
    }
}

/// Finds out whether the place can be listened on, and leaves it again.
pub(crate) async fn probe(place: &Place, options: &DestinationOptions) -> Result<()> {
    let wire = Wire::new(Mode::AtMostOnce, options);
    wire.listen(place).await?;
    either!(&wire, close / close().await);
    Ok(())
}

impl Pipe {
    pub(crate) async fn open(
        group: &str,
        mode: Mode,
        place: &Place,
        options: &DestinationOptions,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let wire = Wire::new(mode, options);
        let real = wire.listen(place).await?;
        Ok(Self {
            wire,
            url: place.advertised(real),
            mode,
            when_full: options.full(group),
            stalled: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            counters,
        })
    }

    /// Queues a message if that needs no waiting, or drops it if it is not to be waited for.
    pub(crate) fn put_now(&self, body: &Bytes) -> Put {
        let put = match self.when_full {
            WhenFull::DropOldest => {
                either!(&self.wire, send_newest / post_newest(body.clone())).map(|dropped| {
                    self.drop_some(dropped as u64);
                })
            }
            WhenFull::Wait | WhenFull::WaitUpTo(_) => {
                either!(&self.wire, try_send / try_post(body.clone()))
            }
        };
        match put {
            Ok(()) => {
                if self.stalled.load(Ordering::Relaxed) {
                    self.stalled.store(false, Ordering::Relaxed);
                }
                Put::Done
            }
            Err(sereno_sp::Error::Full) if self.stalled.load(Ordering::Relaxed) => {
                self.drop_some(1);
                Put::Dropped
            }
            Err(sereno_sp::Error::Full) => Put::Full,
            Err(_) => Put::Ended,
        }
    }

    /// Queues a message, when there is room, as long as that may take.
    pub(crate) async fn put(&self, body: Bytes) -> Put {
        let put = async { either!(&self.wire, send / post(body).await) };
        match self.when_full {
            WhenFull::WaitUpTo(limit) => match tokio::time::timeout(limit, put).await {
                Ok(put) => Put::of(&put),
                Err(_) => {
                    self.stall(1);
                    Put::Dropped
                }
            },
            WhenFull::Wait | WhenFull::DropOldest => Put::of(&put.await),
        }
    }

    /// Queues all messages in their order.
    pub(crate) async fn put_all(&self, mut bodies: VecDeque<Bytes>) -> Put {
        match self.when_full {
            WhenFull::DropOldest => {
                let ended = bodies.iter().any(|body| self.put_now(body) == Put::Ended);
                if ended { Put::Ended } else { Put::Done }
            }
            WhenFull::Wait => Put::of(&either!(&self.wire, send_all / post_all(&mut bodies).await)),
            WhenFull::WaitUpTo(limit) => self.put_most(bodies, limit).await,
        }
    }

    async fn put_most(&self, mut bodies: VecDeque<Bytes>, limit: Duration) -> Put {
        let mut most = Put::Done;
        // While it is stalled each message has its chance, and none is waited for.
        while self.stalled.load(Ordering::Relaxed) {
            let Some(body) = bodies.pop_front() else { return most };
            match self.put_now(&body) {
                Put::Ended => return Put::Ended,
                Put::Dropped => most = Put::Dropped,
                Put::Done => {}
                // Another task has found room meanwhile: it is to be waited for again.
                Put::Full => {
                    bodies.push_front(body);
                    break;
                }
            }
        }
        while !bodies.is_empty() {
            let before = bodies.len();
            let put = async { either!(&self.wire, send_all / post_all(&mut bodies).await) };
            if matches!(tokio::time::timeout(limit, put).await, Ok(Err(_))) {
                return Put::Ended;
            }
            if bodies.len() == before {
                self.stall(bodies.len() as u64);
                return Put::Dropped;
            }
        }
        most
    }

    fn stall(&self, missed: u64) {
        self.stalled.store(true, Ordering::Relaxed);
        self.drop_some(missed);
    }

    fn drop_some(&self, count: u64) {
        if count > 0 {
            add(&self.dropped, count);
            add(&self.counters.dropped, count);
        }
    }

    pub(crate) fn stats(&self) -> GroupStats {
        let stats = either!(&self.wire, stats / stats());
        GroupStats {
            mode: self.mode,
            connections: stats.connections,
            queued: stats.pending,
            sent: stats.messages_out,
            dropped: read(&self.dropped) + stats.dropped,
            requeued: stats.requeued,
            resent: stats.resent,
            stalled: self.stalled.load(Ordering::Relaxed),
        }
    }

    /// Ends it: what is queued is sent, if that is possible in the time for it. What is not is counted.
    pub(crate) async fn close(&self) {
        let Closed { undelivered, .. } = either!(&self.wire, close / close().await);
        add(&self.counters.lost, undelivered);
    }
}
