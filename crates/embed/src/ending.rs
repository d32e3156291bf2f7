//! How streams are ended on command.

use tokio::sync::watch;
use tonic::Status;

use crate::store::Refusal;

/// How often streams have been ended, and how often only those that want a leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub(crate) all: u64,
    pub(crate) leaderless: u64,
}

/// What may end one stream. Commands from before it began are not for it.
#[derive(Clone)]
pub(crate) struct Ending {
    cuts: watch::Receiver<Cuts>,
    before: Cuts,
    wants_leader: bool,
}

impl Ending {
    pub(crate) fn new(cuts: watch::Receiver<Cuts>, wants_leader: bool) -> Self {
        let before = *cuts.borrow();
        Self { cuts, before, wants_leader }
    }

    /// Waits for the command, and gives the words the stream ends with. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Status {
        let (before, wants_leader) = (self.before, self.wants_leader);
        let ends =
            |now: &Cuts| now.all != before.all || (wants_leader && now.leaderless != before.leaderless);
        match self.cuts.wait_for(ends).await {
            Ok(now) if now.all == before.all => Refusal::NO_LEADER.into(),
            // The engine itself has gone, too: the server has stopped.
            _ => Refusal::STOPPED.into(),
        }
    }
}
