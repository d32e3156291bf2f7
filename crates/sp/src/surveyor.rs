//! SURVEYOR: a question to everybody, and the answers that come in time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Peer;
use crate::frame::{Frame, Head};
use crate::hello;
use crate::options::{Dialect, Queue, SocketOptions};
use crate::outbox::Outbox;
use crate::role::Role;
use crate::socket::{Socket, socket};
use crate::stats::{Refusal, add};
use crate::sync::lock;
use crate::tags;

/// Asks all respondents that are connected, and collects their answers until a deadline.
///
/// One survey is open at a time: a new one takes the place of the one before. Clones are the same socket; when the last is dropped
/// everything ends at once.
#[derive(Clone)]
pub struct Surveyor {
    socket: Arc<Socket<SurveyorRole>>,
}

socket!(Surveyor, SurveyorRole, new);

impl Surveyor {
    /// Asks everybody who is connected now; answers count for [`SocketOptions::survey_deadline`]. Does not wait.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoRuntime`], [`Error::Closed`].
    pub fn survey(&self, body: impl Into<Bytes>) -> Result<Survey> {
        self.survey_for(body, self.socket.engine().options.survey_deadline)
    }

    /// Asks everybody who is connected now; answers count until `deadline` has passed from now on. Does not wait.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoRuntime`], [`Error::Closed`].
    pub fn survey_for(&self, body: impl Into<Bytes>, deadline: Duration) -> Result<Survey> {
        let (engine, body) = (self.socket.engine(), body.into());
        engine.check_size(&body)?;
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let mut state = lock(&engine.role.state);
        if state.closed {
            return Err(Error::Closed);
        }
        let word = engine.role.word(&mut state);
        // Nobody answers twice, save a peer that does wrong: so that there is room for every answer.
        let room = state.links.len() + engine.options.recv_queue.messages;
        let (sender, answers) = mpsc::channel(room.clamp(1, tokio::sync::Semaphore::MAX_PERMITS));
        state.open = Some(Open { word, answers: sender });
        let mut dropped = 0;
        for link in &state.links {
            dropped += link.outbox.put_newest(Frame { head: Head::Word(word), body: body.clone() });
        }
        let asked = state.links.len();
        drop(state);
        engine.lose(dropped);
        let deadline = Box::pin(tokio::time::sleep(deadline));
        Ok(Survey { answers: Some(answers), word, asked, deadline, over: false, engine: Arc::clone(engine) })
    }
}

/// An answer to a survey.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Which connection it came by: the [`Peer::id`](crate::Peer::id).
    pub peer: u64,
    /// What it says.
    pub body: Bytes,
}

/// The answers to one survey, as they come. Ends at its deadline.
///
/// Dropping it ends the survey; answers that come then are ignored, and counted as late.
pub struct Survey {
    answers: Option<mpsc::Receiver<Answer>>,
    word: u32,
    asked: usize,
    deadline: Pin<Box<Sleep>>,
    over: bool,
    engine: Arc<Engine<SurveyorRole>>,
}

impl Survey {
    /// How many respondents were connected and so were asked. When as many have answered, none is to be expected, unless there
    /// are devices between.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// The next answer; `None` once the deadline has passed.
    ///
    /// # Errors
    /// [`Error::Superseded`] when a new survey was made, [`Error::Closed`] when the socket was closed. Then it ends.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub async fn next(&mut self) -> Option<Result<Answer>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Answer>>> {
        loop {
            let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
            if !self.over {
                if let Some(error) = self.engine.role.ended(self.word) {
                    self.answers = None;
                    return Poll::Ready(Some(Err(error)));
                }
                if self.deadline.as_mut().poll(context).is_ready() {
                    // No more are taken; those that came in time count also when they are asked for later.
                    self.over = true;
                    self.engine.role.finish(self.word);
                }
            }
            match answers.poll_recv(context) {
                Poll::Ready(Some(answer)) => return Poll::Ready(Some(Ok(answer))),
                Poll::Ready(None) if self.over => self.answers = None,
                // It was ended between the two looks: the next tells by what.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Survey {
    type Item = Result<Answer>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.engine.role.finish(self.word);
    }
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey")
            .field("asked", &self.asked)
            .field("open", &self.answers.is_some())
            .finish_non_exhaustive()
    }
}

