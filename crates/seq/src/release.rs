//! Giving a claim's key back.

use sereno_core::{Client, Compare, Epoch, Key, Op, Txn};

/// A claim's key that is not wanted any more.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) key: Key,
    pub(crate) token: i64,
    pub(crate) epoch: Epoch,
}

impl Release {
    /// Deletes the key unless it is gone or another's by now. One RPC.
    pub(crate) async fn once(&self, client: &Client) -> sereno_core::Result<()> {
        let delete = Txn::new().when(Compare::created_at(&self.key, self.token)).then(Op::delete(&self.key));
        client.settle(&delete).await.map(|_| ())
    }

    /// As [`Release::once`], for as long as the key's epoch lives: after that it is gone by itself.
    pub(crate) async fn persist(self, client: &Client) {
        let done = client.persist(&self.epoch, async || match self.once(client).await {
            Ok(()) => Some(()),
            Err(error) => {
                tracing::debug!(%error, key = %self.key, "releasing a claim");
                None
            }
        });
        drop(done.await);
    }
}
