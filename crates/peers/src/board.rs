//! Where the latest list of names is put up for whoever follows it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// What there is to tell.
#[derive(Debug, Clone, Default)]
struct News {
    /// `None` until the first list is known.
    names: Option<Arc<[String]>>,
    faults: u64,
    /// The latest of them.
    fault: Option<Error>,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Board {
    news: watch::Sender<News>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { news: watch::Sender::new(News::default()) }
    }

    /// Puts up a list. Whoever follows is told when it is another than before.
    pub(crate) fn post(&self, names: Vec<String>) {
        self.news.send_if_modified(|news| {
            let changed = news.names.as_deref() != Some(names.as_slice());
            if changed {
                news.names = Some(names.into());
            }
            changed
        });
    }

    pub(crate) fn fault(&self, fault: Error) {
        self.news.send_modify(|news| {
            news.faults += 1;
            news.fault = Some(fault);
        });
    }

    /// Nothing will follow.
    pub(crate) fn end(&self) {
        self.news.send_if_modified(|news| !std::mem::replace(&mut news.over, true));
    }

    pub(crate) fn stream(&self) -> PeersStream {
        let news = self.news.subscribe();
        let faults = news.borrow().faults;
        PeersStream { news, waiting: None, told: None, faults, ended: false }
    }
}

type Waiting = Pin<Box<dyn Future<Output = watch::Receiver<News>> + Send + Sync>>;

/// Who is there: the list of names as it is, then again after each change. Sorted, each name once; nobody is an empty list.
///
/// The first item is the list at that time, once one is known. Whoever is slow misses lists in between, never the last one,
/// and is told no list twice in a row. It ends when the client, subscriber or server it is of is cancelled or dropped.
/// Dropping it stops nothing else.
#[must_use = "streams do nothing unless polled"]
pub struct PeersStream {
    news: watch::Receiver<News>,
    waiting: Option<Waiting>,
    told: Option<Arc<[String]>>,
    faults: u64,
    ended: bool,
}

impl PeersStream {
    /// The next list that differs from the one told last; `None` after the end.
    ///
    /// # Errors
    /// In survey mode [`Error::BadPublication`], after which it goes on. On etcd what the core says of a range that could not
    /// be read again, after which it goes on, or of a session that was closed, which ends it.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Vec<String>>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Waits until the list is as wanted, and gives it. Passes over errors after which it goes on.
    ///
    /// # Errors
    /// The one that ended it; [`sereno_sp::Error::Closed`] when it ended without one.
    ///
    /// # Cancel safety
    /// Lists that were not wanted do not come again.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&[String]) -> bool) -> Result<Vec<String>> {
        let mut last = None;
        while let Some(item) = self.next().await {
            match item {
                Ok(names) if wanted(&names) => return Ok(names),
                Ok(_) => last = None,
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::Socket(sereno_sp::Error::Closed)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<String>>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(waiting) = &mut self.waiting {
                self.news = ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            if let Some(item) = self.look() {
                return Poll::Ready(item);
            }
            let mut news = self.news.clone();
            self.waiting = Some(Box::pin(async move {
                // When nobody is left to change it, the end has been put up.
                let _ = news.changed().await;
                news
            }));
        }
    }

    /// What is to be told now.
    fn look(&mut self) -> Option<Option<Result<Vec<String>>>> {
        let news = self.news.borrow_and_update();
        if news.faults != self.faults {
            self.faults = news.faults;
            if let Some(fault) = news.fault.clone() {
                return Some(Some(Err(fault)));
            }
        }
        if news.over {
            self.ended = true;
            return Some(None);
        }
        let names = news.names.as_ref()?;
        if self.told.as_ref() == Some(names) {
            return None;
        }
        self.told = Some(Arc::clone(names));
        Some(Some(Ok(names.to_vec())))
    }
}

impl Stream for PeersStream {
    type Item = Result<Vec<String>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl fmt::Debug for PeersStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersStream")
            .field("told", &self.told)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What is there to be told without waiting; `None` when nothing is.
    async fn now(stream: &mut PeersStream) -> Option<Option<Result<Vec<String>>>> {
        tokio::select! {
            biased;
            item = stream.next() => Some(item),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn a_stream_begins_with_what_is_and_tells_nothing_twice() {
        let board = Board::new();
        let mut early = board.stream();
        assert!(now(&mut early).await.is_none(), "nothing is known yet");
        board.post(names(&["a"]));
        let mut late = board.stream();
        for stream in [&mut early, &mut late] {
            assert_eq!(now(stream).await.unwrap().unwrap().unwrap(), ["a"]);
            assert!(now(stream).await.is_none());
        }
        board.post(names(&["a"]));
        assert!(now(&mut early).await.is_none());
        board.post(names(&["a", "b"]));
        board.post(names(&["a"]));
        assert!(now(&mut early).await.is_none(), "it is as it was told last");
    }

    #[tokio::test]
    async fn whoever_is_slow_gets_the_last_list() {
        let board = Board::new();
        let mut stream = board.stream();
        for count in 0..1000 {
            board.post(vec![format!("{count}")]);
        }
        board.post(Vec::new());
        assert_eq!(now(&mut stream).await.unwrap().unwrap().unwrap(), names(&[]));
        assert!(now(&mut stream).await.is_none());
    }

    #[tokio::test]
    async fn a_fault_is_told_and_the_stream_goes_on_until_its_end() {
        let board = Board::new();
        let mut stream = board.stream();
        board.fault(Error::NoAddress);
        assert!(matches!(now(&mut stream).await, Some(Some(Err(Error::NoAddress)))));
        board.post(names(&["a"]));
        assert_eq!(now(&mut stream).await.unwrap().unwrap().unwrap(), ["a"]);
        board.post(names(&["b"]));
        board.fault(Error::NoSubscription);
        board.end();
        board.end();
        assert!(matches!(now(&mut stream).await, Some(Some(Err(Error::NoSubscription)))), "why it ended");
        for _ in 0..2 {
            assert!(matches!(now(&mut stream).await, Some(None)));
        }
    }

    #[tokio::test]
    async fn a_stream_that_waits_is_woken() {
        let board = Arc::new(Board::new());
        let mut stream = board.stream();
        let waiting = tokio::spawn(async move { stream.wait_for(|names| names.len() == 2).await });
        for list in [&["a"][..], &["a", "b"]] {
            tokio::task::yield_now().await;
            board.post(names(list));
        }
        assert_eq!(waiting.await.unwrap().unwrap(), ["a", "b"]);
    }
}
