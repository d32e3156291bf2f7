//! Receiving: history first, then what comes, in one order.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use sereno_core::{Changes, Client, Error as CoreError, EventKind, Overflow, Session, Tail, TailItem};

use crate::backlog::{self, Backlog, Listed, Reading};
use crate::cursor::{Acker, Lost, Starting};
use crate::envelope::Unpacker;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::mark::{Count, End, Mark};
use crate::message::{Delivery, Message};
use crate::options::{From, NewCursor, SubscribeOptions};
use crate::position::Position;

/// History of at most so many revisions is watched; for more, etcd would read them all again for every thousand it sends.
const WATCHABLE: i64 = 1000;
/// After so many batches that were there already the task lets others run.
const FAIR: u32 = 16;

/// The messages of a topic from some point on, in commit order, each once: [`Topic::subscribe`](crate::Topic::subscribe).
///
/// A [`Stream`] of [`Delivery`], with a [`next`](Subscription::next) of its own. Dropping it ends it at once.
#[must_use = "a subscription that is dropped ends"]
pub struct Subscription {
    client: Client,
    keys: Keys,
    overflow: Overflow,
    source: Source,
    /// Everything up to here has been handed out, or begun to be.
    mark: Mark,
    /// The position resumed from, when it lies within a batch.
    within: Option<Position>,
    batch: Option<Unpacker>,
    /// What has to be told before the batch.
    told: VecDeque<Delivery>,
    acker: Option<Acker>,
    /// Watches the cursor.
    lost: Option<Lost>,
    ready_in_a_row: u32,
}

/// Batches with their values; `None` for one that is gone.
type Fetched = VecDeque<(Listed, Option<Bytes>)>;

enum Source {
    Tail(Tail),
    Listing(Reading<Backlog>),
    Backlog { backlog: Backlog, fetching: Option<Reading<Fetched>>, fetched: Fetched },
    Ended,
}

/// See [`Topic::subscribe_with`](crate::Topic::subscribe_with).
pub(crate) async fn open(
    session: &Session,
    keys: &Keys,
    from: From,
    options: SubscribeOptions,
) -> Result<Subscription> {
    let client = session.client();
    let (from, acker, lost) = match from {
        From::Cursor(name) => {
            let start = || -> Starting {
                let (client, tail) = (client.clone(), keys.tail.clone());
                Box::pin(async move {
                    match options.new_cursor {
                        NewCursor::Now => Ok(End::of(&client.range(&tail).await?).position()),
                        NewCursor::Oldest => Ok(Position::BEGINNING),
                    }
                })
            };
            let key = keys.cursor(&name)?;
            let (acker, position, lost) = Box::pin(Acker::claim(session, &key, start)).await?;
            (From::Position(position), Some(acker), Some(lost))
        }
        from => (from, None, None),
    };
    let end = End::of(&client.range(&keys.tail).await?);
    let (mark, within) = match from {
        From::Position(position) if position.revision > end.revision => {
            return Err(Error::PositionAhead { position, revision: end.revision });
        }
        From::Position(position) if position.revision > 0 => Mark::behind(position),
        From::Now => (Mark { revision: end.revision, count: Count::Known(end.ordinal) }, None),
        _ => (Mark { revision: 0, count: Count::Beginning }, None),
    };
    let mut subscription = Subscription {
        client: client.clone(),
        keys: keys.clone(),
        overflow: options.overflow,
        source: Source::Ended,
        mark,
        within,
        batch: None,
        told: VecDeque::new(),
        acker,
        lost,
        ready_in_a_row: 0,
    };
    subscription.start(&end).await?;
    Ok(subscription)
}

impl Subscription {
    async fn start(&mut self, end: &End) -> Result<()> {
        let from = match self.mark.count {
            Count::Beginning => None,
            _ if end.last <= self.mark.revision => {
                self.mark = Mark { revision: end.revision, count: Count::Known(end.ordinal) };
                Some(end.revision)
            }
            _ => Some(self.mark.revision).filter(|from| end.revision - from <= WATCHABLE),
        };
        self.source = match from {
            Some(from) => {
                let next = from.saturating_add(1);
                Source::Tail(self.client.tail(&self.keys.log, next, self.overflow).await?)
            }
            None => {
                let backlog = self.list();
                let backlog = backlog.await?;
                self.begin(backlog)
            }
        };
        Ok(())
    }