pub(crate) struct SurveyorRole {
    state: Mutex<State>,
    dialect: Dialect,
}

struct State {
    /// The number of the next survey.
    next: u32,
    open: Option<Open>,
    links: Vec<Arc<Link>>,
    closed: bool,
}

struct Open {
    word: u32,
    answers: mpsc::Sender<Answer>,
}

pub(crate) struct Link {
    id: u64,
    outbox: Outbox,
}

impl SurveyorRole {
    fn new(options: &SocketOptions) -> Self {
        let dialect = options.dialect;
        let next = match dialect {
            Dialect::Current => rand::random(),
            Dialect::Mangos2015 => 0,
        };
        Self { state: Mutex::new(State { next, open: None, links: Vec::new(), closed: false }), dialect }
    }

    /// Why this survey is not open any more, unless it is.
    fn ended(&self, word: u32) -> Option<Error> {
        let state = lock(&self.state);
        match &state.open {
            _ if state.closed => Some(Error::Closed),
            Some(open) if open.word == word => None,
            _ => Some(Error::Superseded),
        }
    }

    /// No more answers to this survey are taken.
    fn finish(&self, word: u32) {
        let mut state = lock(&self.state);
        if state.open.as_ref().is_some_and(|open| open.word == word) {
            state.open = None;
        }
    }

    /// The word of a new survey.
    fn word(&self, state: &mut State) -> u32 {
        let number = state.next & !tags::LAST;
        state.next = number.wrapping_add(1);
        match self.dialect {
            Dialect::Current => number | tags::LAST,
            Dialect::Mangos2015 => number,
        }
    }
}

impl Role for SurveyorRole {
    type Link = Arc<Link>;
    const ROOM: usize = tags::ROOM;

    fn ours(&self) -> u16 {
        match self.dialect {
            Dialect::Current => hello::SURVEYOR,
            Dialect::Mangos2015 => hello::OLD_SURVEYOR,
        }
    }

    fn theirs(&self) -> u16 {
        match self.dialect {
            Dialect::Current => hello::RESPONDENT,
            Dialect::Mangos2015 => hello::OLD_RESPONDENT,
        }
    }

    fn attach(engine: &Arc<Engine<Self>>, peer: &Peer) -> Arc<Link> {
        // Only the latest survey matters: one that was not written when the next is made is over.
        let link = Arc::new(Link { id: peer.id, outbox: Outbox::new(Queue::of(1)) });
        lock(&engine.role.state).links.push(Arc::clone(&link));
        link
    }

    fn detach(engine: &Arc<Engine<Self>>, link: &Arc<Link>) {
        lock(&engine.role.state).links.retain(|other| other.id != link.id);
        engine.lose(link.outbox.close());
    }

    async fn deliver(
        engine: &Arc<Engine<Self>>,
        link: &Arc<Link>,
        frames: &mut Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let state = lock(&engine.role.state);
        for frame in frames.drain(..) {
            let (word, body) = tags::number(frame)?;
            match &state.open {
                Some(open) if open.word == word => {
                    if open.answers.try_send(Answer { peer: link.id, body }).is_err() {
                        engine.lose(1);
                    }
                }
                _ if engine.role.dialect == Dialect::Current && word & tags::LAST == 0 => {
                    return Err(Refusal::BadHeader);
                }
                _ => add(&engine.counters.late, 1),
            }
        }
        Ok(())
    }

    async fn take(
        engine: &Arc<Engine<Self>>,
        link: &Arc<Link>,
        batch: &mut VecDeque<Frame>,
    ) -> Result<(), Option<Refusal>> {
        if link.outbox.take(batch, |count| engine.took(count)).await { Ok(()) } else { Err(None) }
    }

    fn queued(&self) -> usize {
        lock(&self.state).links.iter().map(|link| link.outbox.len()).sum()
    }

    fn stop_accepting(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.open = None;
    }

    fn end(&self) -> usize {
        0
    }
}
