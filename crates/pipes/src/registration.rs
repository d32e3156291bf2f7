//! A registered destination: the sending end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use sereno_core::{CancellationToken, Session};

use crate::board::Board;
use crate::error::{Error, Result};
use crate::groups::{GroupChanges, GroupInfo};
use crate::pipe::Put;
use crate::stats::{Stats, add};

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// It is registered.
    Registered,
    /// It was deleted underneath, or the lease was lost, and it is being made again. What is sent meanwhile is queued for the
    /// groups there are.
    Missing,
    /// It has ended. Final.
    Ended,
}

/// The latest news of a registration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// How it stands.
    pub state: RegistrationState,
    /// The fencing token: the revision at which the owner's key was created. Grows with each registration of the
    /// destination, whoever's it is.
    pub token: i64,
    /// How often it had to be made again.
    pub restored: u64,
    /// What went wrong last, and is not well again; at the end, why it ended, unless it was asked to.
    pub problem: Option<Error>,
}

impl Default for RegistrationStatus {
    fn default() -> Self {
        Self { state: RegistrationState::Missing, token: 0, restored: 0, problem: None }
    }
}

/// What became of one message in all groups.
#[derive(Default)]
struct Tally {
    done: usize,
    ended: usize,
}

impl Tally {
    fn add(&mut self, put: Put) {
        match put {
            Put::Done => self.done += 1,
            Put::Ended => self.ended += 1,
            Put::Dropped | Put::Full => {}
        }
    }
}

/// A destination that is registered for as long as this lives.
///
/// Dropping it ends the registration in the background, as [`Registration::unregister`] does. When the process ends, what
/// is queued is lost, and the registration stays for its time to live unless the session was closed: see
/// [`Session`](sereno_core::Session#the-end-of-a-process).
#[must_use = "dropping a registration ends it"]
pub struct Registration {
    board: Arc<Board>,
    stop: CancellationToken,
    /// Keeps the session open.
    session: Session,
}

impl Registration {
    pub(crate) fn new(board: Arc<Board>, stop: CancellationToken, session: Session) -> Self {
        Self { board, stop, session }
    }

