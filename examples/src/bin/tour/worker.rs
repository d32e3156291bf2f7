//! A worker process: takes its share until there is nothing left to take.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use sereno_core::{CancellationToken, Client, Epoch, Session, SessionOptions};
use sereno_keepalive::KeepAlive;
use sereno_pubsub::{From, Publisher, Subscription};

use crate::figures::{Figures, Longest};
use crate::job::Job;
use crate::ledger::{Ledger, Record};
use crate::task::{self, News, Order, Task};

/// How long a worker's claims outlive it. Short, because the others wait for them.
const TTL: Duration = Duration::from_secs(4);
/// How long a worker that has lost its leader may take to leave in order.
const GRACE: Duration = Duration::from_secs(2);

/// Works for a job under a name. Ends when the job is done, or when standard input does.
pub(crate) async fn run(job: &str, name: &str) -> anyhow::Result<()> {
    let abandoned = leave_with_the_leader();
    let client = Client::from_env().await?;
    let session = Session::open_with(&client, SessionOptions::default().ttl(TTL)).await?;
    let done = tokio::select! {
        done = work(&session, job, name) => done,
        () = abandoned.cancelled() => Err(anyhow::anyhow!("the leader has gone")),
    };
    // In any case: what is left claimed is free at once, not when the lease has run out.
    let closed = session.close().await;
    done.and(closed.context("cannot close the session")).with_context(|| format!("worker {name}"))
}

/// The leader holds the other end of standard input and never writes to it: it ends when the leader does, however it does.
fn leave_with_the_leader() -> CancellationToken {
    let abandoned = CancellationToken::new();
    let tell = abandoned.clone();
    // A thread, not a task: whatever the tasks are busy with, this process ends.
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        tell.cancel();
        thread::sleep(GRACE);
        process::exit(1);
    });
    abandoned
}

async fn work(session: &Session, job: &str, name: &str) -> anyhow::Result<()> {
    let client = session.client();
    // All claims stand on this one life of the session: when it ends they are lost, and so is this worker.
    let epoch = session.valid_epoch()?;
    let recipes = Job::new(session, job);
    let entered = recipes.working.enter(name).await?;
    let orders = recipes.orders.subscribe(From::Oldest).await?;
    let me = KeepAlive::new(session, job, name);
    let present = me.announce(process::id().to_string()).await?;
    let mut worker = Worker {
        name: name.to_owned(),
        ledger: Ledger::new(client, job)?,
        epoch,
        news: recipes.news.publisher(),
        recipes,
        orders: Orders { topic: orders, tasks: Vec::new(), total: None },
    };
    worker.take_shares().await?;
    worker.take_what_is_left().await?;
    // Every record is in the counters: only now may the leader stop waiting.
    entered.done().await?;
    present.leave().await?;
    Ok(())
}

struct Worker {
    name: String,
    ledger: Ledger,
    epoch: Epoch,
    recipes: Job,
    news: Publisher,
    orders: Orders,
}

impl Worker {
    /// One batch after the other, each given out to one worker by a counter: no two are told the same number.
    async fn take_shares(&mut self) -> anyhow::Result<()> {
        loop {
            let taken = self.recipes.next.add(1).await?;
            let batch = usize::try_from(taken - 1).context("the counter of batches went back")?;
            let Some(tasks) = self.orders.batch(batch).await? else { return Ok(()) };
            self.process(batch, tasks).await?;
        }
    }

    /// Batches that someone took and did not bring to an end: each becomes free when its claim's lease has run out.
    async fn take_what_is_left(&mut self) -> anyhow::Result<()> {
        let batches = task::batches(self.orders.total().await?);
        let mut watcher = self.ledger.watch().await?;
        loop {
            let open: BTreeMap<usize, bool> = self.ledger.open(watcher.view(), batches)?;
            if open.is_empty() {
                return Ok(());
            }
            for (batch, _) in open.into_iter().filter(|(_, free)| *free) {
                let Some(tasks) = self.orders.batch(batch).await? else {
                    bail!("batch {batch} has no tasks")
                };
                self.process(batch, tasks).await?;
            }
            // Whatever was not to be had above has changed since, so there is news, or there will be.
            watcher.next().await.context("the ledger's watch has ended")??;
        }
    }

    /// Claims, counts, records, adds: see the crate's documentation for why in this order.
    async fn process(&mut self, batch: usize, tasks: Vec<Task>) -> anyhow::Result<()> {
        if !self.ledger.claim(batch, &self.epoch).await? {
            return Ok(());
        }
        let (tasks, counted) = tokio::task::spawn_blocking(move || {
            let counted = count(&tasks);
            (tasks, counted)
        })
        .await?;
        let (figures, longest) = counted?;
        let record = Record { worker: self.name.clone(), figures, longest };
        if !self.ledger.record(batch, &self.epoch, &record).await? {
            return Ok(());
        }
        for task in tasks {
            self.news.send_json(&News { worker: self.name.clone(), task }).await?;
        }
        // Before the counters, so that a leader who wants to kill a worker between the two has its chance.
        self.news.flush().await?;
        self.recipes.add(figures).await
    }
}

fn count(tasks: &[Task]) -> anyhow::Result<(Figures, Longest)> {
    let (mut figures, mut longest) = (Figures::default(), Longest::default());
    for Task { path, .. } in tasks {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        figures += Figures::of(&text);
        longest.merge(&Longest::of(&text));
    }
    Ok((figures, longest))
}

/// The leader's orders, as far as they have been heard.
struct Orders {
    topic: Subscription,
    tasks: Vec<Task>,
    total: Option<usize>,
}

impl Orders {
    /// The tasks of a batch, as soon as they are known; `None` when there are not so many batches.
    async fn batch(&mut self, batch: usize) -> anyhow::Result<Option<Vec<Task>>> {
        loop {
            // A batch is whole when there are tasks beyond it, or when there will be no more.
            let known = self.total.unwrap_or(usize::MAX);
            let range = task::tasks_of(batch, known);
            if let Some(tasks) = self.tasks.get(range) {
                return Ok((!tasks.is_empty()).then(|| tasks.to_vec()));
            }
            self.hear().await?;
        }
    }

    /// How many tasks there are in all.
    async fn total(&mut self) -> anyhow::Result<usize> {
        loop {
            if let Some(total) = self.total {
                return Ok(total);
            }
            self.hear().await?;
        }
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        let message = self.topic.next_message().await.context("the topic has ended")??;
        match message.json()? {
            Order::Count(task) => self.tasks.push(task),
            Order::End(total) if total == self.tasks.len() => self.total = Some(total),
            Order::End(total) => bail!("{total} tasks were published, {} arrived", self.tasks.len()),
        }
        Ok(())
    }
}
