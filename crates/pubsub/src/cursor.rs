//! Named cursors: how far a durable subscriber has come.
//!
//! The value is `<position> <claim>`. The claim names the one subscription that may move the cursor; a later subscription
//! to the same cursor replaces it, so that one which was only thought gone cannot move it any more.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use sereno_core::{
    Client, Compare, Error as CoreError, EventKind, Key, KeyValue, Op, Overflow, Session, Step, TailItem, Txn,
};
use tokio::sync::Mutex;

use crate::backlog::Reading;
use crate::error::{Error, Result};
use crate::position::Position;

/// Acknowledges for a subscription that was made from a cursor, from any task. Clones are the same.
#[derive(Clone)]
pub struct Acker {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    key: Key,
    claim: String,
    /// The cursor as it was last seen to be ours. Held while an acknowledgement is under way.
    known: Mutex<Known>,
    delivered: StdMutex<Position>,
}

#[derive(Clone, Copy)]
struct Known {
    revision: i64,
    position: Position,
}

/// What the store says about the cursor.
struct Stored {
    revision: i64,
    position: Position,
    claim: String,
}

/// Ends when the cursor is not the subscription's any more, and gives the reason.
pub(crate) type Lost = Reading<Error>;

/// Where a new cursor begins, being found out.
pub(crate) type Starting = Pin<Box<dyn Future<Output = sereno_core::Result<Position>> + Send>>;

impl Acker {
    /// Takes the cursor over, or creates it where `start` says.
    pub(crate) async fn claim(
        session: &Session,
        key: &Key,
        start: impl Fn() -> Starting,
    ) -> Result<(Self, Position, Lost)> {
        let claim = format!("{}-{:x}", session.epoch().id(), session.serial());
        let client = session.client();
        let (revision, position) = client
            .optimistic(|| async {
                let stored = client.get(key).await?.map(|kv| Stored::parse(&kv)).transpose()?;
                let (unchanged, position) = match &stored {
                    Some(stored) => (Compare::modified_at(key, stored.revision), stored.position),
                    None => (Compare::absent(key), start().await?),
                };
                let take = Txn::new()
                    .when(unchanged)
                    .then(Op::put(key, format!("{position} {claim}")))
                    .otherwise(Op::get(key));
                let reply = client.settle(&take).await?.reply;
                if reply.succeeded {
                    return Ok(Step::Done((reply.revision, position)));
                }
                let stored = reply.entry(0).map(Stored::parse).transpose()?;
                Ok(match stored.filter(|stored| stored.claim == claim) {
                    Some(stored) => Step::Done((stored.revision, stored.position)),
                    None => Step::Conflict,
                })
            })
            .await?;
        let lost = Reading::new(lost(client.clone(), key.clone(), claim.clone(), revision));
        let inner = Inner {
            client: client.clone(),
            key: key.clone(),
            claim,
            known: Mutex::new(Known { revision, position }),
            delivered: StdMutex::new(position),
        };
        Ok((Self { inner: Arc::new(inner) }, position, lost))
    }

    /// Moves the cursor to `position`: it and everything before it need not be delivered again. One RPC; acknowledging
    /// every hundredth message acknowledges all of them.
    ///
    /// # Errors
    /// [`Error::CursorTaken`] when a later subscription has the cursor, [`Error::CursorGone`] when it was removed: this
    /// subscription can acknowledge no more. [`Error::AckBehind`] when the cursor is further already;
    /// [`Error::AckAhead`] when the position has not been delivered here. As any write of the core; after an unknown
    /// outcome the same call can be made again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the cursor moved or not; the next call finds out.
    pub async fn ack(&self, position: &Position) -> Result<()> {
        // Boxed: what is asked of etcd makes large futures. Named as `Send`, which the compiler does not see from outside.
        let acknowledging: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> =
            Box::pin(self.inner.ack(position));
        acknowledging.await
    }

    pub(crate) fn delivered(&self, position: Position) {
        *lock(&self.inner.delivered) = position;
    }
}

