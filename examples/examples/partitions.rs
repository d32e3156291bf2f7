//! Shows: workers that share out a stream of orders by partition, and lose none when one of them is killed.
//!
//! Each partition is a topic with one cursor. [`sereno_seq`] says whose a partition is; its owner subscribes to the cursor, and
//! acknowledges what it has handled. Run it: `cargo run --example partitions`, with an etcd at `ETCD_ENDPOINTS` or
//! `http://127.0.0.1:2379`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use sereno_pubsub::{Error, From, NewCursor, SubscribeOptions, Topic};
use sereno_seq::core::{Client, Session, SessionOptions};
use sereno_seq::{Position, Sequence};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PARTITIONS: u32 = 12;
const ORDERS: u32 = 360;
/// The time to live of a worker's session: so long the partitions of a killed one wait for their next owner.
const TTL: Duration = Duration::from_secs(2);
/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("work"), Some(name)) => work(&name).await,
        _ => lead().await,
    }
}

fn topic(session: &Session, name: &str, partition: u32) -> Topic {
    Topic::new(session, format!("{name}-{partition}"))
}

/// One worker: handles the orders of its partitions, whichever these are, until standard input ends.
async fn work(name: &str) -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open_with(&client, SessionOptions::default().ttl(TTL)).await?;
    let member = Sequence::new(&session, name).join().await?;
    let mut positions = member.positions();
    let mut before: Option<Position> = None;
    let mut owned: BTreeMap<u32, JoinHandle<()>> = BTreeMap::new();
    let mut end = tokio::io::stdin();
    loop {
        let standing = tokio::select! {
            standing = positions.next() => standing.context("the session has ended")?,
            _ = end.read_u8() => break,
        };
        let moves = Position::moves(before.as_ref(), standing.as_ref().ok(), PARTITIONS);
        // What is lost is given up first, in the middle of an order if need be: its next owner gets that order again.
        for partition in &moves.lost {
            if let Some(task) = owned.remove(partition) {
                task.abort();
                drop(task.await);
            }
        }
        for partition in moves.gained {
            let task = serve(session.clone(), name.to_owned(), partition);
            owned.insert(partition, tokio::spawn(task));
        }
        before = standing.ok();
        println!("owns {}", owned.len());
    }
    owned.values().for_each(JoinHandle::abort);
    member.leave().await?;
    session.close().await?;
    Ok(())
}

/// Serves a partition for as long as it is this worker's: whoever loses it aborts this.
async fn serve(session: Session, name: String, partition: u32) {
    loop {
        match handle(&topic(&session, &name, partition)).await {
            // Another worker has subscribed. If the partition has become its own, this task is about to end; if not, the other one
            // has not heard yet that this one has it.
            Err(Error::CursorTaken) => eprintln!("partition {partition} was taken over"),
            Err(error) => eprintln!("partition {partition}: {error}"),
            Ok(()) => return,
        }
        sleep(TTL / 4).await;
    }
}

async fn handle(topic: &Topic) -> sereno_pubsub::Result<()> {
    let from_the_first = SubscribeOptions::default().new_cursor(NewCursor::Oldest);
    let mut orders = topic.subscribe_with(From::cursor("workers"), from_the_first).await?;
    while let Some(order) = orders.next_message().await {
        let order = order?;
        let number: u32 = order.json()?;
        // The work itself.
        sleep(Duration::from_millis(20)).await;
        println!("handled {number}");
        // What was handled and is not acknowledged comes again, to the next owner.
        orders.ack(&order.position).await?;
    }
    Ok(())
}

/// Starts three workers, gives them orders, kills one of them, and sees to it that every order is handled.
async fn lead() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open(&client).await?;
    let name = format!("example-orders-{}", std::process::id());
    let topics: Vec<Topic> = (0..PARTITIONS).map(|partition| topic(&session, &name, partition)).collect();
    let (tell, mut told) = mpsc::channel(64);
    let mut workers = Vec::new();
    for number in 0..3 {
        workers.push(hire(&name, number, tell.clone())?);
    }
    let mut owned = BTreeMap::new();
    while !owns_all(&owned, 3) {
        let (worker, said) = hear(&mut told).await?;
        note(&mut owned, worker, &said)?;
    }
    println!("3 workers own {PARTITIONS} partitions");
    let publishing = tokio::spawn(publish(topics.clone()));

    let (mut handled, mut again) = (BTreeSet::new(), 0);
    let mut killed = false;
    // Two workers own all partitions when the lease of the killed one has run out.
    while handled.len() < ORDERS as usize || !owns_all(&owned, 2) {
        let (worker, said) = hear(&mut told).await?;
        if worker != 0 || !killed {
            note(&mut owned, worker, &said)?;
        }
        let Some(order) = said.strip_prefix("handled ") else { continue };
        again += u32::from(!handled.insert(order.parse::<u32>()?));
        if worker == 0 && !killed {
            killed = true;
            owned.remove(&0);
            println!("worker 0 is killed at its first order");
            workers.remove(0).kill().await?;
        }
    }
    publishing.await??;
    println!("all {ORDERS} orders were handled");
    println!("{again} of them twice: handled, and not acknowledged");

    for mut worker in workers {
        drop(worker.stdin.take());
        timeout(LONG, worker.wait()).await.context("a worker does not end")??;
    }
    for topic in topics {
        topic.remove().await?;
    }
    println!("nobody uses the topics any more: they are removed");
    session.close().await?;
    Ok(())
}

/// Waits for the next line of a worker.
async fn hear(told: &mut mpsc::Receiver<(usize, String)>) -> anyhow::Result<(usize, String)> {
    let heard = timeout(LONG, told.recv()).await.context("the workers are silent")?;
    heard.context("the workers have gone")
}

/// Notes how many partitions a worker owns, if it says so.
fn note(owned: &mut BTreeMap<usize, u32>, worker: usize, said: &str) -> anyhow::Result<()> {
    if let Some(count) = said.strip_prefix("owns ") {
        owned.insert(worker, count.parse()?);
    }
    Ok(())
}

/// True when so many workers own all partitions among them.
fn owns_all(owned: &BTreeMap<usize, u32>, workers: usize) -> bool {
    owned.len() == workers && owned.values().sum::<u32>() == PARTITIONS
}

/// Gives each order to its partition.
async fn publish(topics: Vec<Topic>) -> sereno_pubsub::Result<()> {
    for (number, topic) in (0..ORDERS).zip(topics.iter().cycle()) {
        topic.publish_json(&number).await?;
    }
    Ok(())
}

/// Starts a worker, and passes on what it says.
fn hire(name: &str, number: usize, tell: mpsc::Sender<(usize, String)>) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["work", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
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
