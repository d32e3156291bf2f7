//! What one task does again and again.

use std::time::Duration;

use anyhow::Context;
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use serde::{Deserialize, Serialize};
use sereno_counter::Counter;
use tokio::time::{Instant, sleep};

use super::link::Link;

/// As long as a counter's stored value is.
const VALUE: &str = "{\"total\":1000000,\"seq\":10}";
/// The textbook's first pause after a lost race, and its longest; how long exactly is drawn anew each time.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// The three that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A plain put to a key of the task's own.
    Put,
    /// `Counter::add(1)`.
    Add,
    /// A counter as it is usually written: get, then put if nobody else has, else pause and begin again.
    Cas,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Put, Self::Add, Self::Cas];
}

/// A task's means to do one kind.
pub(super) enum Worker {
    Put { client: etcd_client::Client, key: Vec<u8> },
    Add { counter: Counter },
    Cas { client: etcd_client::Client, key: Vec<u8> },
}

impl Worker {
    /// Task `id` of those that work at `name`.
    pub(super) fn new(kind: Kind, link: &Link, name: &str, id: &str) -> Self {
        match kind {
            Kind::Put => Self::Put { client: link.raw.clone(), key: put_key(link, name, id) },
            Kind::Add => Self::Add { counter: Counter::new(&link.session, name) },
            Kind::Cas => Self::Cas { client: link.raw.clone(), key: cas_key(link, name) },
        }
    }

    /// Does it once. `false` when it was not done, because the time was up while others were always faster.
    pub(super) async fn once(&mut self, end: Instant) -> anyhow::Result<bool> {
        match self {
            Self::Put { client, key } => {
                client.put(key.as_slice(), VALUE, None).await?;
                Ok(true)
            }
            Self::Add { counter } => {
                counter.add(1).await?;
                Ok(true)
            }
            Self::Cas { client, key } => cas(client, key, end).await,
        }
    }
}

fn put_key(link: &Link, name: &str, id: &str) -> Vec<u8> {
    link.key(&format!("put/{name}/{id}"))
}

fn cas_key(link: &Link, name: &str) -> Vec<u8> {
    link.key(&format!("cas/{name}"))
}

async fn cas(client: &mut etcd_client::Client, key: &[u8], end: Instant) -> anyhow::Result<bool> {
    let mut pause = PAUSE;
    loop {
        let found = client.get(key, None).await?;
        let (value, revision) = match found.kvs().first() {
            Some(found) => (found.value_str()?.parse::<i64>()?, found.mod_revision()),
            None => (0, 0),
        };
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
        let put = TxnOp::put(key, (value + 1).to_string(), None);
        if client.txn(Txn::new().when([unchanged]).and_then([put])).await?.succeeded() {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(pause.mul_f64(rand::random())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How often the kind was done at `name`, as etcd tells.
pub(super) async fn done(kind: Kind, link: &mut Link, name: &str) -> anyhow::Result<u64> {
    let done = match kind {
        Kind::Put => {
            let keys = link.key(&format!("put/{name}/"));
            let found = link.raw.get(keys, Some(GetOptions::new().with_prefix())).await?;
            found.kvs().iter().map(etcd_client::KeyValue::version).sum()
        }
        Kind::Add => Counter::new(&link.session, name).get().await?,
        Kind::Cas => {
            let key = cas_key(link, name);
            let found = link.raw.get(key, None).await?;
            found.kvs().first().context("nobody has counted")?.value_str()?.parse()?
        }
    };
    Ok(u64::try_from(done)?)
}