    /// The destination's name.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.board.destination
    }

    /// The session it stands on.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sends a message to every group: queues it for each, and waits where there is no room as
    /// [`DestinationOptions::when_full`](crate::DestinationOptions::when_full) says. Returns to how many groups it goes: those
    /// that had no room and were not, or no longer, to be waited for are not among them. 0 when there is none: it then goes to
    /// nobody, which is no error and is counted.
    ///
    /// A group that has no room does not keep the message from those that have. One task that sends keeps its order in every
    /// group.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; after the end of the registration, or when it ends while a group is waited for, why it ended:
    /// [`Error::Unregistered`] and others.
    ///
    /// # Cancel safety
    /// Cancelled: the groups that had room have it, the others do not get it.
    pub async fn send(&self, body: impl Into<Bytes>) -> Result<usize> {
        let body = body.into();
        self.check(&body)?;
        let pipes = self.board.pipes()?;
        self.count(1, pipes.len());
        let (mut full, mut tally) = (Vec::new(), Tally::default());
        for pipe in pipes.values() {
            match pipe.put_now(&body) {
                Put::Full => full.push(pipe),
                put => tally.add(put),
            }
        }
        match full.as_slice() {
            // Whoever sends without end lets others have their turn.
            [] => tokio::task::consume_budget().await,
            [pipe] => tally.add(pipe.put(body).await),
            pipes => {
                let put = join_all(pipes.iter().map(|pipe| pipe.put(body.clone()))).await;
                put.into_iter().for_each(|put| tally.add(put));
            }
        }
        self.sent(&tally)
    }

    /// Sends all messages in their order, as [`Registration::send`] does, and faster than one by one. Returns to how many
    /// groups all of them go.
    ///
    /// # Errors
    /// As [`Registration::send`]; when one message is too large, none is sent.
    ///
    /// # Cancel safety
    /// Cancelled: some groups have got more of the messages than others, each the first ones.
    pub async fn send_all(&self, bodies: impl IntoIterator<Item = Bytes>) -> Result<usize> {
        let bodies: VecDeque<Bytes> = bodies.into_iter().collect();
        for body in &bodies {
            self.check(body)?;
        }
        let pipes = self.board.pipes()?;
        self.count(bodies.len(), pipes.len());
        let mut waiting: Vec<_> = pipes.values().skip(1).map(|pipe| pipe.put_all(bodies.clone())).collect();
        waiting.extend(pipes.values().next().map(|pipe| pipe.put_all(bodies)));
        let mut tally = Tally::default();
        join_all(waiting).await.into_iter().for_each(|put| tally.add(put));
        tokio::task::consume_budget().await;
        self.sent(&tally)
    }

    /// To how many groups a message went.
    fn sent(&self, tally: &Tally) -> Result<usize> {
        if tally.ended > 0 {
            // Perhaps the destination did.
            self.board.pipes()?;
        }
        Ok(tally.done)
    }

    fn check(&self, body: &Bytes) -> Result<()> {
        let (size, limit) = (body.len(), self.board.limit);
        if size > limit { Err(Error::TooLarge { size, limit }) } else { Ok(()) }
    }

    fn count(&self, messages: usize, groups: usize) {
        add(&self.board.counters.sent, messages as u64);
        if groups == 0 {
            add(&self.board.counters.to_nobody, messages as u64);
        }
    }

    /// The groups that messages go to now, by name. No RPC.
    ///
    /// A group is listed before the first of its members has joined, and one that ended and began again in another mode is
    /// listed once, as it is now. The number of members follows a watch and may lag by a moment.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupInfo> {
        self.board.routed().into_values().collect()
    }

    /// The groups there are, one by one, and every change from then on. No RPC.
    pub fn group_changes(&self) -> GroupChanges {
        GroupChanges::new(self.board.news.subscribe())
    }

    /// Waits until there are at least so many groups, and gives them, by name.
    ///
    /// # Errors
    /// Why the registration ended, if it did.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn wait_for(&self, groups: usize) -> Result<Vec<GroupInfo>> {
        let mut news = self.board.news.subscribe();
        let enough = news.wait_for(|news| news.over.is_some() || news.groups.len() >= groups).await;
        match enough {
            Ok(news) if news.over.is_none() => Ok(news.groups.values().cloned().collect()),
            _ => Err(self.board.ended()),
        }
    }

    /// How it stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> RegistrationStatus {
        self.board.status.borrow().clone()
    }

    /// Waits until it is not registered: deleted underneath, its lease lost, or ended; at once when that is so now.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn lost(&self) -> RegistrationStatus {
        self.until(|status| status.state != RegistrationState::Registered).await
    }

    /// Waits until it has ended, for whatever reason. The error tells which, if it was not asked to.
    ///
    /// # Errors
    /// [`Error::Deleted`], [`Error::Owned`], a lost or closed session, or what else ended it.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn ended(&self) -> Result<()> {
        let status = self.until(|status| status.state == RegistrationState::Ended).await;
        status.problem.map_or(Ok(()), Err)
    }

    async fn until(&self, condition: impl FnMut(&RegistrationStatus) -> bool) -> RegistrationStatus {
        let mut status = self.board.status.subscribe();
        match status.wait_for(condition).await {
            Ok(status) => status.clone(),
            // This keeps the sender.
            Err(_) => self.status(),
        }
    }

    /// What it has done so far. No RPC.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.board.stats()
    }

    /// Ends the registration: accepts nothing more, deletes its keys at once, so that others can register, and meanwhile sends
    /// what is queued if that is possible within [`DestinationOptions::linger`](crate::DestinationOptions::linger). Then
    /// ports and tasks are free. May be called more than once. One RPC for up to 100 groups. Ends within the linger time or
    /// [`Session::time_to_close`], whichever is longer, with etcd gone too.
    ///
    /// # Errors
    /// As any call, when the keys could not be deleted: they end with the session's lease.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn unregister(&self) -> Result<()> {
        self.stop.cancel();
        let mut done = self.board.done.subscribe();
        match done.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("destination", &self.destination())
            .field("status", &self.status())
            .field("groups", &self.groups())
            .finish_non_exhaustive()
    }
}
