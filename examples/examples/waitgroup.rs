//! Shows: waiting until the work of several processes is done, and being told when one of them dies instead.
//!
//! Run it: `cargo run --example waitgroup`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use std::time::{Duration, Instant};

use anyhow::Context;
use sereno_waitgroup::core::{Client, Session};
use sereno_waitgroup::{Error, WaitGroup};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open(&client).await?;
    let group = WaitGroup::new(&session, "batch-7");

    // Counted work, as with sync.WaitGroup: whoever adds, whoever is done, in whatever process.
    group.add(3).await?;
    for task in 1..=3 {
        let group = group.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50 * task)).await;
            if let Err(error) = group.done().await {
                eprintln!("task {task}: {error}");
            }
        });
    }
    let start = Instant::now();
    group.wait().await?;
    println!("three tasks are done after {} ms", start.elapsed().as_millis());

    // One done too many is the mistake of the one who made it; nobody who waits is affected.
    if let Err(error @ Error::TooManyDone { .. }) = group.done().await {
        println!("refused: {error}");
    }

    // Workers that enter are noticed when they die. This one has a session of its own, as another process would.
    let theirs = Session::open(&client).await?;
    let worker = WaitGroup::new(&theirs, "batch-7").enter("node-3").await?;
    println!("{} has entered; {} is outstanding", worker.label(), group.count().await?);
    // It goes without a word. A crash is the same, only noticed later: when the lease has run out.
    theirs.close().await?;

    match group.wait().await {
        Err(Error::WorkerDied { workers }) => {
            for died in workers {
                println!("{} died before it was done", died.label);
                // By choice: give up, or take its work over and take it out of the group.
                group.dismiss(&died.id).await?;
            }
        }
        other => println!("waited: {other:?}"),
    }
    group.wait().await?;
    println!("nobody is waited for any more");
    session.close().await?;
    Ok(())
}
