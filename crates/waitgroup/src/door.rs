//! Entering and leaving, without a queue at the door.
//!
//! Entering needs no agreement with anyone: a release is made on condition that nothing was put below the group's prefix
//! since it was decided, so a worker enters before it, and prevents it, or after it.
//!
//! Leaving does: two who leave at once, each counting on the other, would leave an empty group that nobody released. So
//! whoever leaves does it on condition that a certain other one, the *witness*, is still inside. Then the group is not
//! empty afterwards, and the last one finds no witness: it leaves by a decision on the whole group, which is serialised
//! with everything that is counted.

use std::sync::atomic::{AtomicBool, Ordering};

use sereno_core::{Compare, Epoch, Key, LostReason, Once, Op, Step, Txn, chance};

use crate::error::{Error, Result};
use crate::group::Group;
use crate::roster::{Died, Record};
use crate::state::State;

/// Dead taken out by one transaction: well below etcd's limit of operations.
const BURIALS: usize = 64;
/// A worker's place in a group. Its id is used once: nobody else ever writes these keys.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) id: String,
    pub(crate) epoch: Epoch,
    record: Key,
    alive: Key,
    withdrawn: Key,
}

/// Those who are to be taken out together.
#[derive(Clone)]
struct Party {
    ids: Vec<String>,
    alive: bool,
    then: Vec<Op>,
    when: Vec<Compare>,
}

/// What became of one attempt to take a party out.
enum Exit {
    Out,
    /// Not by this attempt: something was in the way. `perhaps` by an earlier copy of it.
    No {
        perhaps: bool,
    },
}

impl Group {
    /// The place of a worker of that epoch.
    pub(crate) fn seat(&self, epoch: Epoch, number: u64) -> Result<Seat> {
        let id = format!("{}-{number}", epoch.id());
        let keys = self.keys();
        let (record, alive, withdrawn) = (keys.worker(&id)?, keys.alive(&id)?, keys.withdrawn(&id)?);
        Ok(Seat { id, epoch, record, alive, withdrawn })
    }

    /// One RPC.
    pub(crate) async fn enter(&self, seat: &Seat, label: &str) -> Result<()> {
        let record = Record { label: label.to_owned(), epoch: seat.epoch.id().to_owned() }.to_bytes()?;
        let enter = Txn::new()
            .when(seat.epoch.fence())
            .when(Compare::absent(&seat.record))
            .when(Compare::absent(&seat.withdrawn))
            .then(Op::put(&seat.record, record.clone()))
            .then(Op::put_leased(&seat.alive, record, &seat.epoch));
        // Exactly once: a copy that came late, after the worker has left, would let a ghost in.
        let Once::Applied { .. } = self.session().commit_once(enter).await? else {
            return Err(seat.lost(LostReason::Expired).into());
        };
        Ok(())
    }

    /// For a worker of which it is not known whether it entered: it shall not have. One RPC, as long as it had not.
    pub(crate) async fn withdraw(&self, seat: &Seat) -> Result<()> {
        // Bars the door to copies of its entering that are still on their way, for as long as they could come in.
        let bar = Txn::new()
            .when(seat.epoch.fence())
            .then(Op::put_leased(&seat.withdrawn, "", &seat.epoch))
            .then(Op::get(&seat.record));
        let reply = Box::pin(self.client().settle(&bar)).await?.reply;
        match reply.entry(1) {
            Some(_) => self.leave(seat, true).await,
            None => Ok(()),
        }
    }

    /// The worker died: only its sign of life goes. One RPC.
    pub(crate) async fn die(&self, seat: &Seat) -> Result<()> {
        let death = Txn::new().when(Compare::exists(&seat.alive)).then(Op::delete(&seat.alive));
        Box::pin(self.client().settle(&death)).await?;
        Ok(())
    }

    /// Takes a living worker out: it is done. `uncertain` when an earlier attempt may have done so. Two RPCs.
    pub(crate) async fn leave(&self, seat: &Seat, uncertain: bool) -> Result<()> {
        let party = Party {
            ids: vec![seat.id.clone()],
            alive: true,
            then: vec![Op::delete(&seat.record), Op::delete(&seat.alive)],
            when: vec![seat.epoch.fence(), Compare::exists(&seat.record), Compare::exists(&seat.alive)],
        };
        let gone = AtomicBool::new(uncertain);
        self.rounds(|| async {
            // With its session it has lost the right to say so: others have been told that it died, or will be.
            seat.epoch.check()?;
            let others = self.others(seat).await?;
            let perhaps = match self.take_out(others, &party).await? {
                Exit::Out => return Ok(Step::Done(())),
                Exit::No { perhaps } => perhaps,
            };
            let perhaps = gone.fetch_or(perhaps, Ordering::Relaxed) || perhaps;
            let look = Txn::new().then(Op::get(&seat.record)).then(Op::get(&seat.alive));
            let look = Box::pin(self.client().settle(&look)).await?.reply;
            match (look.entry(0), look.entry(1)) {
                (Some(_), Some(_)) => Ok(Step::Conflict),
                (None, _) if perhaps => Ok(Step::Done(())),
                _ => Err(self.dismissed(seat).await),
            }
        })
        .await
    }

