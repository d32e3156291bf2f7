//! Keeping a topic within its limits: age by leases, count and size by a trimmer.
//!
//! Trimming needs no clock: only publishing makes a topic grow, so publishing is what sets it off. One session at a time
//! does it, and it leaves a note of what was there, so that others know when the next time is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sereno_core::{Client, Compare, Epoch, Key, Op, Result, Timer, Txn, WeakSession};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::options::Retention;

/// What etcd needs to keep a batch, beyond its key and value (roughly).
const OVERHEAD: u64 = 512;
/// Between two trimmings: this many publishes, or this part of what is there, whichever is more.
const LEAST: u64 = 16;
const PART: u64 = 8;
/// Deletions per transaction; each is one raft entry whatever their number.
pub(crate) const DELETIONS: usize = 100;

/// The leases on which batches live: a new one for each stretch of time.
#[derive(Debug)]
pub(crate) struct Buckets {
    age: Option<Duration>,
    current: Mutex<Option<(Timer, Instant)>>,
}

impl Buckets {
    pub(crate) fn new(age: Option<Duration>) -> Self {
        Self { age, current: Mutex::default() }
    }

    /// The lease for a batch that is sent now; one RPC when a new one is due.
    pub(crate) async fn timer(&self, client: &Client) -> Result<Option<Timer>> {
        let Some(age) = self.age else { return Ok(None) };
        let width = width(age);
        let usable = |current: &(Timer, Instant)| current.1.elapsed() < width;
        if let Some((timer, _)) = self.lock().filter(usable) {
            return Ok(Some(timer));
        }
        let asked = Instant::now();
        let timer = client.timer(age.saturating_add(width)).await?;
        *self.lock() = Some((timer, asked));
        Ok(Some(timer))
    }

    /// The lease is gone: take another one next time.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// Whether nothing on the present lease can have expired.
    pub(crate) fn is_alive(&self) -> bool {
        self.age.is_none() || self.lock().is_some_and(|(timer, asked)| asked.elapsed() < timer.ttl())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Timer, Instant)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn width(age: Duration) -> Duration {
    (age / 8).clamp(Duration::from_secs(1), Duration::from_secs(3600))
}

/// What the worker tells the trimmer.
#[derive(Debug)]
pub(crate) struct Gauge {
    levels: Mutex<Levels>,
    due: Notify,
    /// When these many have been published here, trimming is due whatever the others do.
    messages: u64,
    bytes: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Levels {
    /// The topic's last publish as far as is known here.
    ordinal: u64,
    /// The publish at which trimming is due.
    next: u64,
    /// Published here since the last trimming.
    messages: u64,
    bytes: u64,
    closed: bool,
}

impl Gauge {
    pub(crate) fn new(retention: &Retention) -> Self {
        Self {
            levels: Mutex::default(),
            due: Notify::new(),
            messages: retention.messages.map_or(u64::MAX, |limit| (limit / PART).max(64)),
            bytes: retention.bytes.map_or(u64::MAX, |limit| limit / PART),
        }
    }

    /// A batch has been published.
    pub(crate) fn note(&self, ordinal: Option<u64>, messages: u32, bytes: usize) {
        let mut levels = self.lock();
        levels.ordinal = ordinal.unwrap_or(levels.ordinal + 1);
        levels.messages += u64::from(messages);
        levels.bytes += bytes as u64 + OVERHEAD;
        if levels.ordinal >= levels.next || self.is_full(&levels) {
            self.due.notify_one();
        }
    }

