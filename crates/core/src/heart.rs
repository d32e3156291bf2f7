//! The task behind a session: grants, keeps alive, notices the end, begins anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, jitter};
use crate::chance;
use crate::client::Client;
use crate::epoch::Epoch;
use crate::error::{Error, LostReason, Result};
use crate::lease::{self, Beat, Heart};
use crate::session::{SessionState, Shared};
use crate::txn::{Compare, Op, Txn};
use crate::watch::{EventKind, Overflow, TailItem};

/// Grants a lease and creates the key that lives as long as it.
pub(crate) async fn establish(client: &Client, ttl: Duration, number: u64) -> Result<Epoch> {
    let granted = lease::grant(client, ttl).await?;
    let id = format!("{:016x}", chance::number());
    let key = client.epoch_key(&id)?;
    let described = format!("pid {} of {}", std::process::id(), program());
    let provisional = Epoch::new(number, id.clone(), granted, key.clone(), 0);
    // The name is random: if the key is there, an earlier copy of this very transaction made it.
    let create = Txn::new()
        .when(Compare::absent(&key))
        .then(Op::put_leased(&key, described, &provisional))
        .otherwise(Op::get(&key));
    let settled = client.settle(&create).await?;
    let token = if settled.reply.succeeded {
        settled.reply.revision
    } else {
        settled.reply.entry(0).map_or(settled.reply.revision, |kv| kv.create_revision)
    };
    let epoch = Epoch::new(number, id, granted, key, token);
    epoch.check()?;
    Ok(epoch)
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&path)
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The time between two keepalives. Short, because the session can be as much closer to its end when an outage begins; a
/// keepalive costs etcd no write.
pub(crate) fn period(ttl: Duration) -> Duration {
    ttl / 20
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) async fn run(self) {
        let shared = &self.shared;
        loop {
            let epoch = shared.epochs.borrow().clone();
            let reason = self.live(&epoch).await;
            if reason == LostReason::Closed {
                return self.close(&epoch).await;
            }
            epoch.end(reason);
            shared.report(epoch.number(), SessionState::Lost(reason));
            self.release(&epoch);
            let Some(next) = self.begin(epoch.number() + 1).await else {
                return self.close(&epoch).await;
            };
            tracing::info!(epoch = next.number(), "session epoch begins");
            let number = next.number();
            shared.acknowledge();
            shared.epochs.send_replace(next);
            shared.begun.notify_waiters();
            shared.report(number, SessionState::Connected);
        }
    }

    /// etcd may not know yet that the epoch is over, or only its key was deleted: lets the others go on.
    fn release(&self, epoch: &Epoch) {
        let (client, lease) = (self.shared.client.clone(), epoch.lease());
        self.shared.tasks.spawn(async move {
            if let Err(error) = lease::revoke(&client, lease, client.deadline()).await {
                tracing::debug!(%error, "revoking a lost lease");
            }
        });
    }

    /// Keeps an epoch alive until it ends.
    async fn live(&self, epoch: &Epoch) -> LostReason {
        let deadline = async {
            while epoch.is_valid() {
                // Not in one go: the timer stands still while the machine is suspended, the deadline does not.
                let look = Instant::now() + Duration::from_secs(1);
                tokio::time::sleep_until(epoch.deadline().min(look)).await;
            }
        };
        tokio::select! {
            // In this order: a process that was stopped must see its deadline before an answer that waited for it.
            biased;
            () = self.shared.closing.cancelled() => LostReason::Closed,
            () = deadline => LostReason::Deadline,
            reason = epoch.lost() => reason,
            () = self.deleted(epoch) => LostReason::Expired,
            reason = self.beat(epoch) => reason,
        }
    }

    /// Sends keepalives; returns when etcd says that the lease is gone.
    async fn beat(&self, epoch: &Epoch) -> LostReason {
        let client = &self.shared.client;
        let period = period(epoch.ttl());
        let most = Duration::from_secs(2);
        let quick = (epoch.ttl() / 10).clamp(Duration::from_millis(250), most);
        let patient = (epoch.ttl() / 6).clamp(Duration::from_millis(500), most);
        let pauses = || {
            let most = (epoch.ttl() / 20).min(Duration::from_millis(500));
            Backoff::new(most.min(Duration::from_millis(50)), most)
        };
        let mut heart = Heart::default();
        let mut backoff = pauses();
        let mut patience = quick;
        // The grant was as good as a keepalive.
        let mut next = Instant::now() + period;
        loop {
            tokio::time::sleep_until(next).await;
            match heart.beat(client, epoch.lease(), epoch.ttl(), patience).await {
                Beat::Alive { sent, ttl } => {
                    if !epoch.extend(sent, ttl) {
                        return LostReason::Deadline;
                    }
                    self.shared.acknowledge();
                    backoff = pauses();
                    patience = quick;
                    self.shared.report(epoch.number(), SessionState::Connected);
                    next = sent + period;
                }
                Beat::Gone => return LostReason::Expired,
                Beat::Failed(cause) => {
                    tracing::debug!(%cause, "keepalive failed");
                    // The next one has to connect first: several round trips, where the way is long.
                    patience = patient;
                    if self.shared.silence() > epoch.ttl() / 3 {
                        self.shared.report(epoch.number(), SessionState::Suspended);
                    }
                    next = Instant::now() + backoff.next();
                }
            }
        }
    }

    /// Waits until the epoch's key is deleted: the fastest word of a lease's end, and right even where a keepalive is
    /// acknowledged for a lease that is gone.
    async fn deleted(&self, epoch: &Epoch) {
        let client = &self.shared.client;
        let mut from = epoch.token().saturating_add(1);
        let mut backoff = Backoff::streams();
        loop {
            if let Ok(mut tail) = client.tail(epoch.key(), from, Overflow::Pause).await {
                while let Some(Ok(item)) = tail.next().await {
                    match item {
                        TailItem::Changes(changes) => {
                            if changes.events.iter().any(|event| event.kind == EventKind::Delete) {
                                return;
                            }
                        }
                        TailItem::Compacted { .. } | TailItem::Missed(_) => match client
                            .range(epoch.key())
                            .await
                        {
                            Ok(read) if read.entries.iter().any(|kv| kv.create_revision == epoch.token()) => {
                                from = read.revision.saturating_add(1);
                                break;
                            }
                            Ok(_) => return,
                            Err(error) => {
                                tracing::debug!(%error, "reading the session key");
                                break;
                            }
                        },
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// The next epoch, however long it takes; `None` when the session is closed first.
    async fn begin(&self, number: u64) -> Option<Epoch> {
        let shared = &self.shared;
        let mut backoff = Backoff::streams();
        // Many sessions lose their leases together when etcd was away.
        let mut wait = jitter((shared.options.ttl / 20).min(Duration::from_millis(250)));
        loop {
            tokio::select! {
                biased;
                () = shared.closing.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            let begun = tokio::select! {
                biased;
                () = shared.closing.cancelled() => return None,
                begun = establish(&shared.client, shared.options.ttl, number) => begun,
            };
            match begun {
                Ok(epoch) => return Some(epoch),
                Err(error) => tracing::debug!(%error, "beginning a new session epoch"),
            }
            wait = backoff.next();
        }
    }

    /// Lets the recipes finish, then revokes.
    async fn close(&self, epoch: &Epoch) {
        let shared = &self.shared;
        let within = shared.time_to_close();
        let deadline = Instant::now() + within;
        shared.tasks.close();
        // Recipes still need the lease while they put things in order; half of the time is theirs.
        let finish = async {
            tokio::join!(
                tokio::time::timeout(within / 2, shared.tasks.wait()),
                self.beat_until(epoch, deadline, within / 2)
            )
            .0
        };
        if finish.await.is_err() {
            tracing::warn!("some tasks of a closing session did not finish in time");
        }
        let ended = epoch.ended();
        epoch.end(LostReason::Closed);
        let left = deadline.saturating_duration_since(Instant::now());
        let result = match ended {
            Some(LostReason::Expired) => Ok(()),
            _ => lease::revoke(&shared.client, epoch.lease(), left).await,
        };
        shared.report(epoch.number(), SessionState::Closed);
        shared.closed.send_replace(Some(result));
    }

    /// Keepalives go on while the recipes finish, if that takes long enough to need one.
    async fn beat_until(&self, epoch: &Epoch, deadline: Instant, within: Duration) {
        if epoch.deadline() > deadline || !epoch.is_valid() {
            return;
        }
        let mut heart = Heart::default();
        let beat =
            heart.beat(&self.shared.client, epoch.lease(), epoch.ttl(), Duration::from_secs(2).min(within));
        if let Beat::Alive { sent, ttl } = beat.await {
            epoch.extend(sent, ttl);
        }
    }
}

impl Drop for Keeper {
    /// The runtime was shut down: nobody keeps this session alive any more, and nobody may believe so.
    fn drop(&mut self) {
        self.shared.epochs.borrow().end(LostReason::Closed);
        if self.shared.closed.borrow().is_none() {
            self.shared.closed.send_replace(Some(Err(Error::Stopped)));
        }
    }
}