    /// Some of the others inside; none only if there are none. One RPC, and a second one for the one who has been inside
    /// for longest.
    async fn others(&self, seat: &Seat) -> Result<Vec<String>> {
        let other = |key: &Key| self.keys().worker_of(key).filter(|id| *id != seat.id);
        let workers = self.keys().workers();
        if let Some(oldest) = Box::pin(self.client().oldest(workers)).await?
            && let Some(id) = other(&oldest.key)
        {
            return Ok(vec![id]);
        }
        let all = Box::pin(self.client().range_keys(workers)).await?;
        Ok(all.entries.iter().filter_map(|kv| other(&kv.key)).collect())
    }

    /// Why a worker is no longer there, or no longer alive: its session's end, or somebody's doing.
    async fn dismissed(&self, seat: &Seat) -> Error {
        match self.session().verify().await {
            Err(error) => error.into(),
            Ok(epoch) if epoch.number() != seat.epoch.number() => seat.lost(LostReason::Expired).into(),
            Ok(_) => Error::Dismissed { id: seat.id.clone() },
        }
    }

    /// Takes a dead worker out; `false` when there is none of that id. Two RPCs.
    pub(crate) async fn dismiss(&self, id: &str) -> Result<bool> {
        let record = self.keys().worker(id)?;
        let party = Party {
            ids: vec![id.to_owned()],
            alive: false,
            then: vec![Op::delete(&record)],
            when: vec![Compare::exists(&record)],
        };
        let gone = AtomicBool::new(false);
        self.rounds(|| async {
            let state = self.read().await?;
            match state.roster.alive(id) {
                Some(true) => return Err(Error::WorkerAlive { id: id.to_owned() }),
                Some(false) => {}
                None => return Ok(Step::Done(gone.load(Ordering::Relaxed))),
            }
            Ok(match self.take_out(outside(&state, &party), &party).await? {
                Exit::Out => Step::Done(true),
                Exit::No { perhaps } => {
                    gone.fetch_or(perhaps, Ordering::Relaxed);
                    Step::Conflict
                }
            })
        })
        .await
    }

    /// Takes out those of `died` that are still there. Two RPCs for every 64.
    pub(crate) async fn bury(&self, died: &[Died]) -> Result<()> {
        for some in died.chunks(BURIALS) {
            self.rounds(|| async {
                let state = self.read().await?;
                let dead = some.iter().filter(|died| state.roster.alive(&died.id) == Some(false));
                let ids: Vec<String> = dead.map(|died| died.id.clone()).collect();
                if ids.is_empty() {
                    return Ok(Step::Done(()));
                }
                let records = ids.iter().map(|id| Ok(Op::delete(&self.keys().worker(id)?)));
                let then = records.collect::<Result<Vec<_>>>()?;
                let party = Party { ids, alive: false, then, when: Vec::new() };
                // Whatever was in the way, the next reading shows who is left.
                Ok(match self.take_out(outside(&state, &party), &party).await? {
                    Exit::Out => Step::Done(()),
                    Exit::No { .. } => Step::Conflict,
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Takes a party out: in front of one of the others as a witness, or as the last ones there.
    async fn take_out(&self, others: Vec<String>, party: &Party) -> Result<Exit> {
        let Some(witness) = any(&others) else { return self.take_out_last(party.clone()).await };
        let witness = Compare::exists(&self.keys().worker(witness)?);
        let txn = party.when.iter().cloned().fold(Txn::new().when(witness), Txn::when);
        let txn = party.then.iter().cloned().fold(txn, Txn::then);
        let settled = Box::pin(self.client().settle(&txn)).await?;
        Ok(if settled.reply.succeeded { Exit::Out } else { Exit::No { perhaps: settled.resent } })
    }

    /// If nothing else is outstanding either, this releases the group.
    async fn take_out_last(&self, party: Party) -> Result<Exit> {
        self.change(move |state| {
            let fits = |id| party.has(id) && state.roster.alive(id) == Some(party.alive);
            if state.roster.is_empty() || !state.roster.ids().all(fits) {
                return Ok((None, Vec::new(), Exit::No { perhaps: false }));
            }
            Ok((Some(state.left(state.roster.len())), party.then.clone(), Exit::Out))
        })
        .await
    }

    /// As often as others get in the way, within the client's deadline.
    async fn rounds<T, F: Future<Output = Result<Step<T>>>>(
        &self,
        mut round: impl FnMut() -> F,
    ) -> Result<T> {
        let settled = self.client().optimistic(|| {
            let round = Box::pin(round());
            async {
                match round.await {
                    Ok(Step::Done(done)) => Ok(Step::Done(Ok(done))),
                    Ok(Step::Conflict) => Ok(Step::Conflict),
                    Err(Error::Core(error)) => Err(error),
                    Err(error) => Ok(Step::Done(Err(error))),
                }
            }
        });
        settled.await?
    }
}

impl Party {
    fn has(&self, id: &str) -> bool {
        self.ids.iter().any(|ours| ours == id)
    }
}

impl Seat {
    /// For that reason, unless the epoch knows better.
    pub(crate) fn lost(&self, reason: LostReason) -> sereno_core::Error {
        let reason = self.epoch.ended().unwrap_or(reason);
        sereno_core::Error::SessionLost { epoch: self.epoch.number(), reason }
    }
}

fn outside(state: &State, party: &Party) -> Vec<String> {
    state.roster.ids().filter(|id| !party.has(id)).map(str::to_owned).collect()
}

/// Not always the same one: a witness that leaves makes those who counted on it look for another.
fn any(others: &[String]) -> Option<&str> {
    others.get(chance::below(others.len())).map(String::as_str)
}
