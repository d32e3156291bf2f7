//! What is counted: each verb decides on the state it finds, and the decision is carried out exactly once.

use std::sync::Arc;

use sereno_core::{Cells, CellsOptions, Client, Op, Session, Tally, TallyChange, Verdict, View, Watcher};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::roster::Roster;
use crate::state::State;

/// What the verbs and the workers stand on. Clones are the same group.
#[derive(Clone)]
pub(crate) struct Group {
    keys: Arc<Keys>,
    cells: Cells,
}

impl Group {
    pub(crate) fn new(session: &Session, keys: Keys) -> Self {
        let cells = Cells::new(session, keys.root(), CellsOptions::default());
        Self { keys: Arc::new(keys), cells }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn session(&self) -> &Session {
        self.cells.session()
    }

    pub(crate) fn client(&self) -> &Client {
        self.session().client()
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

    /// Removes everything, unless something is outstanding and it is not forced. Signs of entering that was given up stay: they
    /// go with their sessions, and refuse late copies until then.
    pub(crate) async fn remove(&self, forced: bool) -> Result<bool> {
        let keys = self.keys.clone();
        let decide = move |state: &State| {
            let change = state.removed(forced)?;
            let ops = vec![Op::delete_prefix(keys.workers()), Op::delete_prefix(keys.alive_ones())];
            Ok((change, ops, change.is_some()))
        };
        // Nobody would look for the cells of the dead again.
        self.cells.exact_after_folding(self.verdict(decide)).await?
    }

    /// Decides on the state of the group, as often as it takes until nobody else has changed it meanwhile; no change is
    /// made when the decision has none.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnMut(&State) -> Result<(Option<TallyChange>, Vec<Op>, T)> + Send + 'static,
    ) -> Result<T> {
        self.cells.exact(self.verdict(decide)).await?
    }

    fn verdict<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&State) -> Result<(Option<TallyChange>, Vec<Op>, T)> + Send + 'static,
    ) -> impl FnMut(&Tally) -> Verdict<Result<T>> + Send + 'static {
        let keys = self.keys.clone();
        move |tally| match decide(&state(&keys, tally)) {
            Ok((Some(change), ops, result)) => Verdict::Apply { change, ops, result: Ok(result) },
            Ok((None, _, result)) => Verdict::Refuse(Ok(result)),
            Err(error) => Verdict::Refuse(Err(error)),
        }
    }
}

fn state(keys: &Keys, tally: &Tally) -> State {
    let entries = tally.entries.iter().map(|kv| (&kv.key, kv.value.as_ref()));
    State {
        generation: tally.generation,
        removals: tally.removals,
        exists: tally.base_revision > 0,
        value: tally.value,
        roster: Roster::read(keys, entries),
    }
}
