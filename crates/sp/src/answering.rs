//! What REP and RESPONDENT have in common: questions that come, each with the way back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::{Frame, Head};
use crate::hello;
use crate::inbox::Inbox;
use crate::options::{Dialect, Queue, SocketOptions};
use crate::outbox::Outbox;
use crate::role::Role;
use crate::stats::Refusal;
use crate::sync::lock;
use crate::tags;

/// Splits a message into the words before its payload, and the payload.
type Split = fn(Bytes) -> Result<(Bytes, Bytes), Refusal>;

/// A socket that answers.
pub(crate) struct Answering {
    ours: u16,
    theirs: u16,
    split: Split,
    pub(crate) inbox: Inbox<Asked>,
    links: Mutex<Vec<Arc<Link>>>,
    unanswered: usize,
    max_message: usize,
}

/// A connection by which questions come.
pub(crate) struct Link {
    id: u64,
    outbox: Outbox,
    /// How many more questions it may have unanswered. This bounds the outbox too.
    room: Semaphore,
    max_message: usize,
}

/// A question, and the way back to where it came from.
pub(crate) struct Asked {
    pub(crate) body: Bytes,
    words: Bytes,
    link: Arc<Link>,
    answered: bool,
}

impl Asked {
    /// The connection it came by.
    pub(crate) fn peer(&self) -> u64 {
        self.link.id
    }

    /// Sends the answer back the way the question came.
    pub(crate) fn reply(mut self, body: Bytes) -> Result<()> {
        let (size, limit) = (body.len(), self.link.max_message);
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        let words = std::mem::take(&mut self.words);
        if !self.link.outbox.put(Frame { head: Head::Words(words), body }) {
            return Err(Error::PeerGone);
        }
        // The room comes back when the answer is written.
        self.answered = true;
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.link.room.add_permits(1);
        }
    }
}

impl Answering {
    pub(crate) fn rep(options: &SocketOptions) -> Self {
        Self::new(hello::REP, hello::REQ, tags::split, options)
    }

    pub(crate) fn respondent(options: &SocketOptions) -> Self {
        match options.dialect {
            Dialect::Current => Self::new(hello::RESPONDENT, hello::SURVEYOR, tags::split, options),
            Dialect::Mangos2015 => {
                Self::new(hello::OLD_RESPONDENT, hello::OLD_SURVEYOR, tags::split_old, options)
            }
        }
    }

    fn new(ours: u16, theirs: u16, split: Split, options: &SocketOptions) -> Self {
        Self {
            ours,
            theirs,
            split,
            inbox: Inbox::new(options.recv_queue),
            links: Mutex::default(),
            unanswered: options.unanswered.clamp(1, u32::MAX as usize / 2),
            max_message: options.max_message,
        }
    }
}

impl Role for Answering {
    type Link = Arc<Link>;
    const ROOM: usize = tags::ROOM;

    fn ours(&self) -> u16 {
        self.ours
    }

    fn theirs(&self) -> u16 {
        self.theirs
    }

    fn attach(engine: &Arc<Engine<Self>>, peer: &Peer) -> Arc<Link> {
        let role = &engine.role;
        let link = Arc::new(Link {
            id: peer.id,
            outbox: Outbox::new(Queue::of(role.unanswered)),
            room: Semaphore::new(role.unanswered),
            max_message: role.max_message,
        });
        lock(&role.links).push(Arc::clone(&link));
        link
    }

    fn detach(engine: &Arc<Engine<Self>>, link: &Arc<Link>) {
        lock(&engine.role.links).retain(|other| other.id != link.id);
        engine.lose(link.outbox.close());
    }

    async fn deliver(
        engine: &Arc<Engine<Self>>,
        link: &Arc<Link>,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let Self { inbox, split, .. } = &engine.role;
        // What came before something malformed still counts.
        let mut questions = VecDeque::with_capacity(frames.len());
        let mut bad = None;
        for frame in frames.drain(..) {
            match split(frame) {
                Ok(question) => questions.push_back(question),
                Err(why) => {
                    bad = Some(why);
                    break;
                }
            }
        }
        while !questions.is_empty() {
            let Ok(room) = link.room.acquire().await else { return Ok(()) };
            let most = 1 + link.room.available_permits();
            let sizes = questions.iter().map(|(_, body)| body.len()).take(most);
            let Ok((count, slots)) = inbox.slots().take_turn(sizes).await else {
                // The socket ends, and this connection with it; until then it may still write answers.
                return std::future::pending().await;
            };
            room.forget();
            // Nobody else takes of this room: it has not become less.
            link.room.forget_permits(count - 1);
            let asked = questions.drain(..count).map(|(words, body)| Asked {
                body,
                words,
                link: Arc::clone(link),
                answered: false,
            });
            inbox.put(asked, slots);
        }
        bad.map_or(Ok(()), Err)
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        link: &Arc<Link>,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        if link.outbox.take(batch, |count| engine.took(count)).await { Ok(()) } else { Err(None) }
    }

    fn written(link: &Arc<Link>, count: usize) {
        link.room.add_permits(count);
    }

    fn queued(&self) -> usize {
        lock(&self.links).iter().map(|link| link.outbox.len()).sum()
    }

    fn stop_accepting(&self) {
        self.inbox.close();
    }

    fn end(&self) -> usize {
        0
    }
}
