//! Child processes that begin and end their work at the same moment.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::clock;
use super::hand::{Answer, Order, Tally};
use super::work::Kind;
use crate::flags::HAND;

/// An answer takes no longer than the work ordered and this.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(10);
/// Between an order and the moment at which all hands begin.
const LEAD: Duration = Duration::from_millis(20);

/// One child process. It ends when this is dropped.
pub(super) struct Hand {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Hand {
    pub(super) fn hire() -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(HAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a child process")?;
        let orders = child.stdin.take().context("a child process has no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("a child process has no stdout")?).lines();
        Ok(Self { child, orders, answers })
    }

    pub(super) async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.orders.write_all(line.as_bytes()).await.context("a child process has gone")?;
        Ok(self.orders.flush().await?)
    }

    pub(super) async fn answer(&mut self) -> anyhow::Result<Answer> {
        let line =
            timeout(ANSWER_LIMIT, self.answers.next_line()).await.context("a child process is silent")??;
        match serde_json::from_str(&line.context("a child process has gone")?)? {
            Answer::Failed(error) => bail!("in a child process: {error}"),
            answer => Ok(answer),
        }
    }

    /// Lets it end its session.
    pub(super) async fn dismiss(self) -> anyhow::Result<()> {
        let Self { mut child, orders, answers: _answers } = self;
        drop(orders);
        let status = timeout(END_LIMIT, child.wait()).await.context("a child process does not end")??;
        if !status.success() {
            bail!("a child process ended with {status}");
        }
        Ok(())
    }
}

/// Hands that work together.
pub(super) struct Crew {
    hands: Vec<Hand>,
}

impl Crew {
    /// `processes` processes of `tasks` tasks each, ready to work at `name`.
    pub(super) async fn hire(name: &str, processes: usize, tasks: usize) -> anyhow::Result<Self> {
        let mut hands = (0..processes).map(|_| Hand::hire()).collect::<anyhow::Result<Vec<_>>>()?;
        for (number, hand) in hands.iter_mut().enumerate() {
            hand.order(&Order::Prepare { name: name.to_owned(), hand: number, tasks }).await?;
        }
        for hand in &mut hands {
            let Answer::Ready = hand.answer().await? else { bail!("a child process did not prepare") };
        }
        Ok(Self { hands })
    }

    /// Everyone does `kind` in one window that is common to all.
    pub(super) async fn work(&mut self, kind: Kind, window: Duration) -> anyhow::Result<Tally> {
        let start = clock::now() + u64::try_from(LEAD.as_nanos())?;
        for hand in &mut self.hands {
            hand.order(&Order::Work { kind, start, window }).await?;
        }
        let mut sum = Tally::default();
        for hand in &mut self.hands {
            let Answer::Done(tally) = hand.answer().await? else { bail!("a child process did not work") };
            sum.add(tally);
        }
        Ok(sum)
    }

    pub(super) async fn dismiss(self) -> anyhow::Result<()> {
        for hand in self.hands {
            hand.dismiss().await?;
        }
        Ok(())
    }
}
