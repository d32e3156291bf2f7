//! What can happen to a group: each verb decides on the state it finds, and the decision is carried out exactly once.

use std::sync::Arc;

use sereno_core::{
    Cells, CellsOptions, Client, Compare, Epoch, Key, Op, Session, Tally, TallyChange, Txn, Verdict, View,
    Watcher,
};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::roster::{Died, Record, Roster};
use crate::state::State;

/// Dead taken out by one transaction: well below etcd's limit of operations.
const BURIALS: usize = 64;

/// What the verbs and the workers stand on. Clones are the same group.
#[derive(Clone)]
pub(crate) struct Group {
    keys: Arc<Keys>,
    cells: Cells,
}

/// A worker's place in a group.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) id: String,
    pub(crate) epoch: Epoch,
    record: Key,
    alive: Key,
}

impl Group {
    pub(crate) fn new(session: &Session, keys: Keys) -> Self {
        let cells = Cells::new(session, keys.root(), CellsOptions::default());
        Self { keys: Arc::new(keys), cells }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn client(&self) -> &Client {
        self.cells.session().client()
    }

    pub(crate) async fn read(&self) -> Result<State> {
        // On the heap, as whatever waits for a whole call of the client: it is large, and callers hold many.
        Ok(state(&self.keys, &Box::pin(self.cells.read()).await?))
    }

    pub(crate) async fn watch(&self) -> Result<Watcher> {
        Ok(self.cells.watch().await?)
    }

    pub(crate) fn state(&self, view: &View) -> Result<State> {
        Ok(state(&self.keys, &self.cells.tally(view)?))
    }

    pub(crate) async fn add(&self, n: u64) -> Result<()> {
        let Ok(by) = i64::try_from(n) else { return Err(Error::Overflow { added: n }) };
        match self.cells.add(by).await {
            // Applied, and nobody here asks for the value.
            Ok(Ok(_)) | Err(sereno_core::Error::ValueUnknown { .. }) => Ok(()),
            Ok(Err(_)) => Err(Error::Overflow { added: n }),
            Err(error) => Err(error.into()),
        }
    }

    /// Nothing is to be done: releases the group, unless something is.
    pub(crate) async fn declare_empty(&self) -> Result<()> {
        let decide = |state: &State| Ok((state.declared_empty(), Vec::new(), ()));
        self.change(decide).await
    }

    pub(crate) async fn done(&self, n: u64) -> Result<()> {
        self.change(move |state| Ok((Some(state.done(n)?), Vec::new(), ()))).await
    }

    /// The place of a worker of that epoch.
    pub(crate) fn seat(&self, epoch: Epoch, number: u64) -> Result<Seat> {
        let id = format!("{}-{number}", epoch.id());
        let (record, alive) = (self.keys.worker(&id)?, self.keys.alive(&id)?);
        Ok(Seat { id, epoch, record, alive })
    }

    pub(crate) async fn enter(&self, seat: &Seat, label: &str) -> Result<()> {
        let record = Record { label: label.to_owned(), epoch: seat.epoch.id().to_owned() }.to_bytes()?;
        let seat = seat.clone();
        self.change(move |_| {
            seat.epoch.check()?;
            let ops = vec![
                Op::put(&seat.record, record.clone()),
                Op::put_leased(&seat.alive, record.clone(), &seat.epoch),
            ];
            Ok((Some(TallyChange::Keep), ops, ()))
        })
        .await
    }

    /// The worker died: only its sign of life goes.
    pub(crate) async fn die(&self, seat: &Seat) -> Result<()> {
        let death = Txn::new().when(Compare::exists(&seat.alive)).then(Op::delete(&seat.alive));
        self.client().settle(&death).await?;
        Ok(())
    }

    /// Takes a living worker out: it is done. `uncertain` when it is not known whether it is there: an earlier attempt may
    /// have taken it out, or never have put it in.
    pub(crate) async fn leave(&self, seat: &Seat, uncertain: bool) -> Result<()> {
        let seat = seat.clone();
        self.change(move |state| {
            // With its session it has lost the right to say so: others have been told that it died, or will be.
            seat.epoch.check()?;
            let ops = vec![Op::delete(&seat.record), Op::delete(&seat.alive)];
            match state.roster.alive(&seat.id) {
                Some(true) => Ok((Some(state.left(1)), ops, ())),
                // Carried out all the same: after it no copy of the earlier attempt that is still on its way can land.
                None if uncertain => Ok((Some(TallyChange::Keep), ops, ())),
                _ => Err(Error::Dismissed { id: seat.id.clone() }),
            }
        })
        .await
    }

    /// Takes a dead worker out; `false` when there is none of that id.
    pub(crate) async fn dismiss(&self, id: &str) -> Result<bool> {
        let record = self.keys.worker(id)?;
        let id = id.to_owned();
        self.change(move |state| match state.roster.alive(&id) {
            Some(true) => Err(Error::WorkerAlive { id: id.clone() }),
            Some(false) => Ok((Some(state.left(1)), vec![Op::delete(&record)], true)),
            None => Ok((None, Vec::new(), false)),
        })
        .await
    }

    /// Takes out those of `died` that are still there.
    pub(crate) async fn bury(&self, died: &[Died]) -> Result<()> {
        for some in died.chunks(BURIALS) {
            let records = some.iter().map(|died| Ok((died.id.clone(), self.keys.worker(&died.id)?)));
            let records = records.collect::<Result<Vec<_>>>()?;
            self.change(move |state| {
                let dead = records.iter().filter(|(id, _)| state.roster.alive(id) == Some(false));
                let ops: Vec<Op> = dead.map(|(_, record)| Op::delete(record)).collect();
                let change = (!ops.is_empty()).then(|| state.left(ops.len()));
                Ok((change, ops, ()))
            })
            .await?;
        }
        Ok(())
    }

    /// Decides on the state of the group, as often as it takes until nobody else has changed it meanwhile; no change is
    /// made when the decision has none.
    async fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&State) -> Result<(Option<TallyChange>, Vec<Op>, T)> + Send + 'static,
    ) -> Result<T> {
        let keys = self.keys.clone();
        let decide = move |tally: &Tally| match decide(&state(&keys, tally)) {
            Ok((Some(change), ops, result)) => Verdict::Apply { change, ops, result: Ok(result) },
            Ok((None, _, result)) => Verdict::Refuse(Ok(result)),
            Err(error) => Verdict::Refuse(Err(error)),
        };
        self.cells.exact(decide).await?
    }
}

fn state(keys: &Keys, tally: &Tally) -> State {
    let entries = tally.entries.iter().map(|kv| (&kv.key, kv.value.as_ref()));
    State {
        generation: tally.generation,
        exists: tally.base_revision > 0,
        value: tally.value,
        roster: Roster::read(keys, entries),
    }
}
