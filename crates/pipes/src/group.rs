//! The handle of a group.

use std::fmt;

use sereno_core::{CancellationToken, Session};
use tokio::sync::{oneshot, watch};

use crate::error::Result;
use crate::follower::Follower;
use crate::keys::Keys;
use crate::line::{Line, Socket};
use crate::member::{Member, MemberStatus};
use crate::options::GroupOptions;

/// A group of a destination, to be joined: of every message that is sent to the destination, one of its members gets it.
///
/// Making one does nothing; clones are the same group. Names may have any characters, and 1 to 255 bytes.
#[derive(Clone)]
pub struct Group {
    session: Session,
    destination: String,
    name: String,
    options: GroupOptions,
}

impl Group {
    /// The group of that name, with default options. No I/O.
    pub fn new(session: &Session, destination: impl Into<String>, name: impl Into<String>) -> Self {
        Self::with_options(session, destination, name, GroupOptions::default())
    }

    /// As [`Group::new`], with options. No I/O.
    pub fn with_options(
        session: &Session,
        destination: impl Into<String>,
        name: impl Into<String>,
        options: GroupOptions,
    ) -> Self {
        Self { session: session.clone(), destination: destination.into(), name: name.into(), options }
    }

    /// The destination's name.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins the group, beside the members it has. Waits until somebody has registered the destination, without a trace in
    /// etcd, and then until it has opened the group: every message that is sent after this returned goes to the group. Four
    /// RPCs.
    ///
    /// # Errors
    /// [`Error::ModeMismatch`](crate::Error::ModeMismatch) when the group has another mode;
    /// [`Error::NoDestination`](crate::Error::NoDestination) after [`GroupOptions::wait`]; names that are empty or too long;
    /// a session that is lost meanwhile; as any call of the core.
    ///
    /// # Cancel safety
    /// When the future is dropped, the group is not joined; a key that was written is deleted again.
    pub async fn join(&self) -> Result<Member> {
        let client = self.session.client();
        let keys = Keys::new(client, &self.destination)?;
        let group = keys.group(&self.name)?;
        let key = group.member(&format!("{}-{}", self.session.epoch().id(), self.session.serial()))?;
        let socket = Socket::new(&self.options);
        let stop = CancellationToken::new();
        let (status, done) = (watch::Sender::new(MemberStatus::default()), watch::Sender::new(None));
        let (first, begun) = oneshot::channel();
        let follower = Follower {
            client: client.clone(),
            session: self.session.downgrade(),
            destination: self.destination.clone(),
            name: self.name.clone(),
            owner: keys.owner,
            group,
            key,
            options: self.options.clone(),
            line: Line::new(socket.clone(), self.options.linger),
            status: status.clone(),
            done: done.clone(),
            stop: stop.clone(),
            first: Some(first),
        };
        // Made before waiting: when this future is dropped, so is the member, and the task ends.
        let member = Member::new(self.clone(), self.session.clone(), socket, stop, status, done);
        self.session.spawn(|closing| follower.run(closing));
        begun.await.map_err(|_| sereno_core::Error::Stopped)??;
        Ok(member)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("destination", &self.destination)
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
