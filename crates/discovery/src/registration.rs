//! The guard of a registered host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::board::{Board, Progress};
use crate::defaults;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::news::{Credentials, RegistrationChanges, ServiceNews};
use crate::status::{RegistrationState, RegistrationStatus};

/// A host that is registered for as long as this lives.
///
/// It is restored by itself, always as it shall be now: within milliseconds when its key is deleted underneath, under the
/// session's next epoch when the lease was lost or etcd was away. Dropping it stops it in the background;
/// [`Registration::stop`] does so in order.
/// At the end of `main` nothing goes on in the background: see [`Session`](sereno_core::Session#the-end-of-a-process).
#[must_use = "dropping a registration takes the host away"]
pub struct Registration {
    service: String,
    uuid: String,
    board: Arc<Board>,
    status: watch::Receiver<RegistrationStatus>,
    deadline: Duration,
}

impl Registration {
    pub(crate) fn new(service: String, uuid: String, board: Arc<Board>, deadline: Duration) -> Self {
        let status = board.status.subscribe();
        Self { service, uuid, board, status, deadline }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The host's name within the service. Known at once, and the same for good.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// What the host shall be now: as it was registered or updated last, with the credentials taken over from the service
    /// since. No RPC.
    #[must_use]
    pub fn host(&self) -> Host {
        self.board.orders.borrow().host.clone()
    }

    /// Whether both keys have been written, and it has not ended. No RPC.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let progress = self.board.progress.borrow();
        progress.ready && progress.ended.is_none()
    }

    /// Waits until both keys have been written; at once when they have been.
    ///
    /// # Errors
    /// What ended the registration before: [`Error::StartUp`] after [`start_within`](crate::RegistryOptions::start_within), what waiting
    /// cannot mend (no permission, say) at once, [`Error::Deregistered`] when it was stopped, a lost session when that was closed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind; the registration goes on.
    pub async fn ready(&self) -> Result<()> {
        let ready = self.until(|progress| progress.ready || progress.ended.is_some()).await;
        match ready.ended {
            Some(ended) if !ready.ready => Err(ended.error),
            _ => Ok(()),
        }
    }

    /// As [`Registration::ready`], for no longer than `within`: the registration goes on after that.
    ///
    /// # Errors
    /// As [`Registration::ready`]; [`Error::NotReady`] when the time is over.
    ///
    /// # Cancel safety
    /// As [`Registration::ready`].
    pub async fn ready_within(&self, within: Duration) -> Result<()> {
        tokio::time::timeout(within, self.ready()).await.unwrap_or(Err(Error::NotReady))
    }

    /// User and password that the public hosts of the service share now: those of whoever registered or was updated
    /// last. Empty for a private host. No RPC.
    ///
    /// # Errors
    /// [`Error::NotReady`] before [`Registration::ready`]; what ended the registration if it never was.
    pub fn credentials(&self) -> Result<Credentials> {
        let progress = self.board.progress.borrow();
        if !progress.ready {
            return Err(progress.ended.as_ref().map_or(Error::NotReady, |ended| ended.error.clone()));
        }
        Ok(self.board.told.borrow().news().map_or_else(Credentials::default, |news| news.credentials.clone()))
    }

    /// What is known of the service's record; `None` before it was looked at. No RPC.
    #[must_use]
    pub fn news(&self) -> Option<ServiceNews> {
        self.board.told.borrow().news().cloned()
    }

    /// A stream of the news of the service: other credentials, another name, the record deleted or malformed.
    pub fn changes(&self) -> RegistrationChanges {
        RegistrationChanges::new(self.board.told.subscribe())
    }

