//! The calls that wait for the worker.
//!
//! Not a channel, because a call must be able to take itself back as long as it was not sent. It is as long as there
//! are callers waiting, no longer.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::tally::{Sum, SumOverflow, Tally, TallyChange, Verdict};
use crate::error::{Error, Result};
use crate::txn::Op;

pub(super) struct Request {
    pub(super) what: What,
    pub(super) deadline: Instant,
}

pub(super) enum What {
    Add { n: i64, reply: oneshot::Sender<Result<Result<Sum, SumOverflow>>> },
    Set { value: i64, reply: oneshot::Sender<Result<Sum>> },
    Exact(Box<dyn Decision>),
}

impl Request {
    /// Whether nobody waits for it any more.
    pub(super) fn is_forgotten(&self) -> bool {
        match &self.what {
            What::Add { reply, .. } => reply.is_closed(),
            What::Set { reply, .. } => reply.is_closed(),
            What::Exact(decision) => decision.is_forgotten(),
        }
    }

    /// The wish that the cells of dead sessions are folded before it. Only decisions ever have it.
    pub(super) fn folds(&mut self) -> Option<&mut bool> {
        match &mut self.what {
            What::Exact(decision) => Some(decision.folds()).filter(|folds| **folds),
            What::Add { .. } | What::Set { .. } => None,
        }
    }

    // A caller that has gone does not want to know.
    pub(super) fn fail(self, error: Error) {
        match self.what {
            What::Add { reply, .. } => drop(reply.send(Err(error))),
            What::Set { reply, .. } => drop(reply.send(Err(error))),
            What::Exact(decision) => decision.finish(Err(error)),
        }
    }
}

/// A [`Verdict`] whose result has been put away.
pub(super) enum Judged {
    Apply { change: TallyChange, ops: Vec<Op> },
    Refused,
}

/// A caller's decision of whatever type.
pub(super) trait Decision: Send {
    fn decide(&mut self, tally: &Tally) -> Judged;
    /// Answers with the result of the last decision, or with an error.
    fn finish(self: Box<Self>, outcome: Result<()>);
    fn is_forgotten(&self) -> bool;
    /// True when the cells of dead sessions are to be folded before it.
    fn folds(&mut self) -> &mut bool;
}

pub(super) struct Exact<T, F> {
    pub(super) decide: F,
    pub(super) folds: bool,
    pub(super) result: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnMut(&Tally) -> Verdict<T> + Send> Decision for Exact<T, F> {
    fn decide(&mut self, tally: &Tally) -> Judged {
        match (self.decide)(tally) {
            Verdict::Apply { change, ops, result } => {
                self.result = Some(result);
                Judged::Apply { change, ops }
            }
            Verdict::Refuse(result) => {
                self.result = Some(result);
                Judged::Refused
            }
        }
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let Self { result, reply, .. } = *self;
        drop(reply.send(outcome.and_then(|()| result.ok_or(Error::Stopped))));
    }

    fn is_forgotten(&self) -> bool {
        self.reply.is_closed()
    }

    fn folds(&mut self) -> &mut bool {
        &mut self.folds
    }
}

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    notify: Notify,
}

#[derive(Default)]
struct Inner {
    /// What was withdrawn leaves a gap, so that the others keep their place.
    waiting: VecDeque<Option<Request>>,
    /// The number of the first of them.
    first: u64,
    running: bool,
    abandoned: bool,
    closed: Option<Error>,
}

impl Queue {
    /// Adds a call. Also tells whether the caller must start the worker.
    pub(super) fn push(self: &Arc<Self>, request: Request) -> Result<(Ticket, bool)> {
        let mut inner = self.lock();
        if let Some(error) = &inner.closed {
            return Err(error.clone());
        }
        let number = inner.first.saturating_add(inner.waiting.len() as u64);
        inner.waiting.push_back(Some(request));
        let wanted = !mem::replace(&mut inner.running, true);
        let notify = inner.waiting.len() == 1;
        drop(inner);
        if notify {
            self.notify.notify_one();
        }
        Ok((Ticket { queue: self.clone(), number, done: false }, wanted))
    }

    /// Whether the caller must start the worker.
    pub(super) fn start(&self) -> bool {
        let mut inner = self.lock();
        inner.closed.is_none() && !mem::replace(&mut inner.running, true)
    }

