//! A child process that does what it is told: one order per line on stdin, one answer per line on stdout.

use std::io::{Write, stdin, stdout};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sereno_discovery::View;
use sereno_embed::Server;
use sereno_waitgroup::WaitGroup;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::clock;
use super::link::Link;
use super::memory::resident;
use super::work::{Kind, Worker};
use super::{lookup, pipelines};
use crate::outcome::Outcome;

/// No wait for a wait group takes longer.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// What a hand is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Have `tasks` tasks ready to work at `name`. Answered by `Ready`.
    Prepare { name: String, hand: usize, tasks: usize },
    /// Work from `start` (nanoseconds since 1970) for `window`. Answered by `Done`.
    Work { kind: Kind, start: u64, window: Duration },
    /// Wait for this wait group. Answered by `Woken`.
    Wait { group: String },
    /// Follow the hosts of a service, and go on with it. Answered by `Followed`.
    Follow { service: String },
    /// Send past a group that does not read. Answered by `Stalled`.
    Stall,
    /// Serve as etcd until the end. Answered by `Serving`.
    Serve,
    /// Tell how much memory this process has. Answered by `Resident`.
    Weigh,
}

/// What a hand says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Ready,
    Done(Tally),
    /// The wait returned at this time, in nanoseconds since 1970.
    Woken {
        at: u64,
    },
    /// So many hosts were loaded in this time, and the process has grown by so many bytes.
    Followed {
        hosts: usize,
        took: Duration,
        bytes: u64,
    },
    /// Messages per second to the group that reads, and by how many bytes the process has grown.
    Stalled {
        rate: f64,
        bytes: u64,
    },
    Serving {
        endpoint: String,
    },
    Resident {
        bytes: u64,
    },
    Failed(String),
}

/// What was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Before the window's end.
    pub(super) in_window: u64,
    /// In all: what was under way at the window's end is waited for.
    pub(super) in_all: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.in_window += other.in_window;
        self.in_all += other.in_all;
    }
}

/// Obeys until stdin ends.
pub(crate) fn run() -> Outcome {
    let runtime = Runtime::new()?;
    let link = runtime.block_on(Link::open())?;
    let mut hand = Hand { link, tasks: Vec::new(), view: None, server: None };
    let mut line = String::new();
    // The parent's pipe ends with the parent, however it ends.
    while stdin().read_line(&mut line)? > 0 {
        let order = serde_json::from_str(&line).with_context(|| format!("not an order: {line}"))?;
        let answer = match runtime.block_on(hand.obey(order)) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        println!("{}", serde_json::to_string(&answer)?);
        stdout().flush()?;
        line.clear();
    }
    runtime.block_on(hand.link.close())?;
    Ok(0)
}

struct Hand {
    link: Link,
    /// Where each task works, and by which name.
    tasks: Vec<(String, String)>,
    /// Followed until the end.
    view: Option<View>,
    server: Option<Server>,
}

impl Hand {
    async fn obey(&mut self, order: Order) -> anyhow::Result<Answer> {
        match order {
            Order::Prepare { name, hand, tasks } => {
                self.tasks = (0..tasks).map(|task| (name.clone(), format!("{hand}-{task}"))).collect();
                Ok(Answer::Ready)
            }
            Order::Work { kind, start, window } => Ok(Answer::Done(self.work(kind, start, window).await?)),
            Order::Wait { group } => {
                let group = WaitGroup::new(&self.link.session, &group);
                match timeout(WAIT_LIMIT, group.wait()).await {
                    Ok(woken) => woken?,
                    Err(_) => bail!("nobody woke the waiter within {WAIT_LIMIT:?}"),
                }
                Ok(Answer::Woken { at: clock::now() })
            }
            Order::Follow { service } => {
                let (before, start) = (resident()?, Instant::now());
                let view = self.view.insert(lookup::follow(&self.link, &service).await?);
                let (took, hosts) = (start.elapsed(), view.len()?);
                Ok(Answer::Followed { hosts, took, bytes: resident()?.saturating_sub(before) })
            }
            Order::Stall => pipelines::stall(&self.link).await,
            Order::Serve => {
                let server = self.server.insert(Server::start().await?);
                Ok(Answer::Serving { endpoint: server.endpoint().to_string() })
            }
            Order::Weigh => Ok(Answer::Resident { bytes: resident()? }),
        }
    }

    async fn work(&self, kind: Kind, start: u64, window: Duration) -> anyhow::Result<Tally> {
        let begin = clock::instant(start);
        let end = begin + window;
        let mut tasks = JoinSet::new();
        for (name, id) in &self.tasks {
            let mut worker = Worker::new(kind, &self.link, name, id);
            tasks.spawn(async move {
                let mut tally = Tally::default();
                sleep_until(begin).await;
                while Instant::now() < end {
                    if worker.once(end).await? {
                        tally.in_all += 1;
                        tally.in_window += u64::from(Instant::now() < end);
                    }
                }
                anyhow::Ok(tally)
            });
        }
        let mut sum = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            sum.add(tally??);
        }
        Ok(sum)
    }
}
