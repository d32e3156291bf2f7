//! The handle of a counter.

use std::fmt;

use sereno_core::{Cells, Error as CoreError, KeyError, Session, Tally, TallyChange, Verdict};

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::keys;
use crate::options::CounterOptions;

/// A number that many processes count at.
///
/// Cheap to clone; all handles of one session for one name work as one, and what they do at the same time shares round
/// trips. A counter that nobody has written to is 0.
#[derive(Clone)]
pub struct Counter {
    cells: Result<Cells, KeyError>,
}

impl Counter {
    /// The counter of that name. No I/O; a name that cannot be (empty, longer than 255 bytes) is reported by the verbs.
    #[must_use]
    pub fn new(session: &Session, name: impl AsRef<str>) -> Self {
        Self::with_options(session, name, CounterOptions::default())
    }

    /// As [`Counter::new`], with options. While a session has several handles for a name, those of the first hold.
    #[must_use]
    pub fn with_options(session: &Session, name: impl AsRef<str>, options: CounterOptions) -> Self {
        let prefix = keys::prefix(session.client().namespace(), name.as_ref());
        Self { cells: prefix.map(|prefix| Cells::new(session, &prefix, options.cells())) }
    }

    /// Adds `n`, which may be negative, exactly once, and gives the value right after it and before any other: when all
    /// add 1, no two are ever given the same. Calls made at the same time share one RPC; a few more after a fault.
    ///
    /// # Errors
    /// [`Error::Overflow`]; of the core's, [`ValueUnknown`](CoreError::ValueUnknown) when it was applied but the answer
    /// was lost together with the history that held it, [`OutcomeUnknown`](CoreError::OutcomeUnknown) when the client's
    /// deadline passed while it was under way. After all other errors nothing was applied.
    ///
    /// # Cancel safety
    /// A future that is dropped before its addition was sent takes it back; after that it is applied or not, and never
    /// twice.
    pub async fn add(&self, n: i64) -> Result<i64> {
        Ok(self.cells()?.add(n).await??.value)
    }

    /// The value now, linearizably: every addition that has returned is in it. One RPC.
    ///
    /// # Errors
    /// As any read; [`Malformed`](CoreError::Malformed) when something else is stored there.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn get(&self) -> Result<i64> {
        let cells = self.cells()?;
        value(cells, &cells.read().await?)
    }

    /// Makes the value `value` whatever it is; additions of others do not hinder it. One RPC.
    ///
    /// # Errors
    /// As [`Counter::add`], without the overflow.
    ///
    /// # Cancel safety
    /// As [`Counter::add`].
    pub async fn set(&self, value: i64) -> Result<()> {
        self.cells()?.set(value).await?;
        Ok(())
    }

    /// Makes the value `new` if it is `expected`. One or two RPCs, one more for each change of somebody else in between.
    ///
    /// # Errors
    /// [`Error::Mismatch`]; of the core's, as [`Counter::add`], and [`Contended`](CoreError::Contended) when others changed
    /// something each time until the deadline, and always back to `expected`.
    ///
    /// # Cancel safety
    /// As [`Counter::add`].
    pub async fn compare_and_set(&self, expected: i64, new: i64) -> Result<()> {
        let cells = self.cells()?;
        let decide = move |tally: &Tally| match tally.value == i128::from(expected) {
            true => Verdict::Apply { change: TallyChange::Set(new), ops: Vec::new(), result: None },
            false => Verdict::Refuse(Some(tally.clone())),
        };
        match cells.exact(decide).await? {
            None => Ok(()),
            Some(tally) => Err(Error::Mismatch { expected, actual: value(cells, &tally)? }),
        }
    }

    /// A stream of the values, beginning with the present one. One RPC, then none: all watches of a client share a stream.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self) -> Result<Changes> {
        let cells = self.cells()?;
        Ok(Changes::new(cells.clone(), cells.watch().await?))
    }

    /// Removes the counter, unless another session has added to it within the last five seconds and lives. `false` when there
    /// was none. Four RPCs, one more for each change of somebody else in between.
    ///
    /// A counter that is removed is 0, and counts again from there when somebody adds to it. Its keys are gone when the sessions
    /// that have added are idle for five seconds, but for one that refuses late copies of earlier additions: that goes after
    /// ten minutes. Watches yield 0 and go on.
    ///
    /// ```no_run
    /// # async fn f(nightly: &sereno_counter::Counter) -> sereno_counter::Result<()> {
    /// println!("{} rows in all", nightly.get().await?);
    /// nightly.remove().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`]; of the core's, as [`Counter::compare_and_set`].
    ///
    /// # Cancel safety
    /// As [`Counter::add`]. Calling it again is harmless.
    pub async fn remove(&self) -> Result<bool> {
        self.removal(false).await
    }

    /// As [`Counter::remove`], whoever uses it. What others add at the same time is counted before the removal or after it.
    ///
    /// # Errors
    /// As [`Counter::remove`], without [`Error::InUse`].
    ///
    /// # Cancel safety
    /// As [`Counter::remove`].
    pub async fn remove_forced(&self) -> Result<bool> {
        self.removal(true).await
    }

    async fn removal(&self, forced: bool) -> Result<bool> {
        let cells = self.cells()?;
        let session = cells.session().clone();
        let decide = move |tally: &Tally| {
            let own = session.epoch();
            let sessions = tally.epochs.iter().filter(|epoch| *epoch != own.id()).count();
            if tally.base_revision == 0 && tally.value == 0 {
                return Verdict::Refuse(Ok(false));
            }
            if sessions > 0 && !forced {
                return Verdict::Refuse(Err(Error::InUse { sessions }));
            }
            Verdict::Apply { change: TallyChange::Remove, ops: Vec::new(), result: Ok(true) }
        };
        cells.exact_after_folding(decide).await?
    }

    fn cells(&self) -> Result<&Cells> {
        self.cells.as_ref().map_err(|error| CoreError::InvalidKey(error.clone()).into())
    }
}

/// The value as users know it.
pub(crate) fn value(cells: &Cells, tally: &Tally) -> Result<i64> {
    i64::try_from(tally.value).map_err(|_| {
        let reason = format!("the sum {} is outside of i64", tally.value);
        CoreError::Malformed { key: cells.prefix().to_string(), reason }.into()
    })
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("at", &self.cells.as_ref().map(Cells::prefix)).finish_non_exhaustive()
    }
}
