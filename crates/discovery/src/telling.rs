//! What a stream of changes has told, and what it tells next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sereno_core::Key;

use crate::changes::Change;
use crate::error::Result;
use crate::followed::Picture;
use crate::host::Host;
use crate::mailbox::{Mail, Mailbox};
use crate::notice::Notice;
use crate::query::Query;
use crate::service::Service;

/// Turns notices into the changes of one stream.
#[derive(Debug)]
pub(crate) struct Telling {
    query: Query,
    /// The number of the last notice that is in what was told.
    seen: u64,
    /// The hosts as they have been told.
    told: BTreeMap<Key, Arc<Host>>,
    record: Option<Arc<Service>>,
    ready: VecDeque<Change>,
}

impl Telling {
    /// Begins with a picture that was taken after the stream had a mailbox, so that nothing falls in between.
    pub(crate) fn new(query: &Query, picture: Picture) -> Self {
        let Picture { seq, mut hosts, record } = picture;
        hosts.retain(|(_, host)| concerns(query, host));
        let snapshot = Change::Snapshot(hosts.iter().map(|(_, host)| host.clone()).collect());
        let told = hosts.into_iter().collect();
        Self { query: query.clone(), seen: seq, told, record, ready: VecDeque::from([snapshot]) }
    }

    /// How many hosts are there, as far as has been told.
    pub(crate) fn hosts(&self) -> usize {
        self.told.len()
    }

    /// The next change.
    pub(crate) fn poll(
        &mut self,
        mailbox: &Mailbox,
        picture: impl Fn() -> Picture,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change>>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(mailbox.poll(cx)) {
                Mail::Notice(seq, _) if seq <= self.seen => {}
                Mail::Notice(_, notice) => self.take(notice),
                Mail::Overflow => self.resync(picture()),
                Mail::End(error) => return Poll::Ready(error.map(Err)),
            }
        }
    }

    fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Put { key, host } => self.put(key, host),
            Notice::Gone { key } => self.remove(&key),
            Notice::Record(record) => self.take_record(Some(record)),
            Notice::Malformed { key, reason } => self.ready.push_back(Change::Malformed { key, reason }),
            Notice::Resync => self.ready.push_back(Change::Resync),
            Notice::Guarded { held } => self.ready.push_back(Change::Guarded { held }),
            Notice::Released => self.ready.push_back(Change::Released),
        }
    }

    fn put(&mut self, key: Key, host: Arc<Host>) {
        if !concerns(&self.query, &host) {
            return self.remove(&key);
        }
        match self.told.insert(key, host.clone()) {
            None => self.ready.push_back(Change::Added(host)),
            Some(old) if old == host => {}
            Some(old) => self.ready.push_back(Change::Updated { old, new: host }),
        }
    }

    fn remove(&mut self, key: &Key) {
        self.ready.extend(self.told.remove(key).map(Change::Removed));
    }

    fn take_record(&mut self, record: Option<Arc<Service>>) {
        if self.record != record {
            let told = record.clone().unwrap_or_else(|| Arc::new(Service::new(&self.query.service)));
            self.record = record;
            self.ready.push_back(Change::ServiceChanged(told));
        }
    }

    /// Tells the difference between what was told and what is.
    fn resync(&mut self, picture: Picture) {
        let Picture { seq, hosts, record } = picture;
        self.seen = seq;
        self.ready.push_back(Change::Resync);
        let there: BTreeMap<Key, ()> = hosts.iter().map(|(key, _)| (key.clone(), ())).collect();
        hosts.into_iter().for_each(|(key, host)| self.put(key, host));
        let gone: Vec<Key> = self.told.keys().filter(|key| !there.contains_key(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        self.take_record(record);
    }
}

fn concerns(query: &Query, host: &Host) -> bool {
    query.shard().is_none_or(|shard| host.shard == shard)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::keys::Keys;

    #[test]
    fn what_is_in_the_picture_already_is_not_told_again() {
        let key = Keys::new("/").unwrap().host("api", "a").unwrap();
        let host = |name: &str| Arc::new(Host::new(name));
        let query = Query { service: "api".into(), shard: None };
        let picture = Picture { seq: 2, hosts: vec![(key.clone(), host("second"))], record: None };
        let (mut telling, mailbox) = (Telling::new(&query, picture), Mailbox::new(8));
        // What came before the picture was taken, and waited in the mailbox.
        for (seq, name) in [(1, "first"), (2, "second"), (3, "third")] {
            mailbox.push(seq, Notice::Put { key: key.clone(), host: host(name) });
        }
        let mut next = || {
            let none = || Picture { seq: 0, hosts: Vec::new(), record: None };
            telling.poll(&mailbox, none, &mut Context::from_waker(Waker::noop()))
        };
        let Poll::Ready(Some(Ok(Change::Snapshot(hosts)))) = next() else { panic!("the picture") };
        assert_eq!(hosts, [host("second")]);
        let Poll::Ready(Some(Ok(Change::Updated { old, new }))) = next() else { panic!("the third") };
        assert_eq!((old, new), (host("second"), host("third")));
        assert!(next().is_pending());
    }
}
