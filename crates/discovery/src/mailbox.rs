//! Between the follower of a service and one stream: bounded, and never waiting for the stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Error;
use crate::notice::Notice;

/// Notices that a stream has not taken yet.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<Post>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Post {
    notices: VecDeque<(u64, Notice)>,
    overflowed: bool,
    end: Option<Error>,
    finished: bool,
    waker: Option<Waker>,
}

/// What a stream finds in its mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A notice and its number.
    Notice(u64, Notice),
    /// More came than there was room for: all of it is gone, what is known must be looked at.
    Overflow,
    /// Nothing more will come.
    End(Option<Error>),
}

impl Mailbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit }
    }

    pub(crate) fn push(&self, seq: u64, notice: Notice) {
        let mut post = self.lock();
        if post.overflowed || post.end.is_some() || post.finished {
            return;
        }
        if post.notices.len() >= self.limit {
            post.notices = VecDeque::new();
            post.overflowed = true;
        } else {
            post.notices.push_back((seq, notice));
        }
        wake(&mut post);
    }

    /// Nothing more will come, because of `error`.
    pub(crate) fn end(&self, error: Error) {
        let mut post = self.lock();
        if post.end.is_none() && !post.finished {
            post.end = Some(error);
        }
        wake(&mut post);
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Mail> {
        let mut post = self.lock();
        if std::mem::take(&mut post.overflowed) {
            return Poll::Ready(Mail::Overflow);
        }
        if let Some((seq, notice)) = post.notices.pop_front() {
            return Poll::Ready(Mail::Notice(seq, notice));
        }
        if post.end.is_some() || post.finished {
            post.finished = true;
            return Poll::Ready(Mail::End(post.end.take()));
        }
        post.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Post> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(post: &mut Post) {
    if let Some(waker) = post.waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(mailbox: &Mailbox) -> Poll<Mail> {
        mailbox.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_finds_no_room_is_one_overflow_and_then_there_is_room_again() {
        let mailbox = Mailbox::new(3);
        for seq in 1..=5 {
            mailbox.push(seq, Notice::Resync);
        }
        assert!(matches!(poll(&mailbox), Poll::Ready(Mail::Overflow)));
        assert!(poll(&mailbox).is_pending());
        mailbox.push(6, Notice::Resync);
        assert!(matches!(poll(&mailbox), Poll::Ready(Mail::Notice(6, Notice::Resync))));
    }

    #[test]
    fn the_end_comes_after_what_was_there_and_only_once() {
        let mailbox = Mailbox::new(3);
        mailbox.push(1, Notice::Resync);
        mailbox.end(Error::NotReady);
        mailbox.end(Error::Deregistered);
        mailbox.push(2, Notice::Resync);
        assert!(matches!(poll(&mailbox), Poll::Ready(Mail::Notice(1, _))));
        assert!(matches!(poll(&mailbox), Poll::Ready(Mail::End(Some(Error::NotReady)))));
        assert!(matches!(poll(&mailbox), Poll::Ready(Mail::End(None))));
    }
}
