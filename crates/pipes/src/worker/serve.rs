//! Serving a destination that is ours: a pipe for each group that has members, and its address in etcd.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sereno_core::{Client, Key, View, Watcher, pace};
use tokio::task::JoinSet;

use super::{Holding, Worker};
use crate::board::Pipes;
use crate::error::{Error, Result};
use crate::groups::{GroupInfo, Known};
use crate::keys::Entry;
use crate::loss::Loss;
use crate::mode::Mode;
use crate::owner::is_passing;
use crate::patience::{End, Patience};
use crate::pipe::Pipe;
use crate::record::{Record, member_mode};
use crate::registration::RegistrationState;

/// After how long a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Serving {
    worker: Worker,
    watcher: Watcher,
    open: BTreeMap<String, Open>,
    /// Pipes that end.
    ending: JoinSet<()>,
}

/// The pipe of one group.
struct Open {
    pipe: Arc<Pipe>,
    key: Key,
    record: Record,
    members: usize,
    /// When it ends, unless a member comes first.
    until: Option<Instant>,
    /// The address's last writing: the number of the epoch, and the revision.
    written: Option<(u64, i64)>,
}

/// A group as its members' keys say.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    mode: Mode,
    members: usize,
    /// When its first member came.
    since: i64,
    standing: bool,
}

/// What the groups are and what is to be looked at again.
enum Turn {
    /// Everything is as it should be; to be looked at again at that time.
    Settled(Option<Instant>),
    /// Not the owner any more.
    Lost,
}

impl Serving {
    pub(super) fn new(worker: Worker, watcher: Watcher) -> Self {
        Self { worker, watcher, open: BTreeMap::new(), ending: JoinSet::new() }
    }

    pub(super) async fn run(&mut self, mut holding: Holding, patience: &Patience) -> End {
        loop {
            let epoch = holding.epoch.clone();
            // What is written while it is held stands under the owner's key: without that, it is not applied.
            let held = async {
                tokio::select! {
                    biased;
                    _ = epoch.lost() => Ok(Loss::Lease),
                    lost = self.hold(&holding) => lost,
                }
            };
            let loss = match patience.wait(held).await {
                Ok(Ok(loss)) => loss,
                Ok(Err(error)) => return End::Failed(error),
                Err(end) => return end,
            };
            tracing::info!(destination = self.worker.board.destination, ?loss, "a registration is missing");
            if !self.worker.options.reregister {
                return End::Failed(match loss {
                    Loss::Lease => epoch.lost_error().into(),
                    Loss::Deleted => Error::Deleted { destination: self.worker.board.destination.clone() },
                });
            }
            self.worker.board.report(|status| {
                status.state = RegistrationState::Missing;
                status.restored += 1;
            });
            match self.worker.restore(&holding, loss, patience).await {
                Ok(restored) => holding = restored,
                Err(end) => return end,
            }
            self.worker.registered(&holding);
        }
    }

