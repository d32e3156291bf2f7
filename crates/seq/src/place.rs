//! What is known of one member of this process: by itself, and by its group's view.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sereno_core::{Epoch, Key, LostReason};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::group::Group;
use crate::options::Assignment;
use crate::position::{Invalid, Position, Standing};
use crate::roster::Roster;
use crate::share::{self, Share};

/// One member, for its handle, its task, its streams and its claims.
pub(crate) struct Place {
    number: u64,
    pub(crate) roster: Arc<Roster>,
    pub(crate) assignment: Assignment,
    own: Mutex<Own>,
    /// Rings when what it is told changes. Those who wait are woken in the order in which they came.
    news: Notify,
    /// Rings when it gets a slot or loses it.
    slot: Notify,
}

/// The member's own part, as far as its task knows.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) name: Arc<str>,
    pub(crate) key: Key,
    phase: Phase,
    /// How the last stay ended.
    lost: Invalid,
    /// Slots it may have written since it had one for certain.
    reached: Vec<usize>,
    /// What was last told.
    told: Told,
    /// Whether it has its slot, under stable assignment.
    placed: bool,
}

#[derive(Debug, Clone)]
enum Phase {
    /// The seat was written under this epoch, last at this revision.
    Seated {
        epoch: Epoch,
        written: i64,
    },
    Away(Invalid),
    /// For good.
    Over(Invalid),
}

/// A standing, and whether it is the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) standing: Standing,
    pub(crate) over: bool,
}

/// A seat that is there as far as is known, with the view it was found in.
#[derive(Debug, Clone)]
pub(crate) struct Seated {
    pub(crate) position: Position,
    pub(crate) epoch: Epoch,
    pub(crate) seat: Key,
    pub(crate) seat_modified: i64,
    pub(crate) view: Arc<Group>,
}

impl Place {
    pub(crate) fn new(
        number: u64,
        roster: Arc<Roster>,
        assignment: Assignment,
        name: Arc<str>,
        key: Key,
    ) -> Arc<Self> {
        let phase = Phase::Away(Invalid::Unplaced);
        let told = Told { standing: Err(Invalid::Unplaced), over: false };
        let own = Own { name, key, phase, lost: Invalid::SeatLost, reached: Vec::new(), told, placed: false };
        let place = Arc::new(Self {
            number,
            roster: roster.clone(),
            assignment,
            own: Mutex::new(own),
            news: Notify::new(),
            slot: Notify::new(),
        });
        roster.enrol(number, &place);
        place
    }

    /// How it stands now, by the clock and by the latest view. No RPC.
    pub(crate) fn look(&self) -> Told {
        let own = self.own();
        let standing = own.seated(self.assignment, &self.roster.view()).map(|seated| seated.position);
        Told { standing, over: matches!(own.phase, Phase::Over(_)) }
    }

    pub(crate) fn seated(&self) -> std::result::Result<Seated, (Invalid, bool)> {
        let own = self.own();
        let over = matches!(own.phase, Phase::Over(_));
        own.seated(self.assignment, &self.roster.view()).map_err(|invalid| (invalid, over))
    }

