//! What a registration has written and seen, and what is still to be done about it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sereno_core::{Client, Key, Presence, View, pace};

use crate::board::{Board, Orders};
use crate::fields::MAX_JSON;
use crate::host::Host;
use crate::news::{Credentials, RecordState, ServiceNews};
use crate::record::{self, Record, Seen, Why};
use crate::status::RegistrationState;
use crate::worker::Task;

/// No deadline but the end of the registration.
pub(crate) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// So long a write may take before it is looked up whether something else is to be written by now.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether waiting can mend it.
pub(crate) fn passes(error: &sereno_core::Error) -> bool {
    use sereno_core::Error::{LeaseGone, NameTaken};
    error.is_retryable()
        || error.is_outcome_unknown()
        || error.is_session_lost()
        || matches!(error, LeaseGone | NameTaken)
}

/// Rounds of what is tried until it is done: what passes by itself is waited for, and remembered.
#[derive(Debug, Default)]
pub(crate) struct Rounds(Mutex<Option<sereno_core::Error>>);

impl Rounds {
    /// `None` when another round is due.
    pub(crate) fn take<T>(&self, round: sereno_core::Result<T>) -> Option<sereno_core::Result<T>> {
        match round {
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "registering");
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
            round => Some(round),
        }
    }

    /// What stood in the way last.
    pub(crate) fn last(&self) -> Option<sereno_core::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) struct Desk {
    client: Client,
    board: Arc<Board>,
    info: Key,
    /// The record as it was read or written last.
    seen: Seen,
    news: ServiceNews,
    /// The last order of which the part about the service has been written, or refused.
    published: u64,
    /// The revision of the record that etcd did not let us mend.
    given_up: i64,
    /// The host as it was written last.
    written: Vec<u8>,
}

impl Desk {
    /// `seen` is the record after it was written for the first time.
    pub(crate) fn new(task: &Task, client: &Client, seen: Seen) -> Self {
        let service = crate::service::Service::new(task.board.orders.borrow().host.service_name.clone());
        let news = ServiceNews {
            service,
            credentials: Credentials::default(),
            state: RecordState::Present,
            revision: 0,
            deleted: 0,
            malformed: 0,
        };
        let mut desk = Self {
            client: client.clone(),
            board: task.board.clone(),
            info: task.info.clone(),
            seen: Seen { revision: 0, record: Record::Absent },
            news,
            // What was ordered since the record was written is published again, which costs nothing if it is the same.
            published: 1,
            given_up: 0,
            written: Vec::new(),
        };
        desk.see(seen);
        desk
    }

    /// The host has been written.
    pub(crate) fn kept(&mut self, written: Vec<u8>) {
        self.written = written;
        self.board.progress.send_if_modified(|progress| {
            // The record was written before the first time.
            progress.done = progress.done.max(1);
            !std::mem::replace(&mut progress.ready, true)
        });
    }

    /// Takes notice of the record as it is followed.
    pub(crate) fn look(&mut self, view: &View) {
        let record = Record::read(&self.news.service.name, view.get(&self.info));
        self.see(Seen { revision: view.revision(), record });
    }

    fn see(&mut self, seen: Seen) {
        if seen.revision < self.seen.revision || seen.record == self.seen.record && self.news.revision > 0 {
            self.seen.revision = self.seen.revision.max(seen.revision);
            return;
        }
        self.news.revision = seen.revision;
        match &seen.record {
            Record::Present(service) => {
                self.news.state = RecordState::Present;
                self.news.service = service.clone();
            }
            Record::Absent => {
                tracing::warn!(key = %self.info, "the record of a service was deleted");
                self.news.state = RecordState::Deleted;
                self.news.deleted += 1;
            }
            Record::Malformed(reason) => {
                tracing::warn!(key = %self.info, reason, "the record of a service is malformed");
                self.news.state = RecordState::Malformed;
                self.news.malformed += 1;
            }
        }
        self.seen = seen;
        let host = self.board.orders.borrow().host.clone();
        self.share(&host);
        self.board.tell(self.news.clone());
    }

