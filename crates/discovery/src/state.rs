//! What is known of a followed service. Nothing here waits, parses or reads a clock: its lock is held for moments.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sereno_core::Key;

use crate::directory_options::DirectoryOptions;
use crate::entry::Entry;
use crate::error::Error;
use crate::freshness::Freshness;
use crate::guard::Guard;
use crate::notice::Notice;
use crate::query::Contents;
use crate::service::Service;

/// Of so many bad entries the reasons are shown.
const SHOWN: usize = 8;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) contents: Contents,
    pub(crate) guard: Guard,
    pub(crate) freshness: Freshness,
    /// The number of the last notice.
    pub(crate) seq: u64,
    pub(crate) revision: i64,
    pub(crate) resyncs: u64,
    /// What stands in the way of following, if anything does.
    pub(crate) error: Option<Error>,
    /// What went wrong with the file last, if it did.
    pub(crate) cache_error: Option<String>,
    /// The record of the service, where it cannot be read at the moment.
    malformed_record: Option<(Key, Arc<str>)>,
    /// The last few entries that cannot be read, newest first.
    recent: VecDeque<Key>,
    /// Hosts there is no room for.
    untaken: BTreeSet<Key>,
    max_hosts: usize,
}

impl State {
    /// Nothing is known yet.
    pub(crate) fn new(options: &DirectoryOptions, now: Instant) -> Self {
        Self {
            contents: Contents::default(),
            guard: Guard::new(options.guard.clone()),
            freshness: Freshness::stored(options.serve_stale_for, now),
            seq: 0,
            revision: 0,
            resyncs: 0,
            error: None,
            cache_error: None,
            malformed_record: None,
            recent: VecDeque::new(),
            untaken: BTreeSet::new(),
            max_hosts: options.max_hosts,
        }
    }

    /// A host is there as `entry` says.
    pub(crate) fn put(&mut self, entry: Entry) -> Option<Notice> {
        self.heal(&entry.key);
        self.guard.back(&entry.key);
        let (key, host) = (entry.key.clone(), entry.host.clone());
        match self.contents.roster.get(&key) {
            Some(old) if Arc::ptr_eq(&old.host, &host) => {
                self.contents.roster.put(entry);
                return None;
            }
            None if self.contents.roster.len() >= self.max_hosts => {
                let reason = format!("there are more than {} hosts", self.max_hosts);
                return self.untaken.insert(key.clone()).then(|| Notice::malformed(&key, reason));
            }
            _ => {}
        }
        self.untaken.remove(&key);
        self.contents.roster.put(entry);
        Some(Notice::Put { key, host })
    }

    /// The key of a host is gone: the host is removed, unless the guard holds it.
    pub(crate) fn lose(&mut self, key: &Key, now: Instant) -> Option<Notice> {
        self.heal(key);
        self.untaken.remove(key);
        let present = self.contents.roster.len();
        let draining = self.contents.roster.get(key)?.host.draining;
        if self.guard.is_held(key) || !draining && self.guard.lose(key, present, now) {
            return None;
        }
        self.remove(key)
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Notice> {
        self.contents.roster.remove(key)?;
        Some(Notice::Gone { key: key.clone() })
    }

    /// What is said of the service.
    pub(crate) fn set_record(&mut self, name: &str, record: Option<Service>) -> Option<Notice> {
        if self.contents.record.as_deref() == record.as_ref() {
            return None;
        }
        self.contents.record = record.map(Arc::new);
        let told = self.contents.record.clone();
        Some(Notice::Record(told.unwrap_or_else(|| Arc::new(Service::new(name)))))
    }

    /// The value under the key of a host cannot be read; the host that was read there before stays.
    pub(crate) fn spoil(&mut self, key: &Key, reason: String) -> Option<Notice> {
        if self.reason(key).is_some_and(|known| *known == *reason) {
            return None;
        }
        self.contents.malformed.insert(key.clone(), reason.as_str().into());
        self.spoiled(key, reason)
    }

    /// The record of the service cannot be read; what was read there before stays.
    pub(crate) fn spoil_record(&mut self, key: &Key, reason: String) -> Option<Notice> {
        if self.reason(key).is_some_and(|known| *known == *reason) {
            return None;
        }
        self.malformed_record = Some((key.clone(), reason.as_str().into()));
        self.spoiled(key, reason)
    }

    fn spoiled(&mut self, key: &Key, reason: String) -> Option<Notice> {
        self.recent.retain(|other| other != key);
        self.recent.push_front(key.clone());
        self.recent.truncate(SHOWN);
        Some(Notice::malformed(key, reason))
    }

    /// It can be read, or is gone.
    pub(crate) fn heal(&mut self, key: &Key) {
        let record = self.malformed_record.take_if(|(record, _)| record == key);
        if self.contents.malformed.remove(key).is_some() || record.is_some() {
            self.recent.retain(|other| other != key);
        }
    }

    pub(crate) fn is_bad(&self, key: &Key) -> bool {
        self.contents.malformed.contains_key(key)
    }

    pub(crate) fn bad(&self) -> usize {
        self.contents.malformed.len() + usize::from(self.malformed_record.is_some())
    }

    /// The last few bad entries, newest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.recent.iter().filter_map(|key| Some((key, self.reason(key)?)))
    }

    fn reason(&self, key: &Key) -> Option<&str> {
        let record = self.malformed_record.as_ref().filter(|(record, _)| record == key);
        let reason = self.contents.malformed.get(key).or(record.map(|(_, reason)| reason));
        reason.map(|reason| &**reason)
    }

    pub(crate) fn untaken(&self) -> usize {
        self.untaken.len()
    }

    /// A host that may be taken now.
    pub(crate) fn next_untaken(&mut self) -> Option<Key> {
        (self.contents.roster.len() < self.max_hosts).then(|| self.untaken.pop_first()).flatten()
    }

    /// Forgets what is not there any more, save hosts.
    pub(crate) fn retain(&mut self, there: impl Fn(&Key) -> bool) {
        self.untaken.retain(&there);
        let record = self.malformed_record.iter().map(|(key, _)| key);
        let malformed = self.contents.malformed.keys().chain(record);
        let gone: Vec<Key> = malformed.filter(|key| !there(key)).cloned().collect();
        gone.iter().for_each(|key| self.heal(key));
    }
}