    fn is_full(&self, levels: &Levels) -> bool {
        levels.messages >= self.messages || levels.bytes >= self.bytes
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.due.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that trims.
pub(crate) struct Trimmer {
    session: WeakSession,
    keys: Keys,
    retention: Retention,
    gauge: std::sync::Arc<Gauge>,
}

impl Trimmer {
    /// `None` where there is nothing to trim by.
    pub(crate) fn new(
        session: WeakSession,
        keys: Keys,
        retention: Retention,
        gauge: std::sync::Arc<Gauge>,
    ) -> Option<Self> {
        let limited = retention.messages.is_some() || retention.bytes.is_some();
        limited.then_some(Self { session, keys, retention, gauge })
    }

    pub(crate) async fn run(self) {
        loop {
            self.gauge.due.notified().await;
            let levels = *self.gauge.lock();
            if levels.closed {
                return;
            }
            let result = self.check(levels).await;
            if let Err(error) = &result {
                tracing::debug!(topic = %self.keys.topic, %error, "trimming failed; tried again later");
            }
            let batches = result.unwrap_or(None);
            let mut now = self.gauge.lock();
            now.next = now.ordinal.max(batches.map_or(0, |note| note.ordinal)) + due_after(batches);
            now.messages = now.messages.saturating_sub(levels.messages);
            now.bytes = now.bytes.saturating_sub(levels.bytes);
        }
    }

    /// Trims, unless somebody else just has. Gives what is there now, if known.
    async fn check(&self, levels: Levels) -> Result<Option<Note>> {
        let client = self.session.client();
        let note = client.get(&self.keys.trimmed).await?.and_then(|kv| Note::parse(&kv.value));
        let recent = note.is_some_and(|note| levels.ordinal < note.ordinal + due_after(Some(note)));
        if recent && !self.gauge.is_full(&levels) {
            return Ok(note);
        }
        let epoch = self.session.live_epoch().await?;
        let take = Txn::new()
            .when(epoch.fence())
            .when(Compare::absent(&self.keys.trimmer))
            .then(Op::put_leased(&self.keys.trimmer, epoch.id().to_owned(), &epoch))
            .otherwise(Op::get(&self.keys.trimmer));
        let taken = client.settle(&take).await?.reply;
        let mine = taken.entry(0).is_some_and(|kv| kv.value == epoch.id().as_bytes());
        if !taken.succeeded && !mine {
            return Ok(note);
        }
        self.trim(client, &epoch, levels.ordinal).await.map(Some)
    }

    /// Reads the keys, deletes the oldest batches that are too many, and leaves a note.
    async fn trim(&self, client: &Client, epoch: &Epoch, ordinal: u64) -> Result<Note> {
        let listing = client.range_keys(&self.keys.batches).await?;
        let mut batches: Vec<Listed> = listing
            .entries
            .iter()
            .filter_map(|kv| {
                let name = self.keys.parse_batch(&kv.key)?;
                let bytes = name.bytes + kv.key.as_bytes().len() as u64 + OVERHEAD;
                Some(Listed { created: kv.create_revision, key: &kv.key, messages: name.count.into(), bytes })
            })
            .collect();
        batches.sort_unstable_by_key(|batch| batch.created);
        let surplus = surplus(&batches, &self.retention);
        let (victims, kept) = batches.split_at(surplus);
        let held = Compare::owned_by(&self.keys.trimmer, epoch);
        for some in victims.chunks(DELETIONS) {
            let delete =
                some.iter().fold(Txn::new().when(held.clone()), |txn, batch| txn.then(Op::delete(batch.key)));
            // Somebody else has taken over: theirs is the newer listing.
            if !client.settle(&delete).await?.reply.succeeded {
                break;
            }
        }
        if surplus > 0 {
            tracing::debug!(topic = %self.keys.topic, surplus, kept = kept.len(), "trimmed");
        }
        let note = Note { ordinal, batches: kept.len() as u64 };
        let leave = Txn::new()
            .when(held)
            .then(Op::put(&self.keys.trimmed, note.to_string()))
            .then(Op::delete(&self.keys.trimmer));
        client.settle(&leave).await?;
        Ok(note)
    }
}

struct Listed<'a> {
    created: i64,
    key: &'a Key,
    messages: u64,
    bytes: u64,
}

/// How many of the oldest have to go.
fn surplus(batches: &[Listed<'_>], retention: &Retention) -> usize {
    let mut messages: u64 = batches.iter().map(|batch| batch.messages).sum();
    let mut bytes: u64 = batches.iter().map(|batch| batch.bytes).sum();
    let excess = batches.iter().take_while(|batch| {
        let many = retention.messages.is_some_and(|limit| messages - batch.messages >= limit);
        let large = retention.bytes.is_some_and(|limit| bytes > limit);
        messages -= batch.messages;
        bytes -= batch.bytes;
        many || large
    });
    excess.count().min(batches.len().saturating_sub(1))
}

/// What was there after the last trimming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    /// The topic's publishes until then.
    ordinal: u64,
    /// The batches kept.
    batches: u64,
}

impl Note {
    fn parse(value: &[u8]) -> Option<Self> {
        let (ordinal, batches) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self { ordinal: ordinal.parse().ok()?, batches: batches.parse().ok()? })
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.ordinal, self.batches)
    }
}

/// How many publishes after a trimming the next one is due: so that reading all keys costs so many keys per publish at
/// most, however many there are.
fn due_after(note: Option<Note>) -> u64 {
    note.map_or(LEAST, |note| (note.batches / PART).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sereno_core::Namespace;

    fn count(batches: &[(u64, u64)], retention: &Retention) -> usize {
        let key = Namespace::default().root().key("k").unwrap();
        let listed: Vec<Listed<'_>> = batches
            .iter()
            .map(|(messages, bytes)| Listed { created: 1, key: &key, messages: *messages, bytes: *bytes })
            .collect();
        surplus(&listed, retention)
    }

    #[test]
    fn as_many_messages_as_asked_for_are_kept_at_least() {
        let retention = Retention::unlimited().messages(10);
        assert_eq!(count(&[(1, 1); 10], &retention), 0);
        assert_eq!(count(&[(1, 1); 13], &retention), 3);
        assert_eq!(count(&[(4, 1); 3], &retention), 0, "without the first there would be 8");
        assert_eq!(count(&[(4, 1); 4], &retention), 1);
    }

    #[test]
    fn no_more_bytes_than_allowed_are_kept_save_the_newest_batch() {
        let retention = Retention::unlimited().bytes(100);
        assert_eq!(count(&[(1, 50); 2], &retention), 0);
        assert_eq!(count(&[(1, 50); 3], &retention), 1);
        assert_eq!(count(&[(1, 500); 3], &retention), 2);
        assert_eq!(count(&[], &retention), 0);
    }

    #[test]
    fn buckets_are_an_eighth_wide_within_bounds() {
        assert_eq!(width(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(width(Duration::from_secs(80)), Duration::from_secs(10));
        assert_eq!(width(Duration::from_secs(24 * 3600)), Duration::from_secs(3600));
    }

    #[test]
    fn notes_round_trip_and_others_are_ignored() {
        let note = Note { ordinal: 7, batches: 3 };
        assert_eq!(Note::parse(note.to_string().as_bytes()), Some(note));
        assert_eq!(Note::parse(b"x"), None);
        assert_eq!((due_after(None), due_after(Some(Note { batches: 800, ..note }))), (16, 100));
    }
}
