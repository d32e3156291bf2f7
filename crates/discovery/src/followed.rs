//! A followed service: what its task, its views and its streams share.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Instant;

use sereno_core::{CancellationToken, Client, Key, Prefix, pace};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::directory_options::DirectoryOptions;
use crate::error::{Error, Result};
use crate::follower::Follower;
use crate::host::Host;
use crate::keys::Keys;
use crate::mailbox::Mailbox;
use crate::notice::Notice;
use crate::service::Service;
use crate::state::State;

/// How far its task is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Loading,
    /// Read from a file.
    Stored,
    /// Read from etcd.
    Live,
    /// It cannot be followed any more; what is known is served until it is too old.
    Void(Error),
    /// It could not be read, or its task is no more.
    Failed(Error),
}

/// What the task and the handles share.
pub(crate) struct Followed {
    pub(crate) client: Client,
    pub(crate) service: String,
    pub(crate) hosts: Prefix,
    pub(crate) info: Key,
    pub(crate) options: DirectoryOptions,
    pub(crate) cache: Option<Cache>,
    state: RwLock<State>,
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    /// The number of the last notice.
    changed: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
}

/// Keeps a followed service followed: dropping the last one ends its task.
pub(crate) struct Handle {
    pub(crate) followed: Arc<Followed>,
    stop: CancellationToken,
}

/// All hosts at one moment, and what else a stream begins with.
pub(crate) struct Picture {
    pub(crate) seq: u64,
    pub(crate) hosts: Vec<(Key, Arc<Host>)>,
    pub(crate) record: Option<Arc<Service>>,
}

impl Handle {
    /// Begins to follow. Must be called on a runtime, on which the task runs.
    pub(crate) fn follow(
        client: &Client,
        keys: &Keys,
        options: &DirectoryOptions,
        service: &str,
    ) -> Result<Self> {
        let hosts = keys.hosts(service)?;
        let cache = options.cache_dir.as_ref().map(|folder| Cache::new(folder, &hosts, service));
        let followed = Arc::new(Followed {
            client: client.clone(),
            service: service.to_owned(),
            info: keys.info(service)?,
            options: options.clone(),
            cache,
            state: RwLock::new(State::new(options, pace::now())),
            mailboxes: Mutex::default(),
            changed: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Loading),
            hosts,
        });
        let stop = CancellationToken::new();
        tokio::spawn(Follower::new(followed.clone(), stop.clone()).run());
        Ok(Self { followed, stop })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Followed {
    /// What is known, unless it is too old.
    pub(crate) fn fresh(&self) -> Result<RwLockReadGuard<'_, State>> {
        let state = self.read();
        let age = state.freshness.age(self.client.last_watch_activity(), pace::now());
        if age > self.options.serve_stale_for {
            return Err(Error::Stale { service: self.service.clone(), age });
        }
        Ok(state)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the task alone.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and tells it. For the task alone, so that what is told is in order.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State) -> Option<Notice>) {
        let mut state = self.write();
        let Some(notice) = change(&mut state) else { return };
        state.seq += 1;
        let seq = state.seq;
        drop(state);
        self.mailboxes().retain(|mailbox| match mailbox.upgrade() {
            Some(mailbox) => {
                mailbox.push(seq, notice.clone());
                true
            }
            None => false,
        });
        self.changed.send_replace(seq);
    }

    /// A mailbox for what comes after the picture that is taken next.
    pub(crate) fn subscribe(&self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(self.options.backlog));
        let mut mailboxes = self.mailboxes();
        mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        mailboxes.push(Arc::downgrade(&mailbox));
        drop(mailboxes);
        if let Phase::Void(error) | Phase::Failed(error) = &*self.phase.borrow() {
            mailbox.end(error.clone());
        }
        mailbox
    }

    pub(crate) fn picture(&self) -> Picture {
        let state = self.read();
        let hosts = state.contents.roster.all(None).iter();
        Picture {
            seq: state.seq,
            hosts: hosts.map(|entry| (entry.key.clone(), entry.host.clone())).collect(),
            record: state.contents.record.clone(),
        }
    }

    pub(crate) fn is_current(&self, now: Instant) -> bool {
        self.read().freshness.is_current(self.client.last_watch_activity(), now)
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        let over = match &phase {
            Phase::Void(error) | Phase::Failed(error) => Some(error.clone()),
            _ => None,
        };
        self.phase.send_replace(phase);
        if let Some(error) = over {
            let mailboxes = self.mailboxes();
            mailboxes.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.end(error.clone()));
        }
    }

    /// Whether it has been loaded and its task has not failed.
    pub(crate) fn is_loaded(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Stored | Phase::Live | Phase::Void(_))
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Failed(_))
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn mailboxes(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("service", &self.followed.service).finish_non_exhaustive()
    }
}
