//! The task that follows one service.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sereno_core::{CancellationToken, Update, Watcher, pace};

use crate::cache::Stored;
use crate::error::Error;
use crate::followed::{Followed, Phase};
use crate::freshness::{Freshness, Part};
use crate::notice::Notice;

/// As good as for ever.
const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

type CoreResult<T> = sereno_core::Result<T>;

pub(crate) struct Follower {
    followed: Arc<Followed>,
    stop: CancellationToken,
}

/// What is watched, and when its reading was sent.
struct Watchers {
    hosts: Watcher,
    record: Watcher,
    sent: Instant,
}

impl Follower {
    pub(crate) fn new(followed: Arc<Followed>, stop: CancellationToken) -> Self {
        Self { followed, stop }
    }

    /// Until nobody wants it any more.
    pub(crate) async fn run(self) {
        let begun = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            begun = self.begin() => begun,
        };
        let watchers = match begun {
            Ok(watchers) => watchers,
            Err(error) => return self.followed.set_phase(Phase::Failed(error)),
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.save_regularly() => {}
            () = self.keep(watchers) => {}
        }
        self.save().await;
    }

    /// Reads the service, from its file when etcd cannot be read.
    async fn begin(&self) -> Result<Option<Watchers>, Error> {
        match self.watch().await {
            Ok(watchers) => {
                self.adopt(&watchers).await;
                Ok(Some(watchers))
            }
            Err(error) if error.is_retryable() && self.load().await => {
                self.cut(Part::Hosts, error);
                self.followed.set_phase(Phase::Stored);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn watch(&self) -> CoreResult<Watchers> {
        let (client, sent) = (&self.followed.client, pace::now());
        let (hosts, record) =
            tokio::try_join!(client.watch(&self.followed.hosts), client.watch(&self.followed.info))?;
        Ok(Watchers { hosts, record, sent })
    }

    /// Follows for as long as this client can.
    async fn keep(&self, mut begun: Option<Watchers>) {
        loop {
            let mut watchers = match begun.take() {
                Some(watchers) => watchers,
                None => match self.watch_again().await {
                    Ok(watchers) => watchers,
                    Err(error) => {
                        tracing::error!(service = self.followed.service, %error, "cannot be followed any more");
                        self.cut(Part::Hosts, error.clone());
                        self.followed.set_phase(Phase::Void(error.into()));
                        return pending().await;
                    }
                },
            };
            if let Err((part, error)) = self.follow(&mut watchers).await {
                self.cut(part, error);
            }
        }
    }

    /// Watches anew, however long that takes, and takes over what is there.
    async fn watch_again(&self) -> CoreResult<Watchers> {
        let round = || async {
            match self.watch().await {
                Ok(watchers) => Some(Ok(watchers)),
                // Nothing of this client will ever be valid again.
                Err(error @ (sereno_core::Error::StoreRolledBack { .. } | sereno_core::Error::Stopped)) => {
                    Some(Err(error))
                }
                Err(error) => {
                    self.cut(Part::Hosts, error);
                    None
                }
            }
        };
        let watched = self.followed.client.patiently(EVER, round).await;
        let watchers = watched.unwrap_or(Err(sereno_core::Error::Stopped))?;
        self.resync();
        self.adopt(&watchers).await;
        self.followed.fill(&watchers.hosts);
        Ok(watchers)
    }

    /// Takes over all that was read.
    fn adopt(&self, watchers: &Watchers) -> impl Future<Output = ()> {
        // Not while waiting: watchers cannot be looked at from two threads.
        let reading = self.followed.reading(&watchers.hosts, &watchers.record, watchers.sent);
        self.followed.adopt(reading)
    }

    /// Takes what the watchers tell, until one of them ends.
    async fn follow(&self, watchers: &mut Watchers) -> Result<(), (Part, sereno_core::Error)> {
        loop {
            let due = self.followed.read().guard.due();
            tokio::select! {
                biased;
                () = pace::until(due.unwrap_or_else(pace::now)), if due.is_some() => {
                    self.followed.release();
                    self.followed.fill(&watchers.hosts);
                }
                update = watchers.record.next() => {
                    if self.survives(Part::Record, update)?.is_some() {
                        self.followed.take_record(watchers.record.view().iter().next());
                    }
                }
                update = watchers.hosts.next() => match self.survives(Part::Hosts, update)? {
                    Some(update) if update.resync => {
                        self.resync();
                        let difference = self.followed.difference(&watchers.hosts);
                        self.followed.take_over(difference).await;
                        self.followed.fill(&watchers.hosts);
                    }
                    Some(update) => self.followed.take(update, &watchers.hosts),
                    None => {}
                },
            }
        }
    }

    /// An update, if there is one; `Err` when no other will come.
    fn survives(
        &self,
        part: Part,
        update: Option<CoreResult<Update>>,
    ) -> Result<Option<Update>, (Part, sereno_core::Error)> {
        match update {
            Some(Ok(update)) => {
                let mut state = self.followed.write();
                state.freshness.mend(part);
                if !state.freshness.is_cut() {
                    state.error = None;
                }
                Ok(Some(update))
            }
            Some(Err(error)) if error.is_retryable() => {
                self.cut(part, error);
                Ok(None)
            }
            Some(Err(error)) => Err((part, error)),
            None => Err((part, sereno_core::Error::Stopped)),
        }
    }

    fn cut(&self, part: Part, error: sereno_core::Error) {
        tracing::debug!(service = self.followed.service, %error, "not followed at the moment");
        let heard = self.followed.client.last_watch_activity();
        let mut state = self.followed.write();
        state.freshness.cut(part, heard);
        state.error = Some(error.into());
    }

    /// What comes next is a difference.
    fn resync(&self) {
        tracing::debug!(service = self.followed.service, "a followed service was read again");
        self.followed.change(|state| {
            state.resyncs += 1;
            Some(Notice::Resync)
        });
    }

    /// Takes over what the file has; whether there was anything to take.
    async fn load(&self) -> bool {
        let Some(cache) = &self.followed.cache else { return false };
        let stored = match cache.load(self.followed.options.serve_stale_for).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return false,
            Err(reason) => {
                let service = &self.followed.service;
                tracing::warn!(service, reason, "the stored view of a service cannot be used");
                return false;
            }
        };
        let Stored { age, revision, record, entries } = stored;
        tracing::warn!(service = self.followed.service, ?age, "a stored view is served");
        entries.into_iter().for_each(|entry| self.followed.change(|state| state.put(entry)));
        self.followed.change(|state| state.set_record(&self.followed.service, record));
        let mut state = self.followed.write();
        state.revision = revision;
        state.freshness = Freshness::stored(age, pace::now());
        true
    }

    async fn save_regularly(&self) {
        let Followed { options, .. } = &*self.followed;
        // Also when nothing changes: the file says of when it is.
        let renew = (options.serve_stale_for / 10).max(options.cache_every);
        let (mut saved, mut when) = (None, pace::now());
        loop {
            let seq = self.followed.read().seq;
            if saved != Some(seq) || when + renew <= pace::now() {
                (saved, when) = (self.save().await.then_some(seq), pace::now());
            }
            pace::until(pace::now() + options.cache_every).await;
        }
    }

    /// Writes the file; whether there was anything to write.
    async fn save(&self) -> bool {
        let Some(cache) = &self.followed.cache else { return false };
        let (seq, stored) = {
            let state = self.followed.read();
            if !state.freshness.was_live() {
                return false;
            }
            let entries = state.contents.roster.all(None).to_vec();
            let record = state.contents.record.as_deref().cloned();
            let age = state.freshness.age(self.followed.client.last_watch_activity(), pace::now());
            (state.seq, (age, state.revision, record, entries))
        };
        let saved = cache.save(seq, stored).await;
        if let Err(reason) = &saved {
            tracing::warn!(service = self.followed.service, reason, "a view could not be stored");
        }
        self.followed.write().cache_error = saved.err();
        true
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if !self.followed.has_failed() {
            self.cut(Part::Hosts, sereno_core::Error::Stopped);
            self.followed.set_phase(Phase::Failed(sereno_core::Error::Stopped.into()));
        }
    }
}