    /// The next delivery; `None` after an error that ended the subscription.
    ///
    /// # Errors
    /// [`Error::CursorTaken`] and [`Error::CursorGone`], at once and instead of what was still to be delivered, when another
    /// subscription takes the cursor or somebody removes it; [`Error::TooSlow`]; [`Error::Core`] with `StoreRolledBack`,
    /// `PermissionDenied` or `Stopped`: the last item.
    /// Where history has to be listed, also the errors of reading: told, and tried again at the next call.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// As [`Subscription::next`], for whom a gap is an error like any other: [`Delivery::Lagged`] and
    /// [`Delivery::Malformed`] come as [`Error::Lagged`] and [`Error::Malformed`], and the next call goes on behind them.
    ///
    /// # Errors
    /// As said.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next_message(&mut self) -> Option<Result<Message>> {
        Some(match self.next().await? {
            Ok(Delivery::Message(message)) => Ok(message),
            Ok(Delivery::Lagged { missed }) => Err(Error::Lagged { missed }),
            Ok(Delivery::Malformed { revision, reason }) => Err(Error::Malformed { revision, reason }),
            Err(error) => Err(error),
        })
    }

    /// Moves the cursor: see [`Acker::ack`].
    ///
    /// # Errors
    /// As [`Acker::ack`]; [`Error::NoCursor`] when the subscription was not made from one.
    ///
    /// # Cancel safety
    /// As [`Acker::ack`].
    pub async fn ack(&self, position: &Position) -> Result<()> {
        self.acker.as_ref().ok_or(Error::NoCursor)?.ack(position).await
    }

    /// For acknowledging from other tasks; `None` when the subscription was not made from a cursor.
    #[must_use]
    pub fn acker(&self) -> Option<Acker> {
        self.acker.clone()
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        if let Some(lost) = &mut self.lost
            && let Poll::Ready(lost) = lost.poll(cx)
        {
            // Whoever has the cursor now is handed the rest.
            self.lost = None;
            self.source = Source::Ended;
            self.batch = None;
            self.told.clear();
            return Poll::Ready(Some(Err(lost.unwrap_or_else(Error::from))));
        }
        loop {
            if let Some(told) = self.told.pop_front() {
                return Poll::Ready(Some(Ok(told)));
            }
            if let Some(message) = self.batch.as_mut().and_then(Iterator::next) {
                if let Some(acker) = &self.acker {
                    acker.delivered(message.position);
                }
                return Poll::Ready(Some(Ok(Delivery::Message(message))));
            }
            if self.batch.take().is_some() {
                self.ready_in_a_row += 1;
            }
            if self.ready_in_a_row >= FAIR {
                self.ready_in_a_row = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let advanced = self.poll_source(cx);
            if advanced.is_pending() {
                self.ready_in_a_row = 0;
            }
            match ready!(advanced) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Takes one step towards the next batch. `None`: there is none.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<()>>> {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Ended => return Poll::Ready(None),
            Source::Tail(mut tail) => {
                let item = Pin::new(&mut tail).poll_next(cx);
                self.source = Source::Tail(tail);
                match ready!(item) {
                    Some(Ok(TailItem::Changes(changes))) => self.take(changes),
                    Some(Ok(TailItem::Compacted { .. })) => self.source = self.listing(),
                    // What was dropped shows in the ordinals of what follows.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        self.source = Source::Ended;
                        return Poll::Ready(Some(Err(self.ended_by(error))));
                    }
                    None => self.source = Source::Ended,
                }
            }
            Source::Listing(mut reading) => match reading.poll(cx) {
                Poll::Pending => {
                    self.source = Source::Listing(reading);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(backlog)) => self.source = self.begin(backlog),
                Poll::Ready(Err(error)) => {
                    if error.is_retryable() {
                        self.source = self.listing();
                    }
                    return Poll::Ready(Some(Err(error.into())));
                }
            },
            Source::Backlog { mut backlog, mut fetching, mut fetched } => {
                if let Some((listed, value)) = fetched.pop_front() {
                    backlog.batches.pop_front();
                    self.take_listed(&mut backlog, listed, value);
                    self.source = Source::Backlog { backlog, fetching, fetched };
                    return Poll::Ready(Some(Ok(())));
                }
                if backlog.batches.is_empty() {
                    self.mark = Mark { revision: backlog.revision, count: Count::Known(backlog.ordinal) };
                    self.source = Source::Tail(backlog.tail);
                    return Poll::Ready(Some(Ok(())));
                }
                let mut reading = fetching
                    .take()
                    .unwrap_or_else(|| Reading::new(backlog::fetch(self.client.clone(), backlog.chunk())));
                match reading.poll(cx) {
                    Poll::Pending => {
                        self.source = Source::Backlog { backlog, fetching: Some(reading), fetched };
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(fetched)) => {
                        self.source = Source::Backlog { backlog, fetching: None, fetched };
                    }
                    Poll::Ready(Err(error)) => {
                        if error.is_retryable() {
                            self.source = Source::Backlog { backlog, fetching: None, fetched };
                        }
                        return Poll::Ready(Some(Err(error.into())));
                    }
                }
            }
        }
        Poll::Ready(Some(Ok(())))
    }

    fn ended_by(&self, error: CoreError) -> Error {
        match error {
            CoreError::TooLarge { .. } if self.overflow == Overflow::End => Error::TooSlow,
            error => error.into(),
        }
    }

    fn list(&self) -> impl Future<Output = sereno_core::Result<Backlog>> + Send + use<> {
        backlog::list(self.client.clone(), self.keys.clone(), self.mark.revision, self.overflow)
    }

    fn listing(&self) -> Source {
        Source::Listing(Reading::new(self.list()))
    }

    /// Says what is missing in the listing and makes it the source.
    fn begin(&mut self, backlog: Backlog) -> Source {
        let missed = match self.mark.count {
            Count::Beginning => Some(0),
            Count::Known(before) => {
                backlog.ordinal.checked_sub(before).map(|since| since.saturating_sub(backlog.genuine))
            }
            Count::Unknown => backlog.anchored.then_some(0),
        };
        if missed != Some(0) {
            self.tell(Delivery::Lagged { missed });
        }
        Source::Backlog { backlog, fetching: None, fetched: Fetched::new() }
    }

    /// One transaction of the tail: a publish, or deletions by retention.
    fn take(&mut self, changes: Changes) {
        let revision = changes.revision;
        let mut ordinal = None;
        let mut batch = None;
        let mut surplus = false;
        for event in changes.events {
            let is_tail = event.kv.key == self.keys.tail;
            match event.kind {
                EventKind::Put if is_tail => ordinal = u64::try_from(event.kv.version).ok(),
                EventKind::Put => surplus |= batch.replace(event.kv).is_some(),
                EventKind::Delete if is_tail => self.mark.count = Count::Known(0),
                EventKind::Delete => {}
            }
        }
        let gap = match ordinal {
            Some(ordinal) => self.mark.count(revision, ordinal),
            None => None,
        };
        self.told.extend(gap);
        self.mark.revision = self.mark.revision.max(revision);
        match (batch, ordinal) {
            (None, None) => {}
            (Some(kv), Some(ordinal)) if !surplus && kv.version == 1 => {
                let publisher = self.keys.parse_batch(&kv.key).map(|name| name.publisher);
                self.open(kv.value, publisher, revision, Some(ordinal));
            }
            _ => self.tell(Delivery::Malformed { revision, reason: "not written by a publish" }),
        }
    }

    /// One batch of the backlog.
    fn take_listed(&mut self, backlog: &mut Backlog, listed: Listed, value: Option<Bytes>) {
        if listed.publisher.is_none() {
            let reason = "the key's name is not that of a batch";
            return self.tell(Delivery::Malformed { revision: listed.created, reason });
        }
        // Counted back from the end: exact unless retention left holes, whose number was told at the start.
        backlog.genuine = backlog.genuine.saturating_sub(1);
        let ordinal = backlog.ordinal.saturating_sub(backlog.genuine);
        self.mark = Mark { revision: listed.created, count: Count::Known(ordinal) };
        match value {
            Some(value) => self.open(value, listed.publisher, listed.created, Some(ordinal)),
            None => self.tell(Delivery::Lagged { missed: Some(1) }),
        }
    }

    fn open(&mut self, value: Bytes, publisher: Option<String>, revision: i64, ordinal: Option<u64>) {
        let Some(publisher) = publisher else {
            return self
                .tell(Delivery::Malformed { revision, reason: "the key's name is not that of a batch" });
        };
        match Unpacker::open(value, publisher, revision, ordinal) {
            Ok(mut batch) => {
                if let Some(within) = self.within.take_if(|within| within.revision == revision) {
                    batch.skip_through(within.index);
                }
                self.batch = Some(batch);
            }
            Err(reason) => self.tell(Delivery::Malformed { revision, reason }),
        }
    }

    fn tell(&mut self, delivery: Delivery) {
        if let (Some(Delivery::Lagged { missed: Some(before) }), Delivery::Lagged { missed: Some(more) }) =
            (self.told.back_mut(), &delivery)
        {
            *before += more;
            return;
        }
        self.told.push_back(delivery);
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("mark", &self.mark).finish_non_exhaustive()
    }
}
