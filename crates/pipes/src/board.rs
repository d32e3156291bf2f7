//! What a registration and its task have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::groups::{Known, News};
use crate::pipe::Pipe;
use crate::registration::{RegistrationState, RegistrationStatus};
use crate::stats::{Counters, Stats, read};

/// The open pipes, by their groups' names.
pub(crate) type Pipes = BTreeMap<String, Arc<Pipe>>;

#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) destination: String,
    /// The largest message.
    pub(crate) limit: usize,
    /// `None` at the end.
    pipes: Mutex<Option<Arc<Pipes>>>,
    pub(crate) status: watch::Sender<RegistrationStatus>,
    /// The groups that messages go to.
    routed: Mutex<Known>,
    pub(crate) news: watch::Sender<News>,
    pub(crate) counters: Arc<Counters>,
    /// Set when everything is closed and the keys are deleted, or could not be.
    pub(crate) done: watch::Sender<Option<Result<()>>>,
}

impl Board {
    pub(crate) fn new(destination: String, limit: usize) -> Self {
        Self {
            destination,
            limit,
            pipes: Mutex::new(Some(Arc::default())),
            status: watch::Sender::new(RegistrationStatus::default()),
            routed: Mutex::default(),
            news: watch::Sender::new(News::default()),
            counters: Arc::default(),
            done: watch::Sender::new(None),
        }
    }

    /// Where a message goes now.
    pub(crate) fn pipes(&self) -> Result<Arc<Pipes>> {
        let pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.clone().ok_or_else(|| self.ended())
    }

    /// Where messages go from here on.
    pub(crate) fn route(&self, pipes: Pipes) {
        let mut routes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(routes) = &mut *routes {
            *routes = Arc::new(pipes);
        }
    }

    /// The groups that messages go to.
    pub(crate) fn routed(&self) -> Known {
        self.routed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which groups messages go to.
    pub(crate) fn note_routed(&self, groups: Known) {
        *self.routed.lock().unwrap_or_else(PoisonError::into_inner) = groups;
    }

    /// Tells which groups there are, and can be joined.
    pub(crate) fn tell(&self, known: Known) {
        self.news.send_if_modified(|news| {
            let changed = *news.groups != known;
            if changed {
                news.groups = Arc::new(known);
            }
            changed
        });
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut RegistrationStatus)) {
        self.status.send_modify(change);
    }

    /// Nothing is sent from here on. Without a reason, because that was asked for.
    pub(crate) fn end(&self, reason: Option<Error>) {
        self.status.send_modify(|status| {
            status.state = RegistrationState::Ended;
            status.problem.clone_from(&reason);
        });
        *self.pipes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.note_routed(Known::default());
        self.news.send_modify(|news| {
            news.groups = Arc::default();
            news.over = Some(reason);
        });
    }

    /// Why nothing can be sent any more.
    pub(crate) fn ended(&self) -> Error {
        let reason = self.status.borrow().problem.clone();
        reason.unwrap_or_else(|| Error::Unregistered { destination: self.destination.clone() })
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        let pipes = self.pipes().unwrap_or_default();
        Stats {
            sent: read(&counters.sent),
            to_nobody: read(&counters.to_nobody),
            dropped: read(&counters.dropped),
            lost: read(&counters.lost),
            malformed: read(&counters.malformed),
            groups: pipes.iter().map(|(name, pipe)| (name.clone(), pipe.stats())).collect(),
        }
    }
}