    /// Serves until the destination is not ours any more.
    async fn hold(&mut self, holding: &Holding) -> Result<Loss> {
        loop {
            let again = match self.settle(holding).await? {
                Turn::Lost => return Ok(Loss::of(&self.worker.client, &holding.epoch).await),
                Turn::Settled(again) => again,
            };
            let due = async {
                match again {
                    Some(moment) => pace::until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                update = self.watcher.next() => match update {
                    Some(Ok(_)) => {}
                    Some(Err(error)) if is_passing(&error) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(sereno_core::Error::Stopped.into()),
                },
                Some(_) = self.ending.join_next() => {}
                () = due => {}
            }
        }
    }

    /// Makes what is open, and what is written, as the view says that it should be.
    async fn settle(&mut self, holding: &Holding) -> Result<Turn> {
        let view = self.watcher.view();
        if view.revision() >= holding.known {
            let ours = view.get(&self.worker.keys.owner).is_some_and(|owner| {
                owner.create_revision == holding.token && self.worker.owner.is_ours(&owner.value)
            });
            if !ours {
                return Ok(Turn::Lost);
            }
        }
        let wanted = self.wanted(view);
        let mut again = self.end_unwanted(&wanted);
        for (group, wanted) in wanted {
            again = self.begin(group, wanted).await.into_iter().chain(again).min();
        }
        self.route();
        // Before the addresses are written: whoever has joined finds its own group, as it is now, among these.
        self.worker.board.note_routed(self.known(|_| true));
        self.write_addresses(holding).await?;
        // Told when everybody else can know it, too.
        self.worker.board.tell(self.known(|open| open.written.is_some()));
        Ok(Turn::Settled(again))
    }

    /// The groups there should be.
    fn wanted(&self, view: &View) -> BTreeMap<String, Wanted> {
        let mut groups: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut malformed = 0;
        for kv in view.iter() {
            let mode = match self.worker.keys.parse(&kv.key) {
                Some((group, Entry::Member)) => member_mode(kv).map(|mode| (group, mode)),
                Some((_, Entry::Address)) => continue,
                None if kv.key == self.worker.keys.owner => continue,
                None => None,
            };
            let Some((group, mode)) = mode else {
                malformed += 1;
                continue;
            };
            let since = kv.create_revision;
            let known = groups.entry(group).or_insert(Wanted { mode, members: 0, since, standing: false });
            known.members += 1;
            if since < known.since {
                (known.mode, known.since) = (mode, since);
            }
        }
        for (group, mode) in &self.worker.options.standing {
            let members = groups.get(group).map_or(0, |wanted| wanted.members);
            groups.insert(group.clone(), Wanted { mode: *mode, members, since: 0, standing: true });
        }
        self.worker.board.counters.malformed.store(malformed, Ordering::Relaxed);
        groups
    }

    /// Ends the pipes of groups that are gone, when their time is over. Returns when the next is.
    fn end_unwanted(&mut self, wanted: &BTreeMap<String, Wanted>) -> Option<Instant> {
        let (now, grace) = (pace::now(), self.worker.options.grace);
        let mut next = None;
        for (group, open) in &mut self.open {
            open.members = wanted.get(group).map_or(0, |wanted| wanted.members);
            match wanted.get(group) {
                // Those of another mode wait for nothing that is still here.
                Some(wanted) if wanted.mode != open.record.mode => open.until = Some(now),
                Some(_) => open.until = None,
                None => {
                    let until = *open.until.get_or_insert(now + grace);
                    // One whose time is over now does not hide those that come later.
                    if until > now {
                        next = next.into_iter().chain([until]).min();
                    }
                }
            }
        }
        let is_over = |open: &Open| open.until.is_some_and(|until| until <= now);
        let over: Vec<_> =
            self.open.iter().filter(|(_, open)| is_over(open)).map(|(group, _)| group.clone()).collect();
        for group in over {
            tracing::debug!(destination = self.worker.board.destination, group, "a group has ended");
            if let Some(open) = self.open.remove(&group) {
                self.end(open);
            }
        }
        next
    }

    fn end(&mut self, open: Open) {
        let (owner, key) = (self.worker.owner.clone(), open.key);
        let pipe = open.pipe;
        self.ending.spawn(async move {
            let withdrawn = async {
                // What could not be deleted ends with the lease; a pipe that begins again writes over it.
                if let Some((_, written)) = open.written
                    && let Err(error) = owner.withdraw(&key, written).await
                {
                    tracing::debug!(%error, %key, "withdrawing an address");
                }
            };
            tokio::join!(pipe.close(), withdrawn);
        });
    }

    /// Opens the pipe of a group. Returns when to try again, if it could not be.
    async fn begin(&mut self, group: String, wanted: Wanted) -> Option<Instant> {
        if self.open.contains_key(&group) {
            return None;
        }
        let worker = &self.worker;
        let key = worker.keys.group(&group).ok()?.address;
        let counters = worker.board.counters.clone();
        let opened = Pipe::open(&group, wanted.mode, &worker.place, &worker.options, counters).await;
        let pipe = match opened {
            Ok(pipe) => Arc::new(pipe),
            Err(error) => {
                tracing::warn!(%error, group, "no socket for a group");
                worker.board.report(|status| status.problem = Some(error));
                return Some(pace::now() + AGAIN);
            }
        };
        let record = Record { url: pipe.url.clone(), mode: wanted.mode, standing: wanted.standing };
        let members = wanted.members;
        self.open.insert(group, Open { pipe, key, record, members, until: None, written: None });
        None
    }

    /// Messages go to all pipes there are.
    fn route(&self) {
        let pipes: Pipes = self.open.iter().map(|(group, open)| (group.clone(), open.pipe.clone())).collect();
        let board = &self.worker.board;
        if board.pipes().is_ok_and(|routes| !same(&routes, &pipes)) {
            board.route(pipes);
        }
    }

    /// Writes the addresses that are not in etcd, or not on the present lease, as they should be.
    async fn write_addresses(&mut self, holding: &Holding) -> Result<()> {
        let view = self.watcher.view();
        let epoch = &holding.epoch;
        for open in self.open.values_mut() {
            let stands = open.written.is_some_and(|(number, written)| {
                let seen = view.get(&open.key);
                let as_written = || seen.and_then(Record::read).as_ref() == Some(&open.record);
                number == epoch.number() && (view.revision() < written || as_written())
            });
            if stands {
                continue;
            }
            match publish(&self.worker.client, &self.worker, holding, open).await {
                Ok(Some(revision)) => open.written = Some((epoch.number(), revision)),
                // Not ours any more: the watch, or the epoch, is about to tell.
                Ok(None) => return Ok(()),
                Err(error) if error.is_session_lost() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn known(&self, wanted: impl Fn(&Open) -> bool) -> Known {
        let known = self.open.iter().filter(|(_, open)| wanted(open)).map(|(group, open)| {
            let Record { url, mode, .. } = open.record.clone();
            (group.clone(), GroupInfo::new(group.clone(), mode, url, open.members))
        });
        known.collect()
    }

    /// Ends everything: deletes the keys and sends what is queued, both at the same time.
    pub(super) async fn finish(mut self, end: End) -> Result<()> {
        let reason = end.reason(&self.worker.session);
        // Where it is being registered again, it is not known what is ours.
        let status = self.worker.board.status.borrow().clone();
        let certain = status.state == RegistrationState::Registered;
        self.worker.board.end(reason);
        let open = std::mem::take(&mut self.open);
        let mut released = Ok(());
        match end {
            End::Stopped if certain => {
                let addresses: Vec<Key> = open.values().map(|open| open.key.clone()).collect();
                // Their addresses go with the owner's key.
                open.into_values().for_each(|open| self.end(Open { written: None, ..open }));
                let release = self.worker.owner.release(status.token, &addresses);
                released = self.worker.session.within_time_to_close(release).await;
            }
            // The lease is about to be revoked, with all its keys.
            End::Closing => open.into_values().for_each(|open| self.end(Open { written: None, ..open })),
            End::Stopped | End::Failed(_) => {
                open.into_values().for_each(|open| self.end(open));
                let release = self.worker.owner.release_if_ours();
                released = self.worker.session.within_time_to_close(release).await;
            }
        }
        while self.ending.join_next().await.is_some() {}
        Ok(released?)
    }
}

fn same(left: &Pipes, right: &Pipes) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && Arc::ptr_eq(left.1, right.1))
}

/// Writes an address for as long as the epoch lives, however long etcd is away.
async fn publish(
    client: &Client,
    worker: &Worker,
    holding: &Holding,
    open: &Open,
) -> sereno_core::Result<Option<i64>> {
    let round = || async {
        let value = open.record.write();
        match worker.owner.publish(&holding.epoch, holding.token, &open.key, value).await {
            Err(error) if is_passing(&error) => None,
            published => Some(published),
        }
    };
    client.persist(&holding.epoch, round).await.and_then(|published| published)
}
