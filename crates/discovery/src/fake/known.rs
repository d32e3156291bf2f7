//! One service of a fake world.

use std::sync::{Arc, Weak};

use sereno_core::Key;

use crate::entry::Entry;
use crate::error::Error;
use crate::followed::Picture;
use crate::host::Host;
use crate::mailbox::Mailbox;
use crate::notice::Notice;
use crate::query::Contents;
use crate::record::{self, Record, Why};
use crate::service::Service;

/// So many changes a stream may be behind before it is told that it missed some.
const BACKLOG: usize = 1024;

/// A service, whether anybody has ever registered it or not.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) contents: Contents,
    /// The number of the last notice.
    seq: u64,
    mailboxes: Vec<Weak<Mailbox>>,
}

impl Known {
    pub(super) fn put(&mut self, entry: Entry) {
        let (key, host) = (entry.key.clone(), entry.host.clone());
        self.contents.roster.put(entry);
        self.tell(Notice::Put { key, host });
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let was_there = self.contents.roster.remove(key).is_some();
        if was_there {
            self.tell(Notice::Gone { key: key.clone() });
        }
        was_there
    }

    pub(super) fn clear(&mut self) {
        let keys: Vec<Key> = self.hosts().into_iter().map(|(key, _)| key).collect();
        for key in &keys {
            self.remove(key);
        }
        if let Some(record) = self.contents.record.take() {
            self.tell(Notice::Record(Arc::new(Service::new(&record.name))));
        }
    }

    /// Writes what a host says of its service into the record, as a real registry does. Gives the hosts that take other
    /// credentials over because of it.
    pub(super) fn publish(&mut self, host: &Host) -> Vec<(Key, Host)> {
        let found = |known: &Self| match &known.contents.record {
            None => Record::Absent,
            Some(service) => Record::Present(Service::clone(service)),
        };
        if let Some(service) = record::decide(host, &found(self), Why::Publish) {
            let service = Arc::new(service);
            self.contents.record = Some(service.clone());
            self.tell(Notice::Record(service));
        }
        let found = found(self);
        let differing = |(key, host): (Key, Arc<Host>)| {
            let (user, password) = record::credentials(&host, &found)?;
            Some((key, Host { user, password, ..Host::clone(&host) }))
        };
        self.hosts().into_iter().filter_map(differing).collect()
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.seq += 1;
        let seq = self.seq;
        self.mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        self.mailboxes.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.push(seq, notice.clone()));
    }

    pub(super) fn end(&mut self, error: &Error) {
        let mailboxes = std::mem::take(&mut self.mailboxes);
        mailboxes.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.end(error.clone()));
    }

    pub(super) fn subscribe(&mut self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(BACKLOG));
        self.mailboxes.push(Arc::downgrade(&mailbox));
        mailbox
    }

    pub(super) fn picture(&self) -> Picture {
        Picture { seq: self.seq, hosts: self.hosts(), record: self.contents.record.clone() }
    }

    fn hosts(&self) -> Vec<(Key, Arc<Host>)> {
        self.contents.roster.all(None).iter().map(|entry| (entry.key.clone(), entry.host.clone())).collect()
    }
}
