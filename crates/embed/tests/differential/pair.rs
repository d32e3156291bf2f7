//! The two servers side by side, and the runs of scripts on both.

use std::collections::BTreeMap;

use etcd_client::proto::{PbDeleteRequest, PbPutRequest};
use sereno_embed::{Server, Version};
use sereno_testkit::{Member, Source, eventually};

use crate::allowed::allowed;
use crate::answer::Answer;
use crate::compare::{Difference, compare};
use crate::op::Op;
use crate::side::Side;
use crate::watch::Listener;
use crate::wire::{PATIENCE, Refused};

/// An etcd that runs already can take embed's place on the left: what differs between two real versions.
const LEFT: &str = "SERENO_DIFFERENTIAL_LEFT";

/// embed on the left, a real etcd on the right, both fresh.
pub(crate) struct Pair {
    left: Side,
    right: Side,
    version: String,
    compared: u64,
    events: usize,
    allowed: BTreeMap<&'static str, (u64, &'static str)>,
    differences: Vec<String>,
    _server: Server,
    _member: Member,
}

/// The behaviour embed is to have beside a real etcd of this version. The limits are those of etcd's changelogs for progress
/// requests (3.4.25 and 3.5.8, 3.4.38 and 3.5.22); close to them a release may have one change and not the other.
fn behaviour(version: &str) -> Version {
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    match numbers[..] {
        [3, 4, ..25] | [3, 5, ..8] => Version::V3_5_1,
        [3, 4, ..38] | [3, 5, ..22] => Version::V3_5_16,
        _ => Version::V3_5_30,
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let source = Source::from_env().await;
        assert!(source != Source::Embed, "embed compared with itself proves nothing: this needs a real etcd");
        let member = Member::builder().source(source).start_one().await;
        let version = member.version().await;
        let server = Server::builder().version(behaviour(&version)).start().await;
        let server = server.expect("a free port on the loopback");
        let left = std::env::var(LEFT).unwrap_or_else(|_| server.endpoint());
        Self {
            left: Side::at(&left),
            right: Side::at(&member.endpoint()),
            version,
            compared: 0,
            events: 0,
            allowed: BTreeMap::new(),
            differences: Vec::new(),
            _server: server,
            _member: member,
        }
    }

    /// Makes both stores empty, with the same revision at their head and no history.
    pub(crate) async fn reset(&mut self) -> Result<(), Refused> {
        let (left, right) = tokio::join!(self.left.clear(), self.right.clear());
        left.and(right)?;
        if self.left.head() != self.right.head() {
            let revision = self.left.head().max(self.right.head()) + 2;
            let (left, right) = tokio::join!(self.left.advance(revision), self.right.advance(revision));
            left.and(right)?;
        }
        let (left, right) = tokio::join!(self.left.forget(), self.right.forget());
        left.and(right)
    }

    /// Runs a script on empty stores up to the first difference that is not allowed.
    pub(crate) async fn run(&mut self, script: &[Op]) -> Result<(), Box<Difference>> {
        if let Err(refused) = self.reset().await {
            let (left, right) = (Answer::Refused(refused), Answer::Nothing);
            return Err(compare(0, &Op::Barrier, &left, &right).expect("they differ"));
        }
        self.run_on(script).await
    }

    /// As [`Pair::run`], on whatever is in the stores.
    pub(crate) async fn run_on(&mut self, script: &[Op]) -> Result<(), Box<Difference>> {
        for (step, op) in script.iter().enumerate() {
            // What a watch has not seen before these, it may never see.
            if matches!(op, Op::Compact(_) | Op::Cancel(..) | Op::Barrier) {
                self.barrier(step).await?;
            }
            self.step(step, op).await?;
            // Until it has caught up, what follows would decide what it sees.
            if matches!(op, Op::Watch(_, watching) if watching.start_revision != 0) {
                self.barrier(step).await?;
            }
        }
        self.barrier(script.len()).await
    }

    async fn step(&mut self, step: usize, op: &Op) -> Result<(Answer, Answer), Box<Difference>> {
        let (left, right) = tokio::join!(self.left.apply(op), self.right.apply(op));
        self.judge(step, op, &left, &right)?;
        Ok((left, right))
    }

    fn judge(&mut self, step: usize, op: &Op, left: &Answer, right: &Answer) -> Result<(), Box<Difference>> {
        self.compared += 1;
        if let Answer::Watched(watches) = right {
            self.events += watches.iter().map(|watched| watched.events.len()).sum::<usize>();
        }
        let Some(difference) = compare(step, op, left, right) else {
            return Ok(());
        };
        match allowed(&difference, &self.version) {
            Some(entry) => {
                self.allowed.entry(entry.what).or_insert((0, entry.reason)).0 += 1;
                Ok(())
            }
            None => Err(difference),
        }
    }

    /// Has every watch see a write of its own, so that it has seen all before, and compares what they saw.
    async fn barrier(&mut self, step: usize) -> Result<(), Box<Difference>> {
        let listeners = self.right.listeners();
        let mut keys: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for listener in &listeners {
            *keys.entry(listener.watching.first_key()).or_default() |= listener.watching.hides_puts();
        }
        // The newest put and the newest delete of each key.
        let mut written: BTreeMap<Vec<u8>, (i64, i64)> = BTreeMap::new();
        for (key, delete) in keys {
            let marks = self.mark(step, &key, delete).await?;
            written.insert(key, marks);
        }
        for Listener { stream, watch_id, watching } in listeners {
            let seen = written.iter().filter(|(key, _)| watching.covers(key)).map(|(_, (put, delete))| {
                let put = if watching.hides_puts() { 0 } else { *put };
                put.max(if watching.hides_deletes() { 0 } else { *delete })
            });
            let revision = seen.max().unwrap_or(0);
            // Without one it sees nothing by its filters, or nothing yet by its start.
            if revision > 0 && watching.start_revision <= revision {
                let left = self.left.await_revision(stream, watch_id, revision);
                let right = self.right.await_revision(stream, watch_id, revision);
                tokio::join!(left, right);
            }
        }
        let (left, right) = (self.left.watched(), self.right.watched());
        self.judge(step, &Op::Barrier, &left, &right)
    }

    /// Writes a key without changing what it holds, if it is there; and without a key left behind, if not.
    async fn mark(&mut self, step: usize, key: &[u8], delete: bool) -> Result<(i64, i64), Box<Difference>> {
        let touch =
            PbPutRequest { key: key.to_vec(), ignore_value: true, ignore_lease: true, ..Default::default() };
        let (_, mut put) = self.step(step, &Op::Put(touch)).await?;
        let absent = matches!(put, Answer::Refused(_));
        if absent {
            let create = PbPutRequest { key: key.to_vec(), value: b"mark".to_vec(), ..Default::default() };
            (_, put) = self.step(step, &Op::Put(create)).await?;
        }
        let mut deleted = Answer::Nothing;
        if absent || delete {
            let remove = PbDeleteRequest { key: key.to_vec(), ..Default::default() };
            (_, deleted) = self.step(step, &Op::Delete(remove)).await?;
        }
        Ok((put.revision().unwrap_or(0), deleted.revision().unwrap_or(0)))
    }

    /// Runs a script and keeps the difference, if there is one, for [`Pair::finish`].
    pub(crate) async fn check(&mut self, name: &str, script: &[Op]) {
        if let Err(difference) = self.run(script).await {
            self.differences.push(format!("{name}: {difference}"));
        }
    }

    /// Asks both sides until both have a header with this revision: for what servers do of their own accord.
    pub(crate) async fn await_head(&mut self, revision: i64) {
        let ask = Op::Leases;
        eventually(PATIENCE, "both sides to get there", async || {
            let (left, right) = tokio::join!(self.left.apply(&ask), self.right.apply(&ask));
            (left.revision() >= Some(revision) && right.revision() >= Some(revision)).then_some(())
        })
        .await;
    }

    pub(crate) fn head(&self) -> i64 {
        self.right.head()
    }

    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }

    /// Says what was compared, and fails if anything differed.
    pub(crate) fn finish(self) {
        let Self { version, compared, events, allowed, differences, .. } = self;
        let count = differences.len();
        println!(
            "etcd {version}: operations compared: {compared}, differences: {count}, watch events: {events}"
        );
        for (what, (count, reason)) in allowed {
            println!("  allowed {count} times: {what} ({reason})");
        }
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    }
}
