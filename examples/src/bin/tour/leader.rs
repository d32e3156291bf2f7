//! The process that gives out the work, waits for it and checks it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::HumanCount;
use sereno_core::{Client, Session};
use sereno_id::IdGenerator;
use sereno_keepalive::{Event, Group};
use sereno_pubsub::{Draft, From};
use sereno_waitgroup::Error as WaitError;
use tokio::time::timeout;

use crate::corpus::Corpus;
use crate::crew::Crew;
use crate::figures::{Figures, Longest, NAMES};
use crate::job::{self, Job};
use crate::ledger::Ledger;
use crate::task::{self, News, Order, Task};
use crate::view::{View, wrapped};
use crate::{plain, settlement};

/// How long the workers may take to be there.
const START: Duration = Duration::from_secs(30);
/// How long the job may take.
const LIMIT: Duration = Duration::from_secs(240);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many workers.
    pub(crate) workers: usize,
    /// Whether to kill one of them halfway.
    pub(crate) kill: bool,
    /// What to count.
    pub(crate) input: Option<PathBuf>,
}

/// Runs a job from its first to its last word.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<()> {
    let corpus = Corpus::choose(plan.input.as_deref())?;
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open(&client).await?;
    let epoch = session.valid_epoch()?;
    let ids = IdGenerator::open(&session).await?;
    let job = ids.next_id().await?.to_string();
    println!("Job {job}: count {} text files in", HumanCount(corpus.files.len() as u64));
    println!("  {}", corpus.folder.display());
    if corpus.bounded {
        println!("  (Not all of its files: the tour leaves some out to stay short.)");
    }

    let mut crew = Crew::default();
    let done = tokio::select! {
        done = timeout(LIMIT, lead(plan, &corpus, &session, &ids, &job, &mut crew)) => {
            done.unwrap_or_else(|_| bail!("not done after {LIMIT:?}"))
        }
        signal = interrupted() => signal,
        // Nothing can be put in order then. The workers go with this process.
        reason = epoch.lost() => bail!("the leader's session was lost: {reason}"),
    };
    // In every case, and in this order: nobody may write any more when the keys are deleted.
    crew.end().await;
    let closed = session.close().await;
    let cleared = job::clear(&client, &job).await;
    done?;
    closed.context("cannot close the session")?;
    cleared.context("cannot delete the job's keys")
}

/// The way out when somebody presses Ctrl-C or ends this process.
async fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}

async fn lead(
    plan: &Plan,
    corpus: &Corpus,
    session: &Session,
    ids: &IdGenerator,
    job: &str,
    crew: &mut Crew,
) -> anyhow::Result<()> {
    let recipes = Job::new(session, job);
    let ledger = Ledger::new(session.client(), job)?;
    gather(plan.workers, session.client(), job, crew).await?;

    let start = Instant::now();
    let mut view = View::new(corpus.files.len())?;
    let published = publish(corpus, ids, &recipes).await?;
    view.say(format!(
        "Published {} tasks in {} ms ({} messages/s).",
        HumanCount(corpus.files.len() as u64),
        published.as_millis(),
        HumanCount(rate(corpus.files.len() as u64, published)),
    ));
    let lost = follow(plan, corpus, session.client(), &recipes, job, crew, &mut view).await;
    view.close();
    let lost = lost?;
    let took = start.elapsed();

    // Nobody adds any more. The living are done. The dead are dead, which `follow` has seen to, and their leases are over,
    // so that etcd refuses what they may still have had on the wire.
    let records = ledger.records().await?;
    if records.len() != task::batches(corpus.files.len()) {
        bail!("no worker is left, and the job is not done");
    }
    let counted = recipes.totals().await?;
    let owed = settlement::owed(&records, &lost, counted)?;
    recipes.add(owed).await?;
    let totals = recipes.totals().await?;

    let mut longest = Longest::default();
    let mut shares = BTreeMap::new();
    for record in &records {
        longest.merge(&record.longest);
        let [files, ..] = record.figures.0;
        *shares.entry(record.worker.as_str()).or_insert(0) += files;
    }
    let shares: Vec<String> =
        shares.iter().map(|(name, files)| format!("{name} {}", HumanCount(*files))).collect();
    println!(
        "{}",
        wrapped(&format!("Done in {:.1} s. Files per worker: {}", took.as_secs_f64(), shares.join(", ")))
    );
    if !lost.is_empty() {
        let text =
            format!("The other workers took over the claims of {}. {}", lost.join(" and "), told(owed));
        println!("{}", wrapped(&text));
    }
    check(corpus, totals, &longest)?;
    // Who finished has heard every task; who died, perhaps.
    let delivered = view.messages() + (corpus.files.len() * (plan.workers - lost.len())) as u64;
    println!(
        "{} messages delivered ({}/s): no file was lost or counted twice.",
        HumanCount(delivered),
        HumanCount(rate(delivered, took)),
    );
    for (name, status) in crew.dismiss().await? {
        if !lost.contains(&name) {
            bail!("worker {name} ended badly: {status}");
        }
    }
    Ok(())
}

