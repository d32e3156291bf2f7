//! A member of a group: the receiving end.

use std::fmt;

use sereno_core::{CancellationToken, Session};
use sereno_sp::Address;
use tokio::sync::watch;

use crate::delivery::Delivery;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::line::Socket;

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// Nobody has registered the destination, or who has did not open the group yet.
    Waiting,
    /// It is connected to the destination, or about to be.
    Following,
    /// Its key was deleted underneath, or its lease was lost, and it is being written again. A connection goes on meanwhile.
    Missing,
    /// It has ended. Final.
    Ended,
}

/// The latest news of a member.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemberStatus {
    /// How it stands.
    pub state: MemberState,
    /// Where the destination sends from, if it is there.
    pub address: Option<Address>,
    /// Whether a connection to that address is up.
    pub connected: bool,
    /// How often its key had to be written again.
    pub restored: u64,
    /// What went wrong last, and is not well again; at the end, why it ended, unless it was asked to.
    pub problem: Option<Error>,
}

impl Default for MemberStatus {
    fn default() -> Self {
        let state = MemberState::Waiting;
        Self { state, address: None, connected: false, restored: 0, problem: None }
    }
}

/// A member of a group, for as long as this lives.
///
/// It goes on by itself, unless told otherwise by [`GroupOptions::rejoin`](crate::GroupOptions::rejoin): when the
/// destination goes and comes again, here or elsewhere, and when its own key or lease is lost. Dropping it leaves in the
/// background, as [`Member::leave`] does, and what had come and was not received is lost or, at least once, goes to another.
#[must_use = "dropping a member leaves the group"]
pub struct Member {
    group: Group,
    /// Keeps the session open.
    session: Session,
    socket: Socket,
    stop: CancellationToken,
    status: watch::Sender<MemberStatus>,
    done: watch::Sender<Option<Result<()>>>,
}

impl Member {
    pub(crate) fn new(
        group: Group,
        session: Session,
        socket: Socket,
        stop: CancellationToken,
        status: watch::Sender<MemberStatus>,
        done: watch::Sender<Option<Result<()>>>,
    ) -> Self {
        Self { group, session, socket, stop, status, done }
    }

    /// The destination's name.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.group.destination()
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        self.group.name()
    }

    /// The session it stands on.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The next message. Waits for one, through everything that the membership survives.
    ///
    /// # Errors
    /// After the end, why it ended: [`Error::Left`] and others. At most once, not before everything that had come was
    /// received; at least once, what had come and was not received goes to another member.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv(&self) -> Result<Delivery> {
        match &self.socket {
            Socket::Pull(pull) => pull.recv().await.map(Delivery::plain).map_err(|_| self.reason()),
            Socket::Rep(rep) => {
                self.check()?;
                rep.recv().await.map(Delivery::acked).map_err(|_| self.reason())
            }
        }
    }

    /// The next message, if it is there already.
    ///
    /// # Errors
    /// As [`Member::recv`].
    pub fn try_recv(&self) -> Result<Option<Delivery>> {
        match &self.socket {
            Socket::Pull(pull) => {
                pull.try_recv().map(|body| body.map(Delivery::plain)).map_err(|_| self.reason())
            }
            Socket::Rep(rep) => {
                self.check()?;
                rep.try_recv().map(|request| request.map(Delivery::acked)).map_err(|_| self.reason())
            }
        }
    }

    /// Appends what is there to `to`: at least one message, at most `most`. Returns how many. Faster than one by one.
    ///
    /// # Errors
    /// As [`Member::recv`].
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv_many(&self, to: &mut Vec<Delivery>, most: usize) -> Result<usize> {
        match &self.socket {
            Socket::Pull(pull) => {
                let mut bodies = Vec::new();
                let count = pull.recv_many(&mut bodies, most).await.map_err(|_| self.reason())?;
                to.extend(bodies.into_iter().map(Delivery::plain));
                Ok(count)
            }
            Socket::Rep(rep) => {
                self.check()?;
                let mut requests = Vec::new();
                let count = rep.recv_many(&mut requests, most).await.map_err(|_| self.reason())?;
                to.extend(requests.into_iter().map(Delivery::acked));
                Ok(count)
            }
        }
    }

    fn check(&self) -> Result<()> {
        if self.status.borrow().state == MemberState::Ended { Err(self.reason()) } else { Ok(()) }
    }

    /// Why nothing comes any more.
    fn reason(&self) -> Error {
        let problem = self.status.borrow().problem.clone();
        problem.unwrap_or_else(|| Error::Left { group: self.group().to_owned() })
    }

    /// How it stands now. No RPC.
    #[must_use]
    pub fn status(&self) -> MemberStatus {
        self.status.borrow().clone()
    }

    /// Waits until its status fulfils a condition; at once when it does. It ends with any status when the member does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn until(&self, mut condition: impl FnMut(&MemberStatus) -> bool) -> MemberStatus {
        let mut status = self.status.subscribe();
        let reached = |status: &MemberStatus| status.state == MemberState::Ended || condition(status);
        match status.wait_for(reached).await {
            Ok(status) => status.clone(),
            // This keeps the sender.
            Err(_) => self.status(),
        }
    }

    /// Leaves the group, at once: deletes its key, ends its connections, frees its task. May be called more than once. One
    /// RPC. Ends within [`Session::time_to_close`](sereno_core::Session::time_to_close), with etcd gone too.
    ///
    /// What had come and was not received: at most once, it can still be received; at least once, it is given back and goes
    /// to another member, and so does what was received and not acknowledged.
    ///
    /// # Errors
    /// As any call, when the key could not be deleted: it ends with the session's lease.
    ///
    /// # Cancel safety
    /// Cancel safe once polled: the operation continues in the background.
    pub async fn leave(&self) -> Result<()> {
        self.stop.cancel();
        let mut done = self.done.subscribe();
        match done.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("destination", &self.destination())
            .field("group", &self.group())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
