//! The handle of a group.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use sereno_core::{CancellationToken, Session};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::handler::{self, Handler};
use crate::keys::Keys;
use crate::member::Member;
use crate::options::{Assignment, SequenceOptions};
use crate::place::Place;
use crate::position::{Invalid, Standing};
use crate::roster::Roster;
use crate::seat::{self, Keeper};

/// A group whose members know who they are among how many.
///
/// Making one does nothing; clones are the same group. Names may have any characters, and 1 to 255 bytes. Descends from
/// etcdseq (Go).
#[derive(Clone)]
pub struct Sequence {
    session: Session,
    group: String,
    options: SequenceOptions,
}

impl Sequence {
    /// The group of that name, with default options. No I/O.
    pub fn new(session: &Session, group: impl Into<String>) -> Self {
        Self::with_options(session, group, SequenceOptions::default())
    }

    /// As [`Sequence::new`], with options. No I/O.
    pub fn with_options(session: &Session, group: impl Into<String>, options: SequenceOptions) -> Self {
        Self { session: session.clone(), group: group.into(), options }
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Joins the group as its latest member. When this returns the member has its first position. A process may join more
    /// than once: all members of one session share a watch.
    ///
    /// One write, and for the first member of a session in the group one read per 1,000 keys, at the same time; one more
    /// write under stable assignment.
    ///
    /// # Errors
    /// [`Error::OtherAssignment`]; [`Error::NoPosition`] when the client's deadline passed; names that are empty or too long;
    /// as any call of the core. A member that could not join is not in the group: what may have been written is
    /// taken back in the background.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the group, in the background.
    pub async fn join(&self) -> Result<Member> {
        let client = self.session.client();
        let deadline = Instant::now() + client.deadline();
        let assignment = self.options.assignment;
        let keys = Keys::new(client, &self.group)?;
        let roster = Roster::of(&self.session, &keys);
        let (name, key) = seat::name(&self.session, &keys)?;
        let place = Place::new(self.session.serial(), roster.clone(), assignment, name, key);
        let leave = CancellationToken::new();
        let (gone, watched) = watch::channel(None);
        let (first, seated) = oneshot::channel();
        self.session.spawn(|closing| {
            let (place, leave, on_loss) = (place.clone(), leave.clone(), self.options.on_loss);
            let session = self.session.downgrade();
            Keeper { place, session, on_loss, leave, closing, gone }.run(self.session.clone(), first)
        });
        // Made before waiting: if this future is dropped, so is the member.
        let member = Member::new(self.group.clone(), place.clone(), leave, watched, self.session.clone());
        let seated = async { seated.await.map_err(|_| Error::Invalid(Invalid::Closed))? };
        tokio::try_join!(roster.open(&self.session), seated)?;
        match tokio::time::timeout_at(deadline, standing(&place)).await {
            Ok(standing) => standing?,
            Err(_) => {
                return Err(Error::NoPosition { group: self.group.clone(), deadline: client.deadline() });
            }
        };
        match other_assignment(&place) {
            Some(found) => Err(Error::OtherAssignment { group: self.group.clone(), found }),
            None => Ok(member),
        }
    }

    /// As [`Sequence::join`], with a handler that is told the first position, every change, and at last why there is no position
    /// any more.
    ///
    /// # Errors
    /// As [`Sequence::join`].
    ///
    /// # Cancel safety
    /// As [`Sequence::join`].
    pub async fn join_with(&self, handler: impl Handler) -> Result<Member> {
        let member = self.join().await?;
        // Not a task of the session: closing it does not wait for what a handler does.
        tokio::spawn(handler::deliver(member.positions(), Arc::new(handler)));
        Ok(member)
    }
}

/// Waits for a member's first position.
async fn standing(place: &Place) -> Standing {
    loop {
        let mut news = pin!(place.news());
        // From here on nothing is missed.
        news.as_mut().enable();
        let told = place.look();
        if told.over || told.standing.is_ok() {
            return told.standing;
        }
        news.await;
    }
}

/// What the members before this one use, if it is something else.
fn other_assignment(place: &Place) -> Option<Assignment> {
    let view = place.roster.view();
    let (rank, _) = view.seats.rank(&place.name())?;
    let mut earlier = view.seats.order.get(..rank)?.iter().filter_map(|seat| seat.assignment);
    earlier.find(|other| *other != place.assignment)
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("group", &self.group)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