    /// How it stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> RegistrationStatus {
        *self.board.status.borrow()
    }

    /// Waits for the next change of [`Registration::status`]; `None` after a final one. Whoever is slow misses states in
    /// between, never the last one; `restored` counts them all.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Option<RegistrationStatus> {
        let last = *self.status.borrow();
        let is_final = matches!(last.state, RegistrationState::Stopped | RegistrationState::Failed);
        if is_final && !self.status.has_changed().unwrap_or(false) {
            return None;
        }
        self.status.changed().await.ok()?;
        Some(*self.status.borrow_and_update())
    }

    /// Replaces the host in place: others see a change, never an absence. It keeps its `uuid`, and whether it is draining; what it
    /// does not say is filled in as when it was registered. A public host that says something new of its service writes that into
    /// the record first, and all public hosts take its credentials over. One RPC; two or three with the record.
    ///
    /// # Errors
    /// [`Error::InvalidHost`] and its like as for [`Registry::register`](crate::Registry::register), and nothing is
    /// changed. [`Error::NotYet`] when etcd did not answer within the client's deadline: it is remembered. What ended the
    /// registration, after that. [`Error::Core`] when etcd refused to write the record; the host is updated all the same.
    ///
    /// # Cancel safety
    /// Once polled, the update is done, now or later, even when the future is dropped.
    pub async fn update(&self, host: Host) -> Result<()> {
        self.modify(|_| host).await
    }

    /// As [`Registration::update`], made from what the host is now, with nothing coming in between.
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// As [`Registration::update`].
    pub async fn modify(&self, change: impl FnOnce(Host) -> Host) -> Result<()> {
        let number = self.order(|old| {
            let host = defaults::complete(change(old.clone()), &self.service, defaults::machine)?;
            let host = Host { uuid: self.uuid.clone(), draining: old.draining, ..host };
            defaults::check(&host).map(|()| host)
        })?;
        self.carried_out(number).await
    }

    /// Says that the host shall not be chosen any more. It stays registered, and is seen. One RPC.
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// As [`Registration::update`].
    pub async fn drain(&self) -> Result<()> {
        let number = self.order(|old| Ok(Host { draining: true, ..old.clone() }))?;
        self.carried_out(number).await
    }

    /// Takes [`Registration::drain`] back. One RPC.
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// As [`Registration::update`].
    pub async fn resume(&self) -> Result<()> {
        let number = self.order(|old| Ok(Host { draining: false, ..old.clone() }))?;
        self.carried_out(number).await
    }

    /// Takes the host away at once. It is marked as draining first, so that whoever follows the service can tell an end in
    /// order from an expiry. May be called more than once, and before it was ever ready. The service's record stays.
    /// Two RPCs.
    ///
    /// # Errors
    /// [`Error::NotYet`] when etcd did not answer within [`Session::time_to_close`](sereno_core::Session::time_to_close): the
    /// host is deleted as soon as it does, or goes with its lease.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn stop(&self) -> Result<()> {
        self.board.stop.cancel();
        let progress = self.until(|progress| progress.ended.is_some()).await;
        progress.ended.map_or(Ok(()), |ended| ended.stopped)
    }

    fn order(&self, change: impl FnOnce(&Host) -> Result<Host>) -> Result<u64> {
        match &self.board.progress.borrow().ended {
            Some(ended) => return Err(ended.error.clone()),
            None if self.board.stop.is_cancelled() => return Err(Error::Deregistered),
            None => {}
        }
        self.board.order(change)
    }

    async fn carried_out(&self, number: u64) -> Result<()> {
        let over = |progress: &Progress| progress.done >= number || progress.ended.is_some();
        let within = self.deadline;
        let waited = tokio::time::timeout(within, self.until(over)).await;
        let progress = waited.map_err(|_| Error::NotYet { within })?;
        match (progress.refused, progress.ended) {
            (Some((refused, error)), _) if refused >= number => Err(error.into()),
            (_, Some(ended)) if progress.done < number => Err(ended.error),
            _ => Ok(()),
        }
    }

    async fn until(&self, condition: impl Fn(&Progress) -> bool) -> Progress {
        let mut progress = self.board.progress.subscribe();
        // The board is ours: its senders are there.
        match progress.wait_for(condition).await {
            Ok(progress) => progress.clone(),
            Err(_) => self.board.progress.borrow().clone(),
        }
    }
}

impl Drop for Registration {
    /// Signals; the task does the rest.
    fn drop(&mut self) {
        self.board.stop.cancel();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service)
            .field("uuid", &self.uuid)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
