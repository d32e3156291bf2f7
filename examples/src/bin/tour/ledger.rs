//! Who works on which batch, and what came of it: the part of the job that is in no recipe, on the core's transactions.
//!
//! ```text
//! sereno/tour/<job>/
//!   claims/<batch>    the epoch of the worker that is at it; leased: gone when the worker is
//!   records/<batch>   {"worker":"w2","figures":[16,812,3204,29114],"longest":[…]}; written once, never changed
//! ```

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sereno_core::{Client, Compare, Epoch, Key, Op, Prefix, Txn, View, Watcher};

use crate::figures::{Figures, Longest};

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) worker: String,
    pub(crate) figures: Figures,
    pub(crate) longest: Longest,
}

/// The claims and records of one job.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    client: Client,
    root: Prefix,
    claims: Prefix,
    records: Prefix,
}

impl Ledger {
    pub(crate) fn new(client: &Client, job: &str) -> anyhow::Result<Self> {
        let root = client.namespace().prefix("tour")?.join(job)?;
        let (claims, records) = (root.join("claims")?, root.join("records")?);
        Ok(Self { client: client.clone(), root, claims, records })
    }

    /// Claims a batch that nobody has claimed and that is not recorded; `false` when it is not to be had.
    pub(crate) async fn claim(&self, batch: usize, epoch: &Epoch) -> anyhow::Result<bool> {
        let (claim, record) = self.keys(batch)?;
        let txn = Txn::new()
            .when(Compare::absent(&claim))
            .when(Compare::absent(&record))
            .then(Op::put_leased(&claim, epoch.id().to_owned(), epoch))
            .otherwise(Op::get(&claim));
        let settled = self.client.settle(&txn).await?;
        // A first copy may have done it, whose answer was lost.
        let is_mine = || settled.reply.entry(0).is_some_and(|kv| kv.value == epoch.id());
        Ok(settled.reply.succeeded || is_mine())
    }

    /// Records a batch that is claimed under `epoch`; `false` when it is not any more, and then nothing was done.
    pub(crate) async fn record(&self, batch: usize, epoch: &Epoch, new: &Record) -> anyhow::Result<bool> {
        let (claim, record) = self.keys(batch)?;
        let txn = Txn::new()
            .when(Compare::owned_by(&claim, epoch))
            .when(Compare::absent(&record))
            .then(Op::put(&record, serde_json::to_vec(new)?))
            .then(Op::delete(&claim))
            .otherwise(Op::get(&record));
        let settled = self.client.settle(&txn).await?;
        if settled.reply.succeeded {
            return Ok(true);
        }
        let there =
            settled.reply.entry(0).map(|kv| serde_json::from_slice::<Record>(&kv.value)).transpose()?;
        Ok(there.is_some_and(|there| there.worker == new.worker))
    }

    /// Everything that is recorded, in the order in which it was.
    pub(crate) async fn records(&self) -> anyhow::Result<Vec<Record>> {
        let mut entries = self.client.range(&self.records).await?.entries;
        entries.sort_by_key(|kv| kv.create_revision);
        let read = |kv: sereno_core::KeyValue| {
            serde_json::from_slice(&kv.value).with_context(|| format!("cannot read {}", kv.key))
        };
        entries.into_iter().map(read).collect()
    }

    /// Follows claims and records; [`Ledger::open`] makes sense of the view.
    pub(crate) async fn watch(&self) -> anyhow::Result<Watcher> {
        Ok(self.client.watch(&self.root).await?)
    }

    /// Of `batches` batches, those that are not recorded, each with whether it is free to be claimed.
    pub(crate) fn open(&self, view: &View, batches: usize) -> anyhow::Result<BTreeMap<usize, bool>> {
        let mut open = BTreeMap::new();
        for batch in 0..batches {
            let (claim, record) = self.keys(batch)?;
            if view.get(&record).is_none() {
                open.insert(batch, view.get(&claim).is_none());
            }
        }
        Ok(open)
    }

    fn keys(&self, batch: usize) -> anyhow::Result<(Key, Key)> {
        let name = format!("{batch:06}");
        Ok((self.claims.key(&name)?, self.records.key(&name)?))
    }
}
