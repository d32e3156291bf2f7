//! What all members of one session in one group share: one watch, one view, one task.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sereno_core::{CancellationToken, Client, Session};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OnceCell};

use crate::error::Result;
use crate::group::Group;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::place::Place;
use crate::release::Release;
use crate::worker;

/// Dropped with the last member and claim; its task then finishes what is left to do and ends.
pub(crate) struct Roster {
    inner: Arc<Inner>,
    opened: OnceCell<()>,
}

/// The part that the task has too.
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    view: Mutex<Arc<Group>>,
    /// Rings after each new view. Those who wait are woken in the order in which they came, so that runs can be repeated.
    moved: Notify,
    /// Claims to be given back.
    pub(crate) releases: Mutex<Vec<Release>>,
    pub(crate) wake: Notify,
    pub(crate) over: CancellationToken,
    /// In the order of their making, so that runs can be repeated.
    places: Mutex<BTreeMap<u64, Weak<Place>>>,
}

impl Roster {
    pub(crate) fn of(session: &Session, keys: &Keys) -> Arc<Self> {
        session.shared(&keys.group, || {
            let inner = Inner {
                client: session.client().clone(),
                keys: keys.clone(),
                view: Mutex::default(),
                moved: Notify::new(),
                releases: Mutex::default(),
                wake: Notify::new(),
                over: CancellationToken::new(),
                places: Mutex::default(),
            };
            Arc::new(Self { inner: Arc::new(inner), opened: OnceCell::new() })
        })
    }

    /// Reads the group and follows it from there; nothing when that was done before. One RPC per 1,000 keys.
    pub(crate) async fn open(&self, session: &Session) -> Result<()> {
        let open = async || -> Result<()> {
            let watcher = self.inner.client.watch(&self.inner.keys.group).await?;
            let mut ledger = Ledger::of(&self.inner.keys, watcher.view());
            self.inner.publish(&mut ledger, watcher.view().revision(), true);
            let inner = self.inner.clone();
            session.spawn(|closing| worker::run(inner, watcher, ledger, closing));
            Ok(())
        };
        self.opened.get_or_try_init(open).await?;
        Ok(())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    pub(crate) fn view(&self) -> Arc<Group> {
        self.inner.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a view later than those that could be looked at when this was first polled.
    pub(crate) fn moved(&self) -> Notified<'_> {
        self.inner.moved.notified()
    }

    pub(crate) fn enrol(&self, number: u64, place: &Arc<Place>) {
        self.inner.places().insert(number, Arc::downgrade(place));
    }

    pub(crate) fn strike(&self, number: u64) {
        self.inner.places().remove(&number);
    }

    /// Has a key of a claim deleted, however long it takes, unless its epoch ends first.
    pub(crate) fn release(&self, release: Release) {
        self.inner.releases.lock().unwrap_or_else(PoisonError::into_inner).push(release);
        self.inner.wake.notify_one();
    }
}

impl Inner {
    /// Shows the group as it is now to everyone, and tells those whose position changed.
    pub(crate) fn publish(&self, ledger: &mut Ledger, revision: i64, followed: bool) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(ledger.publish(revision, followed));
        let places: Vec<Arc<Place>> = self.places().values().filter_map(Weak::upgrade).collect();
        for place in places {
            place.refresh();
        }
        self.moved.notify_waiters();
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Weak<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.inner.over.cancel();
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("group", &self.inner.keys.group).finish_non_exhaustive()
    }
}
