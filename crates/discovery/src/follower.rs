//! The task that follows one service.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sereno_core::{CancellationToken, Change, Key, KeyValue, Update, Watcher, pace};

use crate::cache::Stored;
use crate::entry::Entry;
use crate::error::Error;
use crate::followed::{Followed, Phase};
use crate::freshness::{Freshness, Part};
use crate::notice::Notice;
use crate::service::Service;

/// As good as for ever.
const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Others run in between after so many entries.
const BATCH: usize = 256;

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

/// What a reading of all hosts differs in from what is known.
struct Difference {
    puts: Vec<KeyValue>,
    gone: Vec<Key>,
    revision: i64,
}

/// A whole reading.
struct Reading {
    record: Option<KeyValue>,
    hosts: Difference,
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
                self.adopt(self.reading(&watchers)).await;
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
        self.adopt(self.reading(&watchers)).await;
        self.fill(&watchers.hosts);
        Ok(watchers)
    }

    async fn follow(&self, watchers: &mut Watchers) -> Result<(), (Part, sereno_core::Error)> {
        loop {
            let due = self.followed.read().guard.due();
            tokio::select! {
                biased;
                () = pace::until(due.unwrap_or_else(pace::now)), if due.is_some() => {
                    self.release();
                    self.fill(&watchers.hosts);
                }
                update = watchers.record.next() => {
                    if self.survives(Part::Record, update)?.is_some() {
                        self.take_record(watchers.record.view().iter().next());
                    }
                }
                update = watchers.hosts.next() => match self.survives(Part::Hosts, update)? {
                    Some(update) if update.resync => {
                        self.resync();
                        let difference = self.difference(&watchers.hosts);
                        self.take_over(difference).await;
                        self.fill(&watchers.hosts);
                    }
                    Some(update) => self.take(update, &watchers.hosts),
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
                state.error = None;
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
        let heard = self.followed.client.heard();
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

    /// What was read, taken out of the watchers, which nothing may wait beside.
    fn reading(&self, watchers: &Watchers) -> Reading {
        let record = watchers.record.view().iter().next().cloned();
        Reading { record, hosts: self.difference(&watchers.hosts), sent: watchers.sent }
    }

    /// Takes over a whole reading.
    async fn adopt(&self, reading: Reading) {
        // Who is held had no chance to come back.
        self.followed.write().guard.extend(pace::now());
        self.take_record(reading.record.as_ref());
        self.take_over(reading.hosts).await;
        let mut state = self.followed.write();
        state.freshness = Freshness::live(reading.sent);
        state.error = None;
        drop(state);
        self.followed.set_phase(Phase::Live);
    }

    /// What has to be done for a reading; what needs nothing but to be forgotten is.
    fn difference(&self, hosts: &Watcher) -> Difference {
        let (view, state) = (hosts.view(), self.followed.read());
        let roster = &state.contents.roster;
        let known = |kv: &&KeyValue| {
            let entry = roster.get(&kv.key).filter(|entry| entry.revision == kv.mod_revision);
            entry.is_some() && !state.is_bad(&kv.key) && !state.guard.is_held(&kv.key)
        };
        let mut puts: Vec<KeyValue> = view.iter().filter(|kv| !known(kv)).cloned().collect();
        puts.sort_by_key(|kv| kv.create_revision);
        let gone = roster.all(None).iter().filter(|entry| view.get(&entry.key).is_none());
        let gone = gone.map(|entry| entry.key.clone()).collect();
        drop(state);
        let info = &self.followed.info;
        self.followed.write().retain(|key| key == info || view.get(key).is_some());
        Difference { puts, gone, revision: view.revision() }
    }

    /// Who is there comes before who is gone, so that a service whose hosts were all replaced is never without any.
    async fn take_over(&self, difference: Difference) {
        let held = self.followed.read().guard.held();
        for puts in difference.puts.chunks(BATCH) {
            puts.iter().for_each(|kv| self.put(None, kv, true));
            tokio::task::yield_now().await;
        }
        let now = pace::now();
        difference.gone.iter().for_each(|key| self.followed.change(|state| state.lose(key, now)));
        self.followed.write().revision = difference.revision;
        self.tell_guard(held);
    }

    /// Takes one transaction.
    fn take(&self, update: Update, hosts: &Watcher) {
        let (held, now) = (self.followed.read().guard.held(), pace::now());
        for change in &update.changes {
            match change {
                Change::Put { old, new } => self.put(old.as_ref(), new, false),
                Change::Deleted { old } => self.followed.change(|state| state.lose(&old.key, now)),
            }
        }
        self.followed.write().revision = update.revision;
        self.tell_guard(held);
        self.fill(hosts);
    }

    /// A host was written. `old` is what was there before, if that is known; `read` says that it was found in a reading, so
    /// that it may have been deleted in between.
    fn put(&self, old: Option<&KeyValue>, kv: &KeyValue, read: bool) {
        let known = self.followed.read().contents.roster.get(&kv.key).cloned();
        let written_again = |entry: &Arc<Entry>| {
            old.is_some_and(|old| entry.revision == old.mod_revision && old.value == kv.value)
        };
        let entry = match known.as_ref().filter(|entry| written_again(entry)) {
            Some(entry) => {
                Ok(Entry { created: kv.create_revision, revision: kv.mod_revision, ..Entry::clone(entry) })
            }
            None => Entry::below(&self.followed.hosts, kv),
        };
        match entry {
            Ok(mut entry) => {
                // Equal hosts are one, so that writing one again is no event.
                if let Some(known) = known.filter(|known| known.host == entry.host) {
                    entry.host = known.host.clone();
                }
                self.followed.change(|state| state.put(entry));
            }
            Err(reason) => {
                if read && known.is_some_and(|known| known.created != kv.create_revision) {
                    // The one that could be read is gone.
                    self.followed.change(|state| state.lose(&kv.key, pace::now()));
                }
                self.followed.change(|state| state.spoil(&kv.key, reason));
            }
        }
    }

    fn take_record(&self, kv: Option<&KeyValue>) {
        let (name, info) = (&self.followed.service, &self.followed.info);
        let record = kv.map(|kv| Service::from_json(name, &kv.value)).transpose();
        self.followed.change(|state| match record {
            Ok(record) => {
                state.heal(info);
                state.set_record(name, record)
            }
            Err(reason) => state.spoil(info, reason),
        });
    }

    /// Takes hosts there was no room for.
    fn fill(&self, hosts: &Watcher) {
        let next = || self.followed.write().next_untaken();
        while let Some(key) = next() {
            if let Some(kv) = hosts.view().get(&key) {
                self.put(None, kv, false);
            }
        }
    }

    /// Removes who has been held for long enough.
    fn release(&self) {
        let now = pace::now();
        if !self.followed.is_current(now) {
            // Nobody could be heard to come back.
            self.followed.write().guard.extend(now);
            return;
        }
        let (held, released) = {
            let mut state = self.followed.write();
            (state.guard.held(), state.guard.release(now))
        };
        tracing::info!(service = self.followed.service, hosts = released.len(), "held hosts are removed");
        released.iter().for_each(|key| self.followed.change(|state| state.remove(key)));
        self.tell_guard(held);
    }

    /// Tells when more hosts are held than before, and when none is any more.
    fn tell_guard(&self, before: usize) {
        let held = self.followed.read().guard.held();
        if held > before {
            tracing::warn!(service = self.followed.service, held, "many hosts went at once and are held");
            self.followed.change(|_| Some(Notice::Guarded { held }));
        } else if held == 0 && before > 0 {
            self.followed.change(|_| Some(Notice::Released));
        }
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
            let age = state.freshness.age(self.followed.client.heard(), pace::now());
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
