//! Shows: 64-bit ids that sort by time, from processes that cannot make the same one twice.
//!
//! Run it: `cargo run --example id`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context;
use sereno_id::core::{Client, Session};
use sereno_id::{IdGenerator, decompose};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    // As if there were two processes on one machine, which would have one address but have two worker ids.
    let (one, two) = (Session::open(&client).await?, Session::open(&client).await?);
    let (a, b) = (IdGenerator::open(&one).await?, IdGenerator::open(&two).await?);
    anyhow::ensure!(a.workers() != b.workers(), "two live generators share a worker id");
    println!("worker ids {:?} and {:?}", a.workers(), b.workers());

    let id = a.next_id().await?;
    let parts = decompose(id);
    println!(
        "{id}: {} s after 1970, number {}, worker {}",
        parts.time.as_secs(),
        parts.sequence,
        parts.worker
    );

    // Each makes 256 ids in 10 ms; a generator with more worker ids makes as many times more.
    let start = Instant::now();
    let (mut mine, theirs) = tokio::try_join!(a.next_ids(5000), b.next_ids(5000))?;
    anyhow::ensure!(mine.is_sorted() && theirs.is_sorted(), "ids of one generator ascend");
    mine.extend(theirs);
    let different: BTreeSet<u64> = mine.into_iter().collect();
    println!("{} different ids of 10000 in {} ms", different.len(), start.elapsed().as_millis());

    // The worker ids are free for others from here on, and these generators make no more ids.
    one.close().await?;
    two.close().await?;
    match a.next_id().await {
        Err(error) => println!("no more ids: {error}"),
        Ok(id) => anyhow::bail!("{id} was made without a session"),
    }
    Ok(())
}