    /// Everything that waits, in order. From now on it cannot be withdrawn.
    pub(super) fn take(&self) -> Vec<Request> {
        let mut inner = self.lock();
        let taken = mem::take(&mut inner.waiting);
        inner.first = inner.first.saturating_add(taken.len() as u64);
        drop(inner);
        taken.into_iter().flatten().collect()
    }

    /// Waits until something waits; `false` when the last handle is gone.
    pub(super) async fn ready(&self) -> bool {
        loop {
            {
                let inner = self.lock();
                if !inner.waiting.is_empty() {
                    return true;
                }
                if inner.abandoned {
                    return false;
                }
            }
            self.notify.notified().await;
        }
    }

    /// The last handle is gone.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.notify.notify_one();
    }

    /// Takes nothing more.
    pub(super) fn close(&self, error: Error) {
        self.lock().closed = Some(error);
    }

    /// The worker has ended, in whatever way; the next call starts another one.
    pub(super) fn stopped(&self) {
        let mut inner = self.lock();
        inner.running = false;
        let left = mem::take(&mut inner.waiting);
        inner.first = inner.first.saturating_add(left.len() as u64);
        let error = inner.closed.clone().unwrap_or(Error::Stopped);
        drop(inner);
        left.into_iter().flatten().for_each(|request| request.fail(error.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's place in the queue; dropping it withdraws the call if that is still possible.
pub(super) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
    done: bool,
}

impl Ticket {
    pub(super) fn answered(&mut self) {
        self.done = true;
    }

    /// Takes the call back. `false` when it may have been sent.
    pub(super) fn withdraw(&mut self) -> bool {
        self.done = true;
        let mut inner = self.queue.lock();
        let Some(at) = self.number.checked_sub(inner.first).and_then(|at| usize::try_from(at).ok()) else {
            return false;
        };
        let withdrawn = inner.waiting.get_mut(at).and_then(Option::take);
        while inner.waiting.front().is_some_and(Option::is_none) {
            inner.waiting.pop_front();
            inner.first = inner.first.saturating_add(1);
        }
        drop(inner);
        withdrawn.is_some()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.withdraw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(n: i64) -> (Request, oneshot::Receiver<Result<Result<Sum, SumOverflow>>>) {
        let (reply, answer) = oneshot::channel();
        (Request { what: What::Add { n, reply }, deadline: Instant::now() }, answer)
    }

    fn taken(queue: &Queue) -> Vec<i64> {
        let number = |request: Request| match request.what {
            What::Add { n, .. } => n,
            _ => unreachable!("only additions are pushed here"),
        };
        queue.take().into_iter().map(number).collect()
    }

    #[test]
    fn a_call_can_be_taken_back_until_it_is_taken() {
        let queue = Arc::new(Queue::default());
        let mut tickets: Vec<_> = (0..4).map(|n| queue.push(add(n).0).unwrap().0).collect();
        assert!(tickets[1].withdraw());
        drop(tickets.remove(3));
        assert_eq!(taken(&queue), [0, 2]);
        assert!(!tickets[0].withdraw(), "it may have been sent");
        assert!(!tickets[2].withdraw());
        let (mut later, _) = queue.push(add(9).0).unwrap();
        assert!(!tickets[1].withdraw(), "a place is used once");
        assert!(later.withdraw());
        assert_eq!(taken(&queue), [] as [i64; 0]);
    }

    #[test]
    fn only_the_first_call_starts_the_worker_and_the_next_one_after_its_end() {
        let queue = Arc::new(Queue::default());
        let (request, mut answer) = add(1);
        assert!(queue.push(request).unwrap().1);
        let (request, _kept) = add(2);
        let (_ticket, wanted) = queue.push(request).unwrap();
        assert!(!wanted);
        queue.stopped();
        assert!(answer.try_recv().is_err(), "withdrawn with its ticket");
        assert!(queue.push(add(3).0).unwrap().1);
    }

    #[test]
    fn what_waits_when_the_worker_ends_is_told_so() {
        let queue = Arc::new(Queue::default());
        let (request, mut answer) = add(1);
        let _ticket = queue.push(request).unwrap();
        queue.stopped();
        assert!(matches!(answer.try_recv(), Ok(Err(Error::Stopped))));
    }
}