    /// Waits for something to be told that could not be looked at when this was first polled.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// As [`Place::news`], for getting a slot and losing it.
    pub(crate) fn slot(&self) -> Notified<'_> {
        self.slot.notified()
    }

    /// Whether it has its slot, as far as was told.
    pub(crate) fn placed(&self) -> bool {
        self.own().placed
    }

    /// How the last stay ended, for those who only saw the next one.
    pub(crate) fn lost(&self) -> Invalid {
        self.own().lost
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.own().name.clone()
    }

    pub(crate) fn key(&self) -> Key {
        self.own().key.clone()
    }

    /// Tells what changed, if anything did. The last word is always by the latest view: both are looked at under one lock.
    pub(crate) fn refresh(&self) {
        self.tell(&mut self.own());
    }

    fn tell(&self, own: &mut Own) {
        let view = self.roster.view();
        let seated = own.seated(self.assignment, &view);
        let placed = match &own.phase {
            Phase::Seated { epoch, .. } => view.slot_of(&own.name, epoch).is_some(),
            _ => true,
        };
        let told = Told {
            standing: seated.map(|seated| seated.position),
            over: matches!(own.phase, Phase::Over(_)),
        };
        if own.told != told {
            own.told = told;
            self.news.notify_waiters();
        }
        if std::mem::replace(&mut own.placed, placed) != placed {
            self.slot.notify_waiters();
        }
    }

    /// The seat is there.
    pub(crate) fn sit(&self, epoch: &Epoch, written: i64) {
        self.change(|own| own.phase = Phase::Seated { epoch: epoch.clone(), written });
    }

    /// The seat, or what it stood on, is not there.
    pub(crate) fn away(&self, why: Invalid) {
        self.change(|own| {
            own.phase = Phase::Away(why);
            own.lost = why;
        });
    }

    /// Another seat is taken.
    pub(crate) fn rename(&self, name: Arc<str>, key: Key) {
        self.change(|own| (own.name, own.key) = (name, key));
    }

    /// No position from here on. The first reason counts.
    pub(crate) fn end(&self, why: Invalid) {
        self.roster.strike(self.number);
        self.change(|own| own.phase = Phase::Over(why));
    }

    fn change(&self, change: impl FnOnce(&mut Own)) {
        let mut own = self.own();
        if !matches!(own.phase, Phase::Over(_)) {
            change(&mut own);
            self.tell(&mut own);
        }
    }

    /// The revision at which the seat was last written by its keeper.
    pub(crate) fn written(&self) -> i64 {
        match self.own().phase {
            Phase::Seated { written, .. } => written,
            _ => i64::MAX,
        }
    }

    /// A slot may be written from here on.
    pub(crate) fn reach(&self, slot: usize) {
        let mut own = self.own();
        if !own.reached.contains(&slot) {
            own.reached.push(slot);
        }
    }

    /// This slot was written, and so no copy of an earlier transaction can be any more.
    pub(crate) fn reached(&self, slot: usize) {
        self.own().reached.retain(|known| *known == slot);
    }

    pub(crate) fn slots(&self) -> Vec<usize> {
        self.own().reached.clone()
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    fn seated(&self, assignment: Assignment, view: &Arc<Group>) -> std::result::Result<Seated, Invalid> {
        let (epoch, written) = match &self.phase {
            Phase::Over(why) | Phase::Away(why) => return Err(*why),
            Phase::Seated { epoch, written } => (epoch, *written),
        };
        if !epoch.is_valid() {
            return Err(Invalid::epoch_lost(epoch.ended().unwrap_or(LostReason::Deadline)));
        }
        if !view.followed {
            return Err(Invalid::Unwatched);
        }
        let (rank, seat) = match view.seats.rank(&self.name) {
            Some((rank, seat)) if seat.modified >= written => (rank, seat),
            // What the view says is from before.
            _ if view.revision < written => return Err(Invalid::Unplaced),
            _ => return Err(Invalid::SeatLost),
        };
        let (index, taken, me, all) = match assignment {
            Assignment::Compact => (rank, seat.created, share::of_seat(&self.name), &view.seats.shares),
            Assignment::Stable => {
                let (slot, taken) = view.slot_of(&self.name, epoch).ok_or(Invalid::Unplaced)?;
                (slot, taken, share::of_slot(slot), &view.slots.shares)
            }
        };
        let position = Position {
            index,
            count: all.len(),
            epoch: epoch.number(),
            since: seat.created,
            revision: view.revision,
            taken,
            share: Share { me, all: all.clone() },
        };
        let seat_modified = seat.modified;
        Ok(Seated {
            position,
            epoch: epoch.clone(),
            seat: self.key.clone(),
            seat_modified,
            view: view.clone(),
        })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("own", &*self.own()).finish_non_exhaustive()
    }
}