    /// Does all that is to be done: first the record, then the host. Whatever is interrupted is done the next time.
    pub(crate) async fn reconcile(&mut self, presence: &Presence) -> sereno_core::Result<()> {
        loop {
            let orders = self.board.orders.borrow().clone();
            if orders.publish > self.published {
                self.publish(presence).await?;
                continue;
            }
            if self.seen.revision > self.given_up
                && record::decide(&orders.host, &self.seen.record, Why::Follow).is_some()
            {
                self.mend(presence).await?;
                continue;
            }
            let Some(host) = self.board.take_over(orders.number, self.credentials(&orders.host)) else {
                continue;
            };
            let json = host.to_json();
            if json != self.written {
                self.update(presence).await;
                // Something may have been ordered since it was looked up.
                continue;
            }
            self.share(&host);
            self.board.progress.send_if_modified(|progress| {
                std::mem::replace(&mut progress.done, orders.number) != orders.number
            });
            return Ok(());
        }
    }

    /// The credentials to take over, unless the host would become larger than anybody reads.
    fn credentials(&self, host: &Host) -> Option<Credentials> {
        let (user, password) = record::credentials(host, &self.seen.record)?;
        let changed = Host { user: user.clone(), password: password.clone(), ..host.clone() };
        (changed.to_json().len() <= MAX_JSON).then_some(Credentials { user, password })
    }

    /// Tells which credentials the host has now: those of a public record if it is public, what it had if that was lost.
    fn share(&mut self, host: &Host) {
        let credentials = match &self.seen.record {
            _ if !host.public => Credentials::default(),
            Record::Present(service) if service.public => {
                Credentials { user: service.user.clone(), password: service.password.clone() }
            }
            _ => return,
        };
        if self.news.credentials != credentials {
            self.news.credentials = credentials;
            self.board.tell(self.news.clone());
        }
    }

    /// Writes into the record what was ordered.
    async fn publish(&mut self, presence: &Presence) -> sereno_core::Result<()> {
        let (orders, written) = self.write(Why::Publish, presence).await;
        self.published = orders.publish;
        if let Err(error) = self.written(written)? {
            let refused = Some((orders.publish, error));
            self.board.progress.send_modify(|progress| progress.refused = refused);
        }
        Ok(())
    }

    /// Answers what others did to the record.
    async fn mend(&mut self, presence: &Presence) -> sereno_core::Result<()> {
        let (_, written) = self.write(Why::Follow, presence).await;
        if self.written(written)?.is_err() {
            self.given_up = self.seen.revision;
        }
        Ok(())
    }

    /// Writes the record, however long etcd is away. What it refuses is told, unless it is void.
    async fn write(&self, why: Why, presence: &Presence) -> (Orders, sereno_core::Result<Seen>) {
        let round = async || {
            let orders = self.board.orders.borrow().clone();
            match record::write(&self.client, &self.info, &orders.host, why).await {
                Err(error) if passes(&error) => None,
                written => Some((orders, written)),
            }
        };
        tokio::select! {
            biased;
            written = self.client.patiently(FOREVER, round) => written.unwrap_or_else(|| {
                (self.board.orders.borrow().clone(), Err(sereno_core::Error::Stopped))
            }),
            never = self.hand_over(presence) => match never {},
        }
    }

    /// Takes notice of what was written. The outer error is one for good, the inner one etcd's refusal.
    fn written(
        &mut self,
        written: sereno_core::Result<Seen>,
    ) -> sereno_core::Result<sereno_core::Result<()>> {
        match written {
            Ok(seen) => {
                self.see(seen);
                Ok(Ok(()))
            }
            Err(error @ sereno_core::Error::StoreRolledBack { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%error, key = %self.info, "the record of a service cannot be written");
                Ok(Err(error))
            }
        }
    }

