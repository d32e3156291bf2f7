//! The task behind a member: keeps its key, and follows the address of its group.

use std::convert::Infallible;
use std::time::Duration;

use sereno_core::{
    CancellationToken, Client, Compare, Epoch, Key, Op, Step, Txn, View, Watcher, WeakSession, chance, pace,
};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};
use crate::keys::GroupKeys;
use crate::line::Line;
use crate::loss::Loss;
use crate::member::{MemberState, MemberStatus};
use crate::mode::Mode;
use crate::options::GroupOptions;
use crate::owner::is_passing;
use crate::patience::{End, Patience};
use crate::record::{Record, member_mode};

pub(crate) struct Follower {
    pub(crate) client: Client,
    pub(crate) session: WeakSession,
    pub(crate) destination: String,
    pub(crate) name: String,
    /// The key of the destination's owner.
    pub(crate) owner: Key,
    pub(crate) group: GroupKeys,
    /// This member's key. Nobody else writes it.
    pub(crate) key: Key,
    pub(crate) options: GroupOptions,
    pub(crate) line: Line,
    pub(crate) status: watch::Sender<MemberStatus>,
    /// Set when everything is closed and the key is deleted, or could not be.
    pub(crate) done: watch::Sender<Option<Result<()>>>,
    /// The member left, or was not waited for.
    pub(crate) stop: CancellationToken,
    /// Whoever waits for having joined.
    pub(crate) first: Option<oneshot::Sender<Result<()>>>,
}

/// The membership while its key is there.
struct Holding {
    epoch: Epoch,
    /// The revision at which the key was written.
    known: i64,
}

