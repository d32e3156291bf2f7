//! Which groups a destination has.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use sereno_sp::Address;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::mode::Mode;

/// A group of a registered destination.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// How it gets its messages.
    pub mode: Mode,
    /// Where its members connect to.
    pub address: Address,
    /// How many members it has, by their keys. 0 for one that is standing, or waits for a member to come back.
    pub members: usize,
}

impl GroupInfo {
    pub(crate) fn new(name: String, mode: Mode, address: Address, members: usize) -> Self {
        Self { name, mode, address, members }
    }
}

/// A change of a registration's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupChange {
    /// A group is there: what is sent from now on goes to it.
    Joined(GroupInfo),
    /// A group has another number of members, or another address or mode because it ended and began again.
    Changed {
        /// As it was told last.
        old: GroupInfo,
        /// As it is.
        new: GroupInfo,
    },
    /// A group is gone: nothing more is sent to it.
    Left(GroupInfo),
}

pub(crate) type Known = BTreeMap<String, GroupInfo>;

/// The latest news of the groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    pub(crate) groups: Arc<Known>,
    /// Set at the end of the registration, with the reason unless it was asked for.
    pub(crate) over: Option<Option<Error>>,
}

type Waiting = Pin<Box<dyn Future<Output = watch::Receiver<News>> + Send>>;

/// The changes of a registration's groups, beginning with those that are there: see
/// [`Registration::group_changes`](crate::Registration::group_changes).
///
/// Whoever is slow is told the difference between what was told last and what is now: nothing needs to be drained. Dropping
/// it does nothing else.
#[must_use = "changes come when they are asked for"]
pub struct GroupChanges {
    news: Option<watch::Receiver<News>>,
    waiting: Option<Waiting>,
    told: Arc<Known>,
    ready: VecDeque<GroupChange>,
    ended: bool,
}

impl GroupChanges {
    pub(crate) fn new(mut news: watch::Receiver<News>) -> Self {
        news.mark_changed();
        let (told, ready) = (Arc::default(), VecDeque::new());
        Self { news: Some(news), waiting: None, told, ready, ended: false }
    }

    /// The next change; `None` after the end of the registration.
    ///
    /// # Errors
    /// Why the registration ended, if it was not asked to: the last item.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<GroupChange>> {
        std::future::poll_fn(|context| self.poll_change(context)).await
    }

    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GroupChange>>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let waiting = match (&mut self.waiting, self.news.take()) {
                (Some(waiting), _) => waiting,
                (none @ None, Some(news)) => none.insert(Box::pin(changed(news))),
                (None, None) => return Poll::Ready(None),
            };
            let mut news = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
            let latest = news.borrow_and_update().clone();
            self.news = Some(news);
            self.ready = difference(&self.told, &latest.groups);
            self.told = latest.groups;
            if let Some(reason) = latest.over {
                self.ended = true;
                if let Some(error) = reason {
                    // What has gone with it is no news besides.
                    self.ready.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

async fn changed(mut news: watch::Receiver<News>) -> watch::Receiver<News> {
    // Never an error before the last news was seen, which says that it is the last.
    let _ = news.changed().await;
    news
}

fn difference(old: &Known, new: &Known) -> VecDeque<GroupChange> {
    let mut changes = VecDeque::new();
    changes
        .extend(old.values().filter(|group| !new.contains_key(&group.name)).cloned().map(GroupChange::Left));
    for (name, group) in new {
        match old.get(name) {
            None => changes.push_back(GroupChange::Joined(group.clone())),
            Some(before) if before != group => {
                changes.push_back(GroupChange::Changed { old: before.clone(), new: group.clone() });
            }
            Some(_) => {}
        }
    }
    changes
}

impl Stream for GroupChanges {
    type Item = Result<GroupChange>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(context)
    }
}

impl fmt::Debug for GroupChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupChanges").field("told", &self.told).finish_non_exhaustive()
    }
}
