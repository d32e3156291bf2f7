//! Shows: processes that share out twelve shards by their positions, and share them out anew when one of them is killed.
//!
//! Run it: `cargo run --example seq`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use sereno_seq::core::{Client, Session, SessionOptions};
use sereno_seq::{Position, Sequence};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

const SHARDS: u32 = 12;
/// How long a killed worker's shards lie fallow.
const TTL: Duration = Duration::from_secs(2);
/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("work"), Some(group)) => work(&group).await,
        _ => lead().await,
    }
}

/// One worker: says what its share is, each time it changes, until standard input ends.
async fn work(group: &str) -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open_with(&client, SessionOptions::default().ttl(TTL)).await?;
    let member = Sequence::new(&session, group).join().await?;
    let mut positions = member.positions();
    let mut before: Option<Position> = None;
    let mut end = tokio::io::stdin();
    loop {
        let standing = tokio::select! {
            standing = positions.next() => standing.context("the session has ended")?,
            _ = end.read_u8() => break,
        };
        // What is lost must be given up first: this is where a worker would stop working on it.
        let moves = Position::moves(before.as_ref(), standing.as_ref().ok(), SHARDS);
        let mine = standing.as_ref().map(|position| position.partitions(SHARDS)).unwrap_or_default();
        println!("{} gained {:?} lost {:?} has {mine:?}", shown(&standing), moves.gained, moves.lost);
        before = standing.ok();
    }
    member.leave().await?;
    session.close().await?;
    Ok(())
}

fn shown(standing: &sereno_seq::Standing) -> String {
    standing.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

/// Starts three workers, kills one, and tells how the shards move.
async fn lead() -> anyhow::Result<()> {
    // Before any worker complains of it three times over.
    Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let group = format!("example-workers-{}", std::process::id());
    let (tell, mut told) = mpsc::channel(64);
    let mut workers = Vec::new();
    for number in 0..3 {
        workers.push(hire(&group, number, tell.clone())?);
    }
    let mut shares = BTreeMap::new();
    settle(&mut told, &mut shares, 3).await?;

    println!("worker 0 is killed");
    let mut first = workers.remove(0);
    first.kill().await?;
    // Its share is as it was until its lease has run out: nobody else can know sooner that it does not work any more.
    shares.remove(&0);
    settle(&mut told, &mut shares, 2).await?;

    for mut worker in workers {
        drop(worker.stdin.take());
        tokio::time::timeout(LONG, worker.wait()).await.context("a worker does not end")??;
    }
    Ok(())
}

/// Starts a worker, and passes on what it says.
fn hire(group: &str, number: usize, tell: mpsc::Sender<(usize, String)>) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["work", group]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut worker = command.spawn().context("cannot start a worker")?;
    let mut lines = BufReader::new(worker.stdout.take().context("a worker has no stdout")?).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if tell.send((number, line)).await.is_err() {
                return;
            }
        }
    });
    Ok(worker)
}

/// Listens until each shard has one owner among so many workers.
async fn settle(
    told: &mut mpsc::Receiver<(usize, String)>,
    shares: &mut BTreeMap<usize, Vec<u32>>,
    workers: usize,
) -> anyhow::Result<()> {
    loop {
        let heard = tokio::time::timeout(LONG, told.recv()).await.context("the workers are silent")?;
        let (worker, line) = heard.context("the workers have gone")?;
        println!("worker {worker}: {line}");
        let Some((_, list)) = line.rsplit_once(" has ") else { bail!("not a share: {line}") };
        shares.insert(worker, serde_json::from_str(list)?);
        let mut all: Vec<u32> = shares.values().flatten().copied().collect();
        all.sort_unstable();
        if shares.len() == workers && all.iter().copied().eq(0..SHARDS) {
            println!("{workers} workers have all {SHARDS} shards, each one once");
            return Ok(());
        }
    }
}
