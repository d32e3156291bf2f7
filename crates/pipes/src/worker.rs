//! The task behind a registration: keeps what etcd says and what is open in step.

mod serve;

use std::time::Duration;

use sereno_core::{CancellationToken, Client, Epoch, WeakSession, Watcher, chance, pace};
use tokio::sync::oneshot;

use crate::board::Board;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::options::DestinationOptions;
use crate::owner::{Claim, Owner, is_passing};
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

/// Why the destination is not served any longer.
#[derive(Debug)]
pub(crate) enum End {
    /// It was given up.
    Stopped,
    /// The session closes: its lease takes the keys along.
    Closing,
    /// It is not ours any more, or cannot be served.
    Failed(Error),
}

/// Why the key is not ours at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Deleted,
    Lease,
}

impl Worker {
    pub(crate) async fn run(self, closing: CancellationToken, first: oneshot::Sender<Result<()>>) {
        let begun = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.unregistered()),
            () = closing.cancelled() => Err(self.session.epoch().lost_error().into()),
            begun = self.begin() => begun,
        };
        let (holding, watcher) = match begun {
            Ok(begun) => begun,
            Err(error) => {
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
        let end = serving.run(holding.clone(), &closing).await;
        tracing::debug!(destination = board.destination, ?end, "a registration ends");
        let released = serving.finish(end).await;
        board.done.send_replace(Some(released));
    }

    async fn begin(&self) -> Result<(Holding, Watcher)> {
        let epoch = self.session.live_epoch().await?;
        let claimed = tokio::time::timeout(self.options.wait, self.claim(&epoch)).await;
        let (token, known) = claimed.unwrap_or_else(|_| Err(self.owned()))?;
        let watcher = self.client.watch(&self.keys.all).await?;
        Ok((Holding { epoch, token, known }, watcher))
    }

    /// Makes the destination ours as soon as nobody else has it.
    async fn claim(&self, epoch: &Epoch) -> Result<(i64, i64)> {
        if let Claim::Ours { token, known } = self.owner.claim(epoch).await? {
            return Ok((token, known));
        }
        if self.options.wait.is_zero() {
            return Err(self.owned());
        }
        let mut other = self.client.watch(&self.keys.owner).await?;
        loop {
            other.wait(|view| view.is_empty().then_some(())).await?;
            if let Claim::Ours { token, known } = self.owner.claim(epoch).await? {
                return Ok((token, known));
            }
            // Somebody was faster. The watch has not told yet, or it would not have been tried.
            other.wait(|view| (!view.is_empty()).then_some(())).await?;
        }
    }

    /// Makes the destination ours once more, unless somebody else has it by now. Waits for the next epoch if need be.
    async fn restore(&self, holding: &Holding, loss: Loss) -> Result<Holding> {
        let mut epoch = holding.epoch.clone();
        if loss == Loss::Lease {
            // Many sessions lose their leases together, and need not all come back in the same millisecond.
            let most = (epoch.ttl() / 20).min(Duration::from_millis(250)).as_micros();
            let wait = chance::below(usize::try_from(most).unwrap_or_default()) as u64;
            pace::until(pace::now() + Duration::from_micros(wait)).await;
            epoch = self.session.next_epoch(epoch.number()).await?;
        }
        loop {
            let round = || async {
                match self.owner.claim(&epoch).await {
                    Err(error) if is_passing(&error) => None,
                    claimed => Some(claimed),
                }
            };
            match self.client.persist(&epoch, round).await.and_then(|claimed| claimed) {
                Ok(Claim::Ours { token, known }) => return Ok(Holding { epoch, token, known }),
                Ok(Claim::Taken) => return Err(self.owned()),
                Err(error) if error.is_session_lost() => {
                    epoch = self.session.next_epoch(epoch.number()).await?;
                }
                Err(error) => return Err(error.into()),
            }
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