/// Starts the workers and waits until all of them are there.
async fn gather(workers: usize, client: &Client, job: &str, crew: &mut Crew) -> anyhow::Result<()> {
    crew.hire(workers, job)?;
    let group = Group::new(client, job);
    let there = tokio::select! {
        there = timeout(START, group.wait_for(workers)) => there.context("not all workers have joined")??,
        ended = crew.ended() => {
            let (name, status) = ended?;
            bail!("worker {name} ended at once: {status}");
        }
    };
    let there: Vec<String> =
        there.iter().map(|node| format!("{}:{}", node.name, String::from_utf8_lossy(&node.value))).collect();
    println!("{workers} workers have joined (name:process id):");
    println!("{}", wrapped(&format!("  {}", there.join(" "))));
    Ok(())
}

/// One message per file.
async fn publish(corpus: &Corpus, ids: &IdGenerator, recipes: &Job) -> anyhow::Result<Duration> {
    let mut orders = Vec::with_capacity(corpus.files.len() + 1);
    for (file, id) in corpus.files.iter().zip(ids.next_ids(corpus.files.len()).await?) {
        let task = Task { id, path: file.path.clone() };
        orders.push(Draft::json(&Order::Count(task))?);
    }
    orders.push(Draft::json(&Order::End(corpus.files.len()))?);
    let start = Instant::now();
    let mut publisher = recipes.orders.publisher();
    for order in orders {
        publisher.send(order).await?;
    }
    publisher.flush().await?;
    Ok(start.elapsed())
}

/// Waits until no worker is at work any more, and shows what happens meanwhile. Gives the names of those that died.
async fn follow(
    plan: &Plan,
    corpus: &Corpus,
    client: &Client,
    recipes: &Job,
    job: &str,
    crew: &mut Crew,
    view: &mut View,
) -> anyhow::Result<Vec<String>> {
    let mut files = recipes.files().watch().await?;
    let mut members = Group::new(client, job).watch().await?;
    let mut news = recipes.news.subscribe(From::Oldest).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut waiting = Box::pin(recipes.working.wait());
    let (mut to_kill, mut lost) = (plan.kill, Vec::new());
    loop {
        tokio::select! {
            released = &mut waiting => match released {
                Ok(()) => break,
                Err(WaitError::WorkerDied { workers }) => {
                    for died in workers {
                        // It may be paused or cut off rather than dead. Before anyone settles its affairs, it is.
                        crew.kill(&died.label).await?;
                        view.died(&died.label);
                        view.say(format!("{} is dead: its lease has expired and its claims are free.", died.label));
                        recipes.working.dismiss(&died.id).await?;
                        lost.push(died.label);
                    }
                    waiting = Box::pin(recipes.working.wait());
                }
                Err(error) => return Err(error.into()),
            },
            event = members.next() => match event.context("the group's watch has ended")?? {
                Event::Snapshot(nodes) => nodes.into_iter().for_each(|node| view.joined(node.name)),
                Event::Joined(node) => view.joined(node.name),
                Event::Left(node) => view.left(&node.name),
                _ => {}
            },
            value = files.next() => {
                let value = value.context("the counter's watch has ended")??;
                view.progress(u64::try_from(value).unwrap_or_default());
            }
            message = news.next_message() => {
                let message: News = message.context("the topic has ended")??.json()?;
                view.heard(&message);
                // The sender has recorded a batch this very moment and is about to add it to the counters: there is no
                // worse time to die.
                if to_kill && view.messages() * 2 >= corpus.files.len() as u64 {
                    to_kill = false;
                    let process = crew.kill(&message.worker).await?.unwrap_or_default();
                    view.died(&message.worker);
                    view.say(format!(
                        "{} (process {process}) was killed with SIGKILL after {} of {} files.",
                        message.worker, HumanCount(view.messages()), HumanCount(corpus.files.len() as u64),
                    ));
                }
            }
            _ = ticks.tick() => view.tick(),
        }
    }
    Ok(lost)
}

/// Compares with what one process counts by itself.
fn check(corpus: &Corpus, totals: Figures, longest: &Longest) -> anyhow::Result<()> {
    println!("Now one process counts the same files, without etcd.");
    let start = Instant::now();
    let (expected, expected_longest) = plain::count(corpus.files.iter().map(|file| &file.path))?;
    let took = start.elapsed();
    println!("{:>8} {:>16} {:>16}", "", "shared counters", "one process");
    for ((name, counted), expected) in NAMES.iter().zip(totals.0).zip(expected.0) {
        println!(
            "{name:>8} {:>16} {:>16}",
            HumanCount(counted).to_string(),
            HumanCount(expected).to_string()
        );
    }
    println!("{}", wrapped(&format!("Longest words: {}", longest.0.join(" "))));
    if totals == expected && *longest == expected_longest {
        println!("check: OK, the totals are equal (one process took {:.1} s)", took.as_secs_f64());
        return Ok(());
    }
    let changed: Vec<String> = corpus.changed().iter().map(|path| path.display().to_string()).collect();
    if changed.is_empty() {
        bail!("check: FAILED, the totals differ from what one process counts");
    }
    bail!("check: FAILED, because these files changed during the run: {}", changed.join(", "));
}

/// What the dead owed, in words.
fn told(owed: Figures) -> String {
    if owed == Figures::default() {
        return "The counters already held every result that was recorded.".to_owned();
    }
    let owed: Vec<String> =
        owed.0.iter().zip(NAMES).map(|(n, name)| format!("{} {name}", HumanCount(*n))).collect();
    format!("Recorded but not yet in the counters, and added now: {}.", owed.join(", "))
}

fn rate(count: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    count * 1000 / millis
}
