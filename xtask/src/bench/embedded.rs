//! `embed/…`: the embedded server beside one real etcd that waits for its disk, and what a million keys cost it.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use etcd_client::{Client, GetOptions, Txn, TxnOp};
use serde_json::json;
use sereno_embed::Server;
use sereno_testkit::{Member, Source};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::case::{Better, Case, Target};
use super::counting::per_second;
use super::crew::Hand;
use super::hand::{Answer, Order};
use super::plan::Plan;
use super::sample::median;

pub(super) const START: &str = "embed/start";
pub(super) const PUTS: &str = "embed/puts";
pub(super) const MEMORY: &str = "embed/million-keys";

/// Numbers of clients' tasks that put at the same time.
const TASKS: [usize; 3] = [1, 16, 64];
/// How often a server is started.
const STARTS: usize = 20;
/// Keys of the memory bench, and how many go into one transaction.
const KEYS: usize = 1_000_000;
const BATCH: usize = 100;
/// How many pages of ten keys are read from among them.
const PAGES: usize = 1_000;
/// As long as a small value is: 32 bytes.
const VALUE: &str = "12345678901234567890123456789012";

/// From the call of `start()` to the first put that is answered.
pub(super) async fn start() -> anyhow::Result<Vec<Case>> {
    eprintln!("{START}: {STARTS} starts");
    let (mut started, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begin = Instant::now();
        let server = Server::start().await?;
        started.push(begin.elapsed().as_secs_f64() * 1e3);
        let mut client = Client::connect([server.endpoint()], None).await?;
        client.put("a", "1", None).await?;
        answered.push(begin.elapsed().as_secs_f64() * 1e3);
        server.stop().await;
    }
    let case = |until: &str, samples: &[f64]| Case {
        better: Better::Lower,
        targets: vec![Target::AtMost(20.0)],
        ..Case::rate(START, "ms", &[("until", json!(until))], median(samples))
    };
    Ok(vec![case("it listens", &started), case("a put is answered", &answered)])
}

/// Puts per second, small ones, each task to a key of its own; the two servers take turns.
pub(super) async fn puts(plan: &Plan) -> anyhow::Result<Vec<Case>> {
    // Beside this program, which is on a disk; the system's folder for such things may be in memory.
    let program = std::env::current_exe()?;
    let folder = tempfile::tempdir_in(program.parent().context("a program without a folder")?)?;
    let real = match Source::find().await {
        Ok(Source::Embed) | Err(_) => {
            eprintln!("{PUTS}: no real etcd to be had, so there is nothing to compare with");
            None
        }
        Ok(_) => Some(Member::builder().data_dir(folder.path()).fsync(true).start_one().await),
    };
    let server = Server::start().await?;
    let mut cases = Vec::new();
    for tasks in TASKS {
        eprintln!("{PUTS}: {tasks} tasks");
        let (mut inside, mut tcp, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=plan.windows {
            let window = if round == 0 { plan.warm_up } else { plan.window };
            let channel = etcd_client::Channel::Tonic(server.channel());
            let rates = [
                put_for(Client::from_channel(channel, None).await?, tasks, window).await?,
                put_for(Client::connect([server.endpoint()], None).await?, tasks, window).await?,
            ];
            let beside = match &real {
                Some(real) => {
                    Some(put_for(Client::connect([real.endpoint()], None).await?, tasks, window).await?)
                }
                None => None,
            };
            if round > 0 {
                let [first, second] = rates;
                inside.push(first);
                tcp.push(second);
                raw.extend(beside);
            }
        }
        for (way, ours) in [("within the process", inside), ("tcp", tcp)] {
            cases.push(Case {
                raw: real.is_some().then(|| median(&raw)),
                targets: vec![Target::OfRaw(3.0)],
                ..Case::rate(PUTS, "puts/s", &[("tasks", json!(tasks)), ("way", json!(way))], median(&ours))
            });
        }
    }
    server.stop().await;
    Ok(cases)
}

async fn put_for(client: Client, tasks: usize, window: Duration) -> anyhow::Result<f64> {
    let end = Instant::now() + window;
    let mut crew = JoinSet::new();
    for task in 0..tasks {
        let mut client = client.clone();
        crew.spawn(async move {
            let mut done = 0_u64;
            while Instant::now() < end {
                client.put(format!("put/{task}"), VALUE, None).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(finished) = crew.join_next().await {
        done += finished??;
    }
    Ok(per_second(done, window.as_secs_f64()))
}

/// What a million keys weigh, and how fast they are found.
pub(super) async fn million() -> anyhow::Result<Vec<Case>> {
    eprintln!("{MEMORY}: {KEYS} keys of 16 bytes with values of 32");
    // In a process of its own, so that the client's memory is not counted.
    let mut hand = Hand::hire()?;
    hand.order(&Order::Serve).await?;
    let Answer::Serving { endpoint } = hand.answer().await? else { bail!("a child process did not serve") };
    let mut client = Client::connect([endpoint], None).await?;
    client.put("warm", "up", None).await?;
    let before = weigh(&mut hand).await?;
    let begin = Instant::now();
    for batch in 0..KEYS / BATCH {
        let put = |index: usize| TxnOp::put(key(batch * BATCH + index), VALUE, None);
        client.txn(Txn::new().and_then((0..BATCH).map(put).collect::<Vec<_>>())).await?;
    }
    let filled = begin.elapsed().as_secs_f64();
    let bytes = weigh(&mut hand).await?.saturating_sub(before);
    let keys = u64::try_from(KEYS)?;
    let weight = per_second(bytes, 1.0) / per_second(keys, 1.0);
    let page = timed(PAGES, |index| {
        let mut client = client.clone();
        async move {
            let options = GetOptions::new().with_prefix().with_limit(10);
            let from = key(index * (KEYS / PAGES));
            let found = client.get(from.as_str(), None).await?;
            anyhow::ensure!(found.count() == 1, "{from} is missing");
            let page = client.get("k", Some(options)).await?;
            anyhow::ensure!(
                page.count() == i64::try_from(KEYS)? && page.kvs().len() == 10,
                "a page is wrong"
            );
            Ok(())
        }
    })
    .await?;
    hand.dismiss().await?;
    let case = |what: &str, unit: &'static str, better, figure| Case {
        better,
        ..Case::rate(MEMORY, unit, &[("what", json!(what))], figure)
    };
    Ok(vec![
        case("memory of a key", "bytes", Better::Lower, weight),
        case("all written", "s", Better::Lower, filled),
        case("one key and a page of ten with the count of all", "ms", Better::Lower, page * 1e3),
    ])
}

async fn weigh(hand: &mut Hand) -> anyhow::Result<u64> {
    hand.order(&Order::Weigh).await?;
    let Answer::Resident { bytes } = hand.answer().await? else { bail!("a child process was not weighed") };
    Ok(bytes)
}

fn key(index: usize) -> String {
    format!("k{index:015}")
}

/// The median of what one takes, in seconds.
async fn timed<F>(times: usize, mut work: impl FnMut(usize) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut samples = Vec::with_capacity(times);
    for index in 0..times {
        let begin = Instant::now();
        work(index).await?;
        samples.push(begin.elapsed().as_secs_f64());
    }
    Ok(median(&samples))
}
