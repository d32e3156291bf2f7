//! Who has registered a destination: its owner's key, and what is written under its protection.

use sereno_core::{Client, Compare, Epoch, Error, Key, Op, Result, Step, Txn};

use crate::keys::Keys;

/// How many keys are deleted by one transaction.
const CHUNK: usize = 100;

/// A registration that owns the destination's key, or wants to.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    client: Client,
    keys: Keys,
    /// The value of the key: nobody else writes it.
    id: String,
}

/// What became of the wish to own the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours: the key was created at the one revision, and known to be so at the other.
    Ours { token: i64, known: i64 },
    /// Somebody else has it, since that revision.
    Taken { since: i64 },
}

impl Owner {
    pub(crate) fn new(client: &Client, keys: &Keys, id: String) -> Self {
        Self { client: client.clone(), keys: keys.clone(), id }
    }

    /// Whether a value of the key is ours.
    pub(crate) fn is_ours(&self, value: &[u8]) -> bool {
        value == self.id.as_bytes()
    }

    /// Makes the key ours, on this epoch's lease, if nobody has it.
    pub(crate) async fn claim(&self, epoch: &Epoch) -> Result<Claim> {
        self.client.optimistic(|| self.try_claim(epoch)).await
    }

    async fn try_claim(&self, epoch: &Epoch) -> Result<Step<Claim>> {
        epoch.check()?;
        let key = &self.keys.owner;
        let put = Op::put_leased(key, self.id.clone(), epoch);
        let create = Txn::new()
            .when(epoch.fence())
            .when(Compare::absent(key))
            .then(put.clone())
            .otherwise(Op::get(key))
            .otherwise(Op::get(epoch.key()));
        let reply = self.client.settle(&create).await?.reply;
        if reply.succeeded {
            return Ok(Step::Done(Claim::Ours { token: reply.revision, known: reply.revision }));
        }
        if reply.entry(1).is_none_or(|kv| kv.create_revision != epoch.token()) {
            return Err(epoch.lost_error());
        }
        let Some(found) = reply.entry(0) else { return Ok(Step::Conflict) };
        if !self.is_ours(&found.value) {
            return Ok(Step::Done(Claim::Taken { since: found.mod_revision }));
        }
        // Ours: a copy of the creation landed, or it is left from the epoch before. On this one's lease from here on.
        let renew =
            Txn::new().when(epoch.fence()).when(Compare::created_at(key, found.create_revision)).then(put);
        let renewed = self.client.settle(&renew).await?.reply;
        Ok(match renewed.succeeded {
            true => Step::Done(Claim::Ours { token: found.create_revision, known: renewed.revision }),
            false => Step::Conflict,
        })
    }

    /// Writes a key that lives as long as the epoch, if the destination is still ours. The revision, unless it is not.
    pub(crate) async fn publish(
        &self,
        epoch: &Epoch,
        token: i64,
        key: &Key,
        value: Vec<u8>,
    ) -> Result<Option<i64>> {
        let put = Txn::new()
            .when(epoch.fence())
            .when(Compare::created_at(&self.keys.owner, token))
            .then(Op::put_leased(key, value, epoch));
        let reply = self.client.settle(&put).await?.reply;
        Ok(reply.succeeded.then_some(reply.revision))
    }

    /// Deletes a key that was last written at that revision: by us, that is.
    pub(crate) async fn withdraw(&self, key: &Key, written: i64) -> Result<()> {
        let delete = Txn::new().when(Compare::modified_at(key, written)).then(Op::delete(key));
        self.client.settle(&delete).await.map(|_| ())
    }

    /// Gives the destination up, with the addresses of its groups. Nothing happens if it is not ours any more.
    pub(crate) async fn release(&self, token: i64, addresses: &[Key]) -> Result<()> {
        let ours = || Txn::new().when(Compare::created_at(&self.keys.owner, token));
        for chunk in addresses.chunks(CHUNK) {
            let delete = chunk.iter().fold(ours(), |txn, key| txn.then(Op::delete(key)));
            if chunk.len() == addresses.len() {
                // The usual case: all at once.
                return self.client.settle(&delete.then(Op::delete(&self.keys.owner))).await.map(|_| ());
            }
            self.client.settle(&delete).await?;
        }
        self.client.settle(&ours().then(Op::delete(&self.keys.owner))).await.map(|_| ())
    }

    /// As [`release`](Self::release), when it is not known whether the key is ours.
    pub(crate) async fn release_if_ours(&self) -> Result<()> {
        match self.client.get(&self.keys.owner).await? {
            Some(found) if self.is_ours(&found.value) => self.release(found.create_revision, &[]).await,
            _ => Ok(()),
        }
    }
}

/// Whether the same may be done again and again until it is known what became of it.
pub(crate) fn is_passing(error: &Error) -> bool {
    error.is_retryable() || error.is_outcome_unknown()
}
