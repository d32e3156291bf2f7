//! What is kept of a topic, read by listing: for history that cannot be watched any more, or is too long to.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use sereno_core::{Client, Key, Op, Overflow, Result, Tail, Txn};

use crate::keys::Keys;

/// Values fetched at a time, in number and in bytes.
const CHUNK: usize = 100;
const CHUNK_BYTES: u64 = 2 << 20;

/// Batches that are to be delivered before the tail goes on.
pub(crate) struct Backlog {
    pub(crate) batches: VecDeque<Listed>,
    /// The topic's publishes up to the listing.
    pub(crate) ordinal: u64,
    /// The revision of the listing.
    pub(crate) revision: i64,
    /// How many of those left a publish has written, by their names.
    pub(crate) genuine: u64,
    /// Whether something from before the first of `batches` is still kept: then nothing is missing, since the oldest goes
    /// first.
    pub(crate) anchored: bool,
    /// Everything after the listing.
    pub(crate) tail: Tail,
}

/// A batch by its key.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) created: i64,
    pub(crate) key: Key,
    /// `None` for a name that no publish writes.
    pub(crate) publisher: Option<String>,
    bytes: u64,
}

/// A read under way. The mutex is never locked: it lets a subscription be shared, and so lets the futures that borrow it
/// be sent, though a future of a call can only be sent.
pub(crate) struct Reading<T>(Mutex<Pin<Box<dyn Future<Output = Result<T>> + Send>>>);

impl<T> Reading<T> {
    pub(crate) fn new(reading: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(reading)))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx)
    }
}

/// Lists everything created after `after`.
pub(crate) async fn list(client: Client, keys: Keys, after: i64, overflow: Overflow) -> Result<Backlog> {
    let listing = client.range_keys(&keys.log).await?;
    let revision = listing.revision;
    let tail = client.tail(&keys.log, revision.saturating_add(1), overflow).await?;
    let mut batches = Vec::new();
    let mut ordinal = 0;
    let mut genuine = 0;
    let mut anchored = false;
    for kv in listing.entries {
        if kv.key == keys.tail {
            ordinal = kv.version.try_into().unwrap_or(0);
        } else if kv.create_revision <= after {
            anchored = true;
        } else {
            let name = keys.parse_batch(&kv.key);
            genuine += u64::from(name.is_some());
            let (publisher, bytes) = name.map(|name| (name.publisher, name.bytes)).unzip();
            let bytes = bytes.unwrap_or(0);
            batches.push(Listed { created: kv.create_revision, key: kv.key, publisher, bytes });
        }
    }
    batches.sort_unstable_by_key(|batch| batch.created);
    Ok(Backlog { batches: batches.into(), ordinal, revision, genuine, anchored, tail })
}

impl Backlog {
    /// The next batches whose values should be fetched together.
    pub(crate) fn chunk(&self) -> Vec<Listed> {
        let mut bytes = 0_u64;
        let fits = |batch: &&Listed| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(batch.bytes.max(1));
            first || bytes <= CHUNK_BYTES
        };
        self.batches.iter().take(CHUNK).take_while(fits).cloned().collect()
    }
}

/// The values of some batches; `None` for one that is gone. One RPC.
pub(crate) async fn fetch(client: Client, chunk: Vec<Listed>) -> Result<VecDeque<(Listed, Option<Bytes>)>> {
    let txn = chunk.iter().fold(Txn::new(), |txn, batch| txn.then(Op::get(&batch.key)));
    let reply = client.settle(&txn).await?.reply;
    let with_value = |(at, batch): (usize, Listed)| {
        let kv = reply.entry(at).filter(|kv| kv.create_revision == batch.created);
        let value = kv.map(|kv| kv.value.clone());
        (batch, value)
    };
    Ok(chunk.into_iter().enumerate().map(with_value).collect())
}