impl Follower {
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let patience = Patience { stop: self.stop.clone(), closing };
        let end = match self.live(&patience).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let reason = end.reason(&self.session);
        tracing::debug!(destination = self.destination, group = self.name, ?reason, "a member ends");
        let first = self.first.take();
        self.status.send_modify(|status| {
            status.state = MemberState::Ended;
            status.connected = false;
            status.problem.clone_from(&reason);
        });
        if let Some(first) = first {
            let left = Error::Left { group: self.name.clone() };
            let _ = first.send(Err(reason.unwrap_or(left)));
        }
        // The key of a session that closes goes with its lease.
        let deleted = async {
            match end {
                End::Closing => Ok(()),
                End::Stopped | End::Failed(_) => Ok(self.session.within_time_to_close(self.delete()).await?),
            }
        };
        let (deleted, ()) = tokio::join!(deleted, self.line.close());
        self.done.send_replace(Some(deleted));
    }

    /// Joins, and stays a member as long as that is possible.
    async fn live(&mut self, patience: &Patience) -> Result<Infallible, End> {
        self.wait_for_destination(patience).await?;
        let epoch = patience.wait(self.session.live_epoch()).await??;
        let known = self.enter(&epoch).await?;
        let mut watcher = patience.wait(self.client.watch(&self.group.all)).await??;
        let mut holding = Holding { epoch, known };
        loop {
            let epoch = holding.epoch.clone();
            let held = async {
                tokio::select! {
                    biased;
                    _ = epoch.lost() => Ok(Loss::Lease),
                    held = self.hold(&holding, &mut watcher) => held,
                }
            };
            let loss = patience.wait(held).await??;
            tracing::debug!(destination = self.destination, group = self.name, ?loss, "a member is missing");
            if !self.options.rejoin {
                return Err(match loss {
                    Loss::Lease => epoch.lost_error().into(),
                    Loss::Deleted => Error::Removed { group: self.name.clone() }.into(),
                });
            }
            self.report(|status| {
                status.state = MemberState::Missing;
                status.restored += 1;
            });
            holding = self.restore(epoch, loss, patience).await?;
        }
    }

    /// Leaves no trace.
    async fn wait_for_destination(&self, patience: &Patience) -> Result<(), End> {
        let mut watcher = patience.wait(self.client.watch(&self.owner)).await??;
        let there = watcher.wait(|view| (!view.is_empty()).then_some(()));
        let limited = async {
            match self.options.wait {
                None => Ok(there.await),
                Some(limit) => tokio::time::timeout(limit, there).await,
            }
        };
        match patience.wait(limited).await? {
            Ok(there) => Ok(there?),
            Err(_) => Err(self.no_destination().into()),
        }
    }

    /// Writes the member's key on this epoch's lease, if the group has this member's mode. Returns the revision.
    async fn enter(&self, epoch: &Epoch) -> Result<i64> {
        let entered = self.client.optimistic(|| self.try_enter(epoch)).await?;
        entered.map_err(|mode| self.mismatch(mode))
    }

    async fn try_enter(&self, epoch: &Epoch) -> sereno_core::Result<Step<Result<i64, Mode>>> {
        epoch.check()?;
        let group = self.client.range(&self.group.all).await?;
        let standing = group.entries.iter().filter(|kv| kv.key == self.group.address);
        let standing = standing.filter_map(Record::read).find(|record| record.standing);
        let others = group.entries.iter().filter(|kv| self.group.is_member(&kv.key) && kv.key != self.key);
        let oldest = others
            .filter_map(|kv| Some((kv.create_revision, member_mode(kv)?)))
            .min_by_key(|(since, _)| *since);
        let theirs = standing.map(|record| record.mode).or(oldest.map(|(_, mode)| mode));
        if let Some(mode) = theirs.filter(|mode| *mode != self.options.mode) {
            return Ok(Step::Done(Err(mode)));
        }
        // Somebody who came in between would have been seen, and may be of another mode.
        let put = Txn::new()
            .when(epoch.fence())
            .when(Compare::unchanged_since(&self.group.all, group.revision))
            .then(Op::put_leased(&self.key, self.options.mode.name(), epoch))
            .otherwise(Op::get(epoch.key()));
        let reply = self.client.settle(&put).await?.reply;
        if reply.succeeded {
            return Ok(Step::Done(Ok(reply.revision)));
        }
        if reply.entry(0).is_none_or(|kv| kv.create_revision != epoch.token()) {
            return Err(epoch.lost_error());
        }
        Ok(Step::Conflict)
    }

    async fn delete(&self) -> sereno_core::Result<()> {
        let delete = Txn::new().when(Compare::exists(&self.key)).then(Op::delete(&self.key));
        self.client.settle(&delete).await.map(|_| ())
    }

    /// Writes the key again, under the next epoch if need be.
    async fn restore(&self, mut epoch: Epoch, loss: Loss, patience: &Patience) -> Result<Holding, End> {
        if loss == Loss::Lease {
            // Many sessions lose their leases together, and need not all come back in the same millisecond.
            let most = (epoch.ttl() / 20).min(Duration::from_millis(250)).as_micros();
            let wait = chance::below(usize::try_from(most).unwrap_or_default()) as u64;
            patience.wait(pace::until(pace::now() + Duration::from_micros(wait))).await?;
            epoch = patience.wait(self.session.next_epoch(epoch.number())).await??;
        }
        loop {
            let round = || async {
                if let Err(end) = patience.check() {
                    return Some(Err(end));
                }
                match self.enter(&epoch).await {
                    Err(Error::Core(error)) if is_passing(&error) => None,
                    entered => Some(entered.map_err(End::from)),
                }
            };
            match self.client.persist(&epoch, round).await {
                Ok(Ok(known)) => return Ok(Holding { epoch, known }),
                Ok(Err(End::Failed(error))) if error.is_session_lost() => {}
                Ok(Err(end)) => return Err(end),
                // The epoch was lost meanwhile.
                Err(_) => {}
            }
            epoch = patience.wait(self.session.next_epoch(epoch.number())).await??;
        }
    }

    /// Follows the group's address until the key is missing.
    async fn hold(&mut self, holding: &Holding, watcher: &mut Watcher) -> Result<Loss> {
        loop {
            if !self.settle(holding, watcher.view())? {
                return Ok(Loss::of(&self.client, &holding.epoch).await);
            }
            // Only until it has joined. From then on there is no limit.
            let limit = self.options.wait.filter(|_| self.first.is_some());
            let late = async {
                match limit {
                    Some(limit) => pace::until(pace::now() + limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                update = watcher.next() => match update {
                    Some(Ok(_)) => {}
                    Some(Err(error)) if is_passing(&error) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(sereno_core::Error::Stopped.into()),
                },
                () = self.line.changed() => {}
                () = late => return Err(self.no_destination()),
            }
        }
    }

    /// Does what the view says: connects, and looks whether the key is there.
    fn settle(&mut self, holding: &Holding, view: &View) -> Result<bool> {
        let record = view.get(&self.group.address).and_then(Record::read);
        let record = match record {
            // It will be another one in a moment, unless the destination insists.
            Some(record) if record.mode != self.options.mode => {
                if record.standing {
                    return Err(self.mismatch(record.mode));
                }
                None
            }
            record => record,
        };
        let url = record.map(|record| record.url);
        if url.is_none() && self.line.current().is_some() && !self.options.rejoin {
            return Err(self.no_destination());
        }
        let followed = self.line.follow(url.as_ref());
        let missing = view.revision() >= holding.known && view.get(&self.key).is_none();
        let connected = self.line.is_connected();
        self.report(|status| {
            let state = if url.is_some() { MemberState::Following } else { MemberState::Waiting };
            if !missing {
                status.state = state;
            }
            status.address.clone_from(&url);
            status.connected = connected;
            status.problem = followed.err();
        });
        if url.is_some()
            && let Some(first) = self.first.take()
        {
            let _ = first.send(Ok(()));
        }
        Ok(!missing)
    }

    /// Tells the news, if it is any.
    fn report(&self, change: impl FnOnce(&mut MemberStatus)) {
        self.status.send_if_modified(|status| {
            let before = (status.state, status.address.clone(), status.connected, status.restored);
            let problem = status.problem.is_some();
            change(status);
            before != (status.state, status.address.clone(), status.connected, status.restored)
                || problem != status.problem.is_some()
        });
    }

    fn no_destination(&self) -> Error {
        Error::NoDestination { destination: self.destination.clone() }
    }

    fn mismatch(&self, mode: Mode) -> Error {
        let (destination, group) = (self.destination.clone(), self.name.clone());
        Error::ModeMismatch { destination, group, mode }
    }
}
