//! What the processes of one job share: everything bears its number.

use sereno_core::{Client, Op, Session, Txn};
use sereno_counter::Counter;
use sereno_pubsub::Topic;
use sereno_waitgroup::WaitGroup;

use crate::figures::{Figures, NAMES};

/// The recipes of a job, as one process sees them.
#[derive(Debug)]
pub(crate) struct Job {
    /// From the leader to the workers.
    pub(crate) orders: Topic,
    /// From the workers to the leader.
    pub(crate) news: Topic,
    /// The number of the next batch that nobody has taken yet.
    pub(crate) next: Counter,
    /// The workers that are not done.
    pub(crate) working: WaitGroup,
    totals: [Counter; 4],
}

impl Job {
    pub(crate) fn new(session: &Session, job: &str) -> Self {
        let counter = |name: &str| Counter::new(session, counter_name(job, name));
        Self {
            orders: Topic::new(session, orders_name(job)),
            news: Topic::new(session, news_name(job)),
            next: counter("next batch"),
            working: WaitGroup::new(session, job),
            totals: NAMES.map(counter),
        }
    }

    /// Adds to the shared counters, all four at a time.
    pub(crate) async fn add(&self, figures: Figures) -> anyhow::Result<()> {
        let [files, lines, words, bytes] = &self.totals;
        let [f, l, w, b] = figures.0.map(|figure| i64::try_from(figure).unwrap_or(i64::MAX));
        tokio::try_join!(files.add(f), lines.add(l), words.add(w), bytes.add(b))?;
        Ok(())
    }

    /// What the shared counters say.
    pub(crate) async fn totals(&self) -> anyhow::Result<Figures> {
        let [files, lines, words, bytes] = &self.totals;
        let (f, l, w, b) = tokio::try_join!(files.get(), lines.get(), words.get(), bytes.get())?;
        Ok(Figures([f, l, w, b].map(|total| u64::try_from(total).unwrap_or_default())))
    }

    /// The counter of files, to be watched.
    pub(crate) fn files(&self) -> &Counter {
        let [files, ..] = &self.totals;
        files
    }
}

/// Deletes what a job has left in etcd. The keys of each recipe are drawn in its own documentation.
pub(crate) async fn clear(client: &Client, job: &str) -> anyhow::Result<()> {
    let mut names = vec![
        ("topic", orders_name(job)),
        ("topic", news_name(job)),
        ("counter", counter_name(job, "next batch")),
        ("waitgroup", job.to_owned()),
        ("keepalive", job.to_owned()),
        ("tour", job.to_owned()),
    ];
    names.extend(NAMES.map(|name| ("counter", counter_name(job, name))));
    let mut txn = Txn::new();
    for (recipe, name) in names {
        txn = txn.then(Op::delete_prefix(&client.namespace().prefix(recipe)?.join(name)?));
    }
    client.settle(&txn).await?;
    Ok(())
}

fn orders_name(job: &str) -> String {
    format!("{job} orders")
}

fn news_name(job: &str) -> String {
    format!("{job} news")
}

fn counter_name(job: &str, what: &str) -> String {
    format!("{job} {what}")
}