    /// Writes the host as it shall be, however long that takes; what is newer meanwhile instead.
    async fn update(&mut self, presence: &Presence) {
        let rounds = self.client.patiently(FOREVER, || async {
            let json = self.board.orders.borrow().host.to_json();
            let mut orders = self.board.orders.subscribe();
            let ordered = async {
                pace::until(pace::now() + PATIENCE).await;
                let _ = orders.changed().await;
            };
            tokio::select! {
                biased;
                updated = presence.update(json.clone()) => updated.ok().map(|_| json),
                () = ordered => None,
            }
        });
        if let Some(written) = rounds.await {
            self.written = written;
        }
    }

    /// While the host is missing, gives it as it shall be to the presence: whichever of the two can be written first when
    /// etcd is back, what is restored is not what the host was before.
    async fn hand_over(&self, presence: &Presence) -> std::convert::Infallible {
        let (mut status, mut orders) = (self.board.status.subscribe(), self.board.orders.subscribe());
        loop {
            let missing = status.wait_for(|status| status.state != RegistrationState::Kept);
            drop(missing.await);
            let json = orders.borrow_and_update().host.to_json();
            tokio::select! {
                biased;
                _ = orders.changed() => {}
                _ = presence.update(json) => {
                    let _ = orders.changed().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn desk(host: Host) -> Desk {
        let host = Host { service_name: "svc".into(), uuid: "u".into(), ..host };
        let keys = Keys::new("/").unwrap();
        let task = Task {
            key: keys.host("svc", "u").unwrap(),
            info: keys.info("svc").unwrap(),
            within: Duration::ZERO,
            deadline: pace::now(),
            board: Arc::new(Board::new(host.clone())),
        };
        let client = Client::lazy(["127.0.0.1:1"], sereno_core::ConnectOptions::default()).unwrap();
        Desk::new(&task, &client, seen(5, Record::Present(crate::service::Service::of(&host))))
    }

    fn seen(revision: i64, record: Record) -> Seen {
        Seen { revision, record }
    }

    fn of(password: &str) -> Record {
        let host = Host::new("other").public(true).user("u").password(password);
        Record::Present(crate::service::Service::of(&Host { service_name: "svc".into(), ..host }))
    }

    #[test]
    fn news_from_before_what_is_known_are_none() {
        let mut desk = desk(Host::new("h").public(true).user("u").password("first"));
        desk.see(seen(10, of("new")));
        desk.see(seen(9, of("old")));
        desk.see(seen(8, Record::Absent));
        assert_eq!((desk.news.revision, desk.news.deleted), (10, 0));
        assert_eq!(desk.news.credentials.password.expose(), "new");
        assert_eq!(desk.board.told.borrow().news(), Some(&desk.news));
    }

    #[test]
    fn what_is_lost_is_counted_and_takes_nothing_away() {
        let mut desk = desk(Host::new("h").public(true).user("u").password("first"));
        let bad = || Record::Malformed("bad".into());
        for record in [Record::Absent, bad(), of("a"), bad(), Record::Absent, Record::Absent] {
            desk.see(seen(desk.news.revision + 1, record));
        }
        assert_eq!((desk.news.deleted, desk.news.malformed), (2, 2));
        assert_eq!(desk.news.state, RecordState::Deleted);
        assert_eq!(desk.news.credentials.password.expose(), "a");
        assert_eq!(desk.news.service.hostname, "other");
    }

    #[test]
    fn credentials_that_would_make_the_host_too_large_are_not_taken_over() {
        let desk = |password: &str| {
            let mut desk = desk(Host::new("h").public(true).shard("x".repeat(MAX_JSON - 1000)));
            desk.see(seen(9, of(password)));
            desk.credentials(&desk.board.orders.borrow().host)
        };
        assert_eq!(desk("short").unwrap().password.expose(), "short");
        assert_eq!(desk(&"y".repeat(2000)), None);
    }
}
