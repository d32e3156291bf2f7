//! Removing a topic.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use sereno_core::{Client, Compare, KeyValue, Op, Session, Step, Txn};

use crate::cursor;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::retention::DELETIONS;

/// Keys read per transaction: below etcd's limit of 128 operations.
const ASKED: usize = 100;

/// Removes a topic: first what makes it one, in one transaction, then its batches. `false` when there was nothing.
///
/// The publishers' own keys stay until their sessions end, because they refuse late copies of what was published before.
pub(crate) async fn remove(session: &Session, keys: &Keys, forced: bool) -> Result<bool> {
    let client = session.client();
    // A first copy whose answer was lost may be what removed it.
    let sent = AtomicBool::new(false);
    let removed = client.optimistic(|| round(session, keys, forced, &sent)).await??;
    let batches = client.range_keys(&keys.batches).await?.entries;
    // What was published since stays: it is of a new topic.
    let old: Vec<&KeyValue> = batches.iter().filter(|kv| kv.create_revision <= removed.at).collect();
    for some in old.chunks(DELETIONS) {
        let delete = some.iter().fold(Txn::new(), |txn, kv| txn.then(Op::delete(&kv.key)));
        client.settle(&delete).await?;
    }
    Ok(removed.existed || !old.is_empty())
}

struct Removed {
    existed: bool,
    /// The revision up to which everything was of the removed topic.
    at: i64,
}

async fn round(
    session: &Session,
    keys: &Keys,
    forced: bool,
    sent: &AtomicBool,
) -> sereno_core::Result<Step<Result<Removed>>> {
    let client = session.client();
    let read = Txn::new()
        .then(Op::get(&keys.tail))
        .then(Op::range_keys(&keys.publishers))
        .then(Op::range(&keys.cursors));
    let read = client.settle(&read).await?.reply;
    let (tail, publishers, cursors) = (read.entry(0), read.entries(1), read.entries(2));
    if !forced {
        let in_use = in_use(session, keys, publishers, cursors).await?;
        if let Some(error) = in_use {
            return Ok(Step::Done(Err(error)));
        }
    }
    let existed = tail.is_some() || !cursors.is_empty();
    if !existed {
        let existed = sent.load(Ordering::Relaxed);
        return Ok(Step::Done(Ok(Removed { existed, at: read.revision })));
    }
    let mut txn = Txn::new().when(Compare::modified_at(&keys.tail, tail.map_or(0, |kv| kv.mod_revision)));
    if !forced {
        txn = txn
            .when(Compare::unchanged_since(&keys.publishers, read.revision))
            .when(Compare::unchanged_since(&keys.cursors, read.revision));
    }
    txn = txn
        .then(Op::delete(&keys.tail))
        .then(Op::delete(&keys.trimmed))
        .then(Op::delete_prefix(&keys.cursors));
    let settled = client.settle(&txn).await?;
    if settled.reply.succeeded {
        return Ok(Step::Done(Ok(Removed { existed, at: settled.reply.revision })));
    }
    sent.fetch_or(settled.resent, Ordering::Relaxed);
    Ok(Step::Conflict)
}

/// The other users of the topic: sessions that have published, and cursors whose subscriptions were made by sessions that live.
async fn in_use(
    session: &Session,
    keys: &Keys,
    publishers: &[KeyValue],
    cursors: &[KeyValue],
) -> sereno_core::Result<Option<Error>> {
    let own = session.epoch();
    let epochs = publishers.iter().filter_map(|kv| keys.publishers.child(&kv.key));
    let epochs: BTreeSet<String> = epochs
        .filter_map(|name| Some(name.split_once('-')?.0.to_owned()))
        .filter(|id| id != own.id())
        .collect();
    let mut claims = Vec::new();
    for kv in cursors {
        let epoch = cursor::epoch_of(kv)?;
        if let Some(name) = keys.cursors.child(&kv.key).filter(|_| epoch != own.id()) {
            claims.push((name, epoch));
        }
    }
    let mut living = Vec::new();
    for some in claims.chunks(ASKED) {
        living.append(&mut with_living_epochs(session.client(), some).await?);
    }
    let free = epochs.is_empty() && living.is_empty();
    Ok((!free).then_some(Error::InUse { publishers: epochs.len(), cursors: living }))
}

async fn with_living_epochs(
    client: &Client,
    claims: &[(String, String)],
) -> sereno_core::Result<Vec<String>> {
    let mut ask = Txn::new();
    for (_, epoch) in claims {
        ask = ask.then(Op::get(&client.epoch_key(epoch)?));
    }
    let reply = client.settle(&ask).await?.reply;
    let lives = |at: usize| reply.entry(at).is_some();
    let names = claims.iter().enumerate().filter(|(at, _)| lives(*at)).map(|(_, (name, _))| name.clone());
    Ok(names.collect())
}
