//! Sending transactions: once, or until their outcome is known.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::call::{Kind, until};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::picker::Connection;
use crate::txn::{Outcome, Reply, Txn};

/// A transaction whose outcome is known, sent once or more often.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settled {
    /// The last answer.
    pub reply: Reply,
    /// Whether an earlier copy may have been applied: then `reply.succeeded == false` can mean that it *was*, and
    /// the transaction's own keys tell.
    pub resent: bool,
}

impl Client {
    /// Sends a transaction once (again only where it certainly was not applied). One RPC.
    ///
    /// # Errors
    /// Definite refusals, after which nothing was applied. What is not known is [`Outcome::Unknown`], not an error.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the transaction applied or not; it is atomic in either case.
    pub async fn commit(&self, txn: &Txn) -> Result<Outcome> {
        match self.send(txn, self.deadline()).await {
            Ok(reply) if reply.succeeded => Ok(Outcome::Applied(reply)),
            Ok(reply) => Ok(Outcome::NotApplied(reply)),
            Err(error @ Error::OutcomeUnknown { .. }) => Ok(Outcome::Unknown(error)),
            Err(error) => Err(error),
        }
    }

    /// Sends the same transaction until it is answered, within the client's deadline. For transactions that are
    /// idempotent by their conditions (create-only keys, compared revisions of a key with one writer): copies that
    /// arrive late or twice change nothing. One RPC when nothing fails.
    ///
    /// # Errors
    /// Definite refusals; [`Error::OutcomeUnknown`] when even the deadline brought no answer.
    ///
    /// # Cancel safety
    /// As [`Client::commit`].
    pub async fn settle(&self, txn: &Txn) -> Result<Settled> {
        self.settle_within(txn, self.deadline()).await
    }

    pub(crate) async fn settle_within(&self, txn: &Txn, within: Duration) -> Result<Settled> {
        let deadline = until(within);
        let mut backoff = Backoff::calls();
        let mut unknown: Option<Error> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.send(txn, left).await {
                Ok(reply) => return Ok(Settled { reply, resent: unknown.is_some() }),
                Err(error @ Error::OutcomeUnknown { .. }) => unknown = Some(error),
                // An earlier copy is still out there: that this one was not sent says nothing about that.
                Err(Error::Unavailable { .. }) if unknown.is_some() => {}
                Err(error) if unknown.is_none() => return Err(error),
                // Refused now, but an earlier copy may have been applied (a lease that has gone since, say).
                Err(error) => {
                    tracing::debug!(%error, "refused after an unknown outcome");
                    return Err(unknown.unwrap_or(error));
                }
            }
            if Instant::now() >= deadline {
                return Err(unknown.unwrap_or(Error::Stopped));
            }
            backoff.wait(deadline).await;
        }
    }

    async fn send(&self, txn: &Txn, within: Duration) -> Result<Reply> {
        txn.check()?;
        let kind = if txn.is_read_only() { Kind::Idempotent } else { Kind::Once };
        let limit = self.inner.options.decode_limit;
        let wire = txn.to_wire(&self.reserved("nothing").key("-")?);
        let call = |connection: Connection| {
            let wire = wire.clone();
            let floor = self.inner.floor();
            async move {
                let mut kv = connection.client.kv_client().max_decoding_message_size(limit);
                Ok((kv.txn(wire).await?, floor))
            }
        };
        let (response, floor) = self.call(kind, within, call).await?;
        let (cluster, revision) = response.header().map_or((0, 0), |h| (h.cluster_id(), h.revision()));
        self.inner.observe(cluster, revision, floor)?;
        Ok(Reply::from_wire(response))
    }
}
