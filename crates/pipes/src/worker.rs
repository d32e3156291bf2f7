//! The task behind a registration: keeps what etcd says and what is open in step.

mod serve;

use std::time::Duration;

use sereno_core::{CancellationToken, Client, Epoch, Watcher, WeakSession, chance, pace};
use tokio::sync::oneshot;

use crate::board::Board;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::loss::Loss;
use crate::options::DestinationOptions;
use crate::owner::{Claim, Owner, is_passing};
use crate::patience::{End, Patience};
use crate::place::Place;
use crate::registration::RegistrationState;

use self::serve::Serving;

pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) session: WeakSession,
    pub(crate) owner: Owner,
    pub(crate) keys: Keys,
    pub(crate) place: Place,
    pub(crate) options: DestinationOptions,
    pub(crate) board: std::sync::Arc<Board>,
    /// The registration was given up.
    pub(crate) stop: CancellationToken,
}

/// The destination while it is ours.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) epoch: Epoch,
    /// The revision at which the owner's key was created.
    pub(crate) token: i64,
    /// A view that is older does not know of it.
    pub(crate) known: i64,
}

impl Worker {
    pub(crate) async fn run(self, closing: CancellationToken, first: oneshot::Sender<Result<()>>) {
        let patience = Patience { stop: self.stop.clone(), closing };
        let (holding, watcher) = match self.begin(&patience).await {
            Ok(begun) => begun,
            Err(end) => {
                let error = end.reason(&self.session).unwrap_or_else(|| self.unregistered());
                self.board.end(Some(error.clone()));
                let _ = first.send(Err(error));
                // Perhaps it was written all the same.
                let released = self.owner.release_if_ours().await;
                self.board.done.send_replace(Some(released.map_err(Error::from)));
                return;
            }
        };
        self.registered(&holding);
        let _ = first.send(Ok(()));
        let board = self.board.clone();
        let mut serving = Serving::new(self, watcher);
        let end = serving.run(holding, &patience).await;
        tracing::debug!(destination = board.destination, ?end, "a registration ends");
        let released = serving.finish(end).await;
        board.done.send_replace(Some(released));
    }

    /// Makes the destination ours as soon as nobody else has it, within the time to wait for that.
    async fn begin(&self, patience: &Patience) -> Result<(Holding, Watcher), End> {
        let until = pace::now() + self.options.wait;
        let epoch = patience.wait(self.session.live_epoch()).await??;
        let mut other = None;
        loop {
            let since = match self.owner.claim(&epoch).await? {
                Claim::Ours { token, known } => {
                    let watcher = patience.wait(self.client.watch(&self.keys.all)).await??;
                    return Ok((Holding { epoch, token, known }, watcher));
                }
                Claim::Taken { since } => since,
            };
            if pace::now() >= until {
                return Err(self.owned().into());
            }
            let other = match &mut other {
                Some(other) => other,
                none => none.insert(patience.wait(self.client.watch(&self.keys.owner)).await??),
            };
            // A view from before that shows nobody is no news.
            let free = other.wait(|view| (view.revision() >= since && view.is_empty()).then_some(()));
            tokio::select! {
                biased;
                free = patience.wait(free) => free??,
                () = pace::until(until) => return Err(self.owned().into()),
            }
        }
    }

    /// Makes the destination ours once more, unless somebody else has it by now. Waits for the next epoch if need be.
    async fn restore(&self, holding: &Holding, loss: Loss, patience: &Patience) -> Result<Holding, End> {
        let mut epoch = holding.epoch.clone();
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
                match self.owner.claim(&epoch).await {
                    Err(error) if is_passing(&error) => None,
                    claimed => Some(claimed.map_err(End::from)),
                }
            };
            match self.client.persist(&epoch, round).await {
                Ok(Ok(Claim::Ours { token, known })) => return Ok(Holding { epoch, token, known }),
                Ok(Ok(Claim::Taken { .. })) => return Err(self.owned().into()),
                Ok(Err(End::Failed(error))) if error.is_session_lost() => {}
                Ok(Err(end)) => return Err(end),
                // The epoch was lost meanwhile.
                Err(_) => {}
            }
            epoch = patience.wait(self.session.next_epoch(epoch.number())).await??;
        }
    }

    fn registered(&self, holding: &Holding) {
        self.board.report(|status| {
            status.state = RegistrationState::Registered;
            status.token = holding.token;
            status.problem = None;
        });
    }

    fn owned(&self) -> Error {
        Error::Owned { destination: self.board.destination.clone() }
    }

    fn unregistered(&self) -> Error {
        Error::Unregistered { destination: self.board.destination.clone() }
    }
}
