//! Shows: a destination whose messages go to every group once and to one member in each, and what becomes of a message that its
//! receiver does not acknowledge.
//!
//! Run it: `cargo run --example pipes`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use anyhow::Context;
use sereno_pipes::core::{Client, Session};
use sereno_pipes::{Destination, Group, GroupOptions, Member, Mode};

const MESSAGES: usize = 100;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    // As if there were two processes.
    let (sender, receiver) = (Session::open(&client).await?, Session::open(&client).await?);

    let orders = Destination::new(&sender, "example-orders").register().await?;
    // Audit is fast and may miss what a crash takes with it; billing wants each order, more than once if need be.
    let audit = Group::new(&receiver, "example-orders", "audit").join().await?;
    let billing = Group::with_options(
        &receiver,
        "example-orders",
        "billing",
        GroupOptions::default().mode(Mode::AtLeastOnce),
    );
    let (first, second) = (billing.join().await?, billing.join().await?);
    for group in orders.wait_for(2).await? {
        println!("group {}", group.name);
    }

    for number in 0..MESSAGES {
        orders.send(format!("order {number}")).await?;
    }
    println!("audit has {}", take(&audit, MESSAGES).await?);

    // What is dropped is given back: this order is for somebody else, or for the same one again.
    drop(first.recv().await?);
    let (mut billed, mut again) = (0, 0);
    while billed < MESSAGES {
        let order = tokio::select! {
            order = first.recv() => order?,
            order = second.recv() => order?,
        };
        again += usize::from(order.is_redelivered());
        order.ack()?;
        billed += 1;
    }
    println!("billing has {billed}, of which {again} came again");

    for member in [&audit, &first, &second] {
        member.leave().await?;
    }
    orders.unregister().await?;
    receiver.close().await?;
    sender.close().await?;
    Ok(())
}

/// Receives so many.
async fn take(member: &Member, count: usize) -> anyhow::Result<usize> {
    for _ in 0..count {
        member.recv().await?.ack()?;
    }
    Ok(count)
}