impl Inner {
    async fn ack(&self, position: &Position) -> Result<()> {
        let Self { client, key, claim, known, delivered } = self;
        if *position > *delivered.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::AckAhead);
        }
        let mut known = known.lock().await;
        if *position <= known.position {
            return behind(position, known.position);
        }
        // Rounds share it; each is over before the next begins.
        let seen = StdMutex::new(*known);
        let value = format!("{position} {claim}");
        let result = client
            .optimistic(|| async {
                let Known { revision, .. } = *lock(&seen);
                let put = Txn::new()
                    .when(Compare::modified_at(key, revision))
                    .then(Op::put(key, value.clone()))
                    .otherwise(Op::get(key));
                let reply = client.settle(&put).await?.reply;
                if reply.succeeded {
                    *lock(&seen) = Known { revision: reply.revision, position: *position };
                    return Ok(Step::Done(Ok(())));
                }
                let Some(stored) = reply.entry(0).map(Stored::parse).transpose()? else {
                    return Ok(Step::Done(Err(Error::CursorGone)));
                };
                if stored.claim != *claim {
                    return Ok(Step::Done(Err(Error::CursorTaken)));
                }
                // An acknowledgement of ours whose answer was lost: this one, or one before.
                *lock(&seen) = Known { revision: stored.revision, position: stored.position };
                Ok(if *position <= stored.position {
                    Step::Done(behind(position, stored.position))
                } else {
                    Step::Conflict
                })
            })
            .await;
        *known = *lock(&seen);
        result?
    }
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acker").field("cursor", &self.inner.key).finish_non_exhaustive()
    }
}

impl Stored {
    fn parse(kv: &KeyValue) -> sereno_core::Result<Self> {
        let parsed = std::str::from_utf8(&kv.value).ok().and_then(|text| {
            let (position, claim) = text.split_once(' ')?;
            let position = position.parse().ok()?;
            Some(Self { revision: kv.mod_revision, position, claim: claim.to_owned() })
        });
        parsed.ok_or_else(|| CoreError::Malformed {
            key: kv.key.to_string(),
            reason: "not a cursor".to_owned(),
        })
    }
}

/// Watches the cursor until another subscription takes it or somebody removes it. `from` is the revision at which it was
/// claimed.
async fn lost(client: Client, key: Key, claim: String, from: i64) -> sereno_core::Result<Error> {
    let judge = |kv: Option<&KeyValue>| match kv.map(Stored::parse) {
        Some(Ok(stored)) if stored.claim == claim => Ok(()),
        Some(stored) => {
            let owner = stored.map(|stored| stored.claim).unwrap_or_default();
            tracing::warn!(cursor = %key, owner, "a cursor was taken over by another subscription");
            Err(Error::CursorTaken)
        }
        None => {
            tracing::warn!(cursor = %key, "a cursor was removed under its subscription");
            Err(Error::CursorGone)
        }
    };
    let mut next = from.saturating_add(1);
    loop {
        let mut tail = client.tail(&key, next, Overflow::Pause).await?;
        while let Some(item) = tail.next().await {
            match item {
                Ok(TailItem::Changes(changes)) => {
                    for event in &changes.events {
                        let kv = (event.kind == EventKind::Put).then_some(&event.kv);
                        if let Err(lost) = judge(kv) {
                            return Ok(lost);
                        }
                    }
                    next = changes.revision.saturating_add(1);
                }
                // What happened meanwhile cannot be watched any more: what is there now tells.
                Ok(_) => {
                    match client.range(&key).await {
                        Ok(read) => {
                            if let Err(lost) = judge(read.entries.first()) {
                                return Ok(lost);
                            }
                            next = read.revision.saturating_add(1);
                        }
                        Err(error) => tracing::debug!(%error, cursor = %key, "reading a cursor"),
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The session epoch of the subscription that may move a cursor.
pub(crate) fn epoch_of(kv: &KeyValue) -> sereno_core::Result<String> {
    let claim = Stored::parse(kv)?.claim;
    Ok(claim.split('-').next().unwrap_or_default().to_owned())
}

/// Acknowledging the same position again is fine.
fn behind(position: &Position, at: Position) -> Result<()> {
    if *position == at { Ok(()) } else { Err(Error::AckBehind { at }) }
}

fn lock<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn remove(client: &Client, key: &Key) -> Result<bool> {
    let txn = Txn::new().when(Compare::exists(key)).then(Op::delete(key));
    let settled = client.settle(&txn).await?;
    // Sent twice and not there: the first copy may have been it.
    Ok(settled.reply.succeeded || settled.resent)
}

pub(crate) async fn position(client: &Client, key: &Key) -> Result<Option<Position>> {
    let stored = client.get(key).await?.map(|kv| Stored::parse(&kv)).transpose()?;
    Ok(stored.map(|stored| stored.position))
}
