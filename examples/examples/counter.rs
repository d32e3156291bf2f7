//! Shows: a counter that two processes' sessions add to at the same time, each told the value right after its own addition.
//!
//! Run it: `cargo run --example counter`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use anyhow::Context;
use sereno_counter::core::{Client, Session};
use sereno_counter::{Counter, Error};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    // A session is what a process has one of. Here are two, as if there were two processes.
    let (here, there) = (Session::open(&client).await?, Session::open(&client).await?);
    let (a, b) = (Counter::new(&here, "visits"), Counter::new(&there, "visits"));

    // `set` is for everyone, whatever was counted before: run this example twice and it begins at 100 again.
    a.set(100).await?;

    // Nobody waits for a lock and nobody has to try again: additions cannot get in each other's way.
    let mut values = Vec::new();
    for _ in 0..5 {
        let (one, two) = tokio::try_join!(a.add(1), b.add(1))?;
        values.extend([one, two]);
    }
    values.sort_unstable();
    println!("ten additions of 1 were told {values:?}");

    println!("three back: {}", b.add(-3).await?);

    // What did not happen is an error that says why.
    match a.compare_and_set(100, 0).await {
        Err(Error::Mismatch { actual, .. }) => println!("not set to 0: it is not 100 but {actual}"),
        other => println!("set: {other:?}"),
    }
    match a.add(i64::MAX).await {
        Err(error @ Error::Overflow { .. }) => println!("refused: {error}"),
        other => println!("added: {other:?}"),
    }

    // A watch begins with the present value. Whoever is slow sees fewer values, never old ones.
    let mut changes = a.watch().await?;
    b.add(35).await?;
    while let Some(value) = changes.next().await.transpose()? {
        println!("watched: {value}");
        if value == b.get().await? {
            break;
        }
    }

    // In order: what each session has added becomes part of the counter, and its lease is given back.
    here.close().await?;
    there.close().await?;
    Ok(())
}
