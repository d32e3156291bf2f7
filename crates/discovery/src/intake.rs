//! Taking what is read and told into what is known: for the task of a followed service alone.

use std::sync::Arc;
use std::time::Instant;

use sereno_core::{Change, Key, KeyValue, Update, Watcher, pace};

use crate::entry::Entry;
use crate::followed::{Followed, Phase};
use crate::freshness::Freshness;
use crate::notice::Notice;
use crate::service::Service;

/// Others run in between after so many entries.
const BATCH: usize = 256;

/// What a reading of all hosts differs in from what is known.
pub(crate) struct Difference {
    puts: Vec<KeyValue>,
    gone: Vec<Key>,
    revision: i64,
}

/// A whole reading.
pub(crate) struct Reading {
    record: Option<KeyValue>,
    hosts: Difference,
    sent: Instant,
}

impl Followed {
    /// What was read, taken out of the watchers, which nothing may wait beside.
    pub(crate) fn reading(&self, hosts: &Watcher, record: &Watcher, sent: Instant) -> Reading {
        let record = record.view().iter().next().cloned();
        Reading { record, hosts: self.difference(hosts), sent }
    }

    /// Takes over a whole reading.
    pub(crate) async fn adopt(&self, reading: Reading) {
        // Who is held had no chance to come back.
        self.write().guard.extend(pace::now());
        self.take_record(reading.record.as_ref());
        self.take_over(reading.hosts).await;
        let mut state = self.write();
        state.freshness = Freshness::live(reading.sent);
        state.error = None;
        drop(state);
        self.set_phase(Phase::Live);
    }

    /// What has to be done for a reading; what needs nothing but to be forgotten is.
    pub(crate) fn difference(&self, hosts: &Watcher) -> Difference {
        let (view, state) = (hosts.view(), self.read());
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
        let info = &self.info;
        self.write().retain(|key| key == info || view.get(key).is_some());
        Difference { puts, gone, revision: view.revision() }
    }

    /// Who is there comes before who is gone, so that a service whose hosts were all replaced is never without any.
    pub(crate) async fn take_over(&self, difference: Difference) {
        let held = self.read().guard.held();
        for puts in difference.puts.chunks(BATCH) {
            puts.iter().for_each(|kv| self.put(None, kv, true));
            tokio::task::yield_now().await;
        }
        let now = pace::now();
        difference.gone.iter().for_each(|key| self.change(|state| state.lose(key, now)));
        self.write().revision = difference.revision;
        self.tell_guard(held);
    }

    /// Takes one transaction.
    pub(crate) fn take(&self, update: Update, hosts: &Watcher) {
        let (held, now) = (self.read().guard.held(), pace::now());
        for change in &update.changes {
            match change {
                Change::Put { old, new } => self.put(old.as_ref(), new, false),
                Change::Deleted { old } => self.change(|state| state.lose(&old.key, now)),
            }
        }
        self.write().revision = update.revision;
        self.tell_guard(held);
        self.fill(hosts);
    }

    /// A host was written. `old` is what was there before, if that is known; `read` says that it was found in a reading, so
    /// that it may have been deleted in between.
    fn put(&self, old: Option<&KeyValue>, kv: &KeyValue, read: bool) {
        let known = self.read().contents.roster.get(&kv.key).cloned();
        let written_again = |entry: &Arc<Entry>| {
            old.is_some_and(|old| entry.revision == old.mod_revision && old.value == kv.value)
        };
        let entry = match known.as_ref().filter(|entry| written_again(entry)) {
            Some(entry) => {
                Ok(Entry { created: kv.create_revision, revision: kv.mod_revision, ..Entry::clone(entry) })
            }
            None => Entry::below(&self.hosts, kv),
        };
        match entry {
            Ok(mut entry) => {
                // Equal hosts are one, so that writing one again is no event.
                if let Some(known) = known.filter(|known| known.host == entry.host) {
                    entry.host = known.host.clone();
                }
                self.change(|state| state.put(entry));
            }
            Err(reason) => {
                if read && known.is_some_and(|known| known.created != kv.create_revision) {
                    // The one that could be read is gone.
                    self.change(|state| state.lose(&kv.key, pace::now()));
                }
                self.change(|state| state.spoil(&kv.key, reason));
            }
        }
    }

    pub(crate) fn take_record(&self, kv: Option<&KeyValue>) {
        let (name, info) = (&self.service, &self.info);
        let record = kv.map(|kv| Service::from_json(name, &kv.value)).transpose();
        self.change(|state| match record {
            Ok(record) => {
                state.heal(info);
                state.set_record(name, record)
            }
            Err(reason) => state.spoil_record(info, reason),
        });
    }

    /// Takes hosts there was no room for.
    pub(crate) fn fill(&self, hosts: &Watcher) {
        let next = || self.write().next_untaken();
        while let Some(key) = next() {
            if let Some(kv) = hosts.view().get(&key) {
                self.put(None, kv, false);
            }
        }
    }

    /// Removes who has been held for long enough.
    pub(crate) fn release(&self) {
        let now = pace::now();
        if !self.is_current(now) {
            // Nobody could be heard to come back.
            self.write().guard.extend(now);
            return;
        }
        let (held, released) = {
            let mut state = self.write();
            (state.guard.held(), state.guard.release(now))
        };
        tracing::info!(service = self.service, hosts = released.len(), "held hosts are removed");
        released.iter().for_each(|key| self.change(|state| state.remove(key)));
        self.tell_guard(held);
    }

    /// Tells when more hosts are held than before, and when none is any more.
    fn tell_guard(&self, before: usize) {
        let held = self.read().guard.held();
        if held > before {
            tracing::warn!(service = self.service, held, "many hosts went at once and are held");
            self.change(|_| Some(Notice::Guarded { held }));
        } else if held == 0 && before > 0 {
            self.change(|_| Some(Notice::Released));
        }
    }
}
