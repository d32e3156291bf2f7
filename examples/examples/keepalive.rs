//! Shows: nodes that are there for as long as their processes live, and a group that sees them come, change and go.
//!
//! Run it: `cargo run --example keepalive`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use anyhow::Context;
use sereno_keepalive::core::{Client, Op, Session, Txn};
use sereno_keepalive::{Event, Group, KeepAlive, Members};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    // As if there were two processes. A session's time to live is how long a node outlives a crash.
    let (one, two) = (Session::open(&client).await?, Session::open(&client).await?);

    // Whoever looks on needs no session.
    let group = Group::new(&client, "example-nodes");
    let mut members = group.watch().await?;

    let n1 = KeepAlive::new(&one, "example-nodes", "n1").announce("10.0.0.1:80").await?;
    let _n2 = KeepAlive::new(&two, "example-nodes", "n2").announce("10.0.0.2:80").await?;
    let alive: Vec<String> = group.alive().await?.into_iter().map(|node| node.name).collect();
    println!("alive: {}", alive.join(" "));

    // In place: nobody sees n1 go and come.
    n1.update("10.0.0.1:8080").await?;
    // Somebody deletes a key that is not theirs. The node is back before most would notice.
    let key = client.namespace().prefix("keepalive")?.join("example-nodes")?.key("n1")?;
    client.settle(&Txn::new().then(Op::delete(&key))).await?;
    until(&mut members, |event| matches!(event, Event::Joined(node) if node.value == "10.0.0.1:8080"))
        .await?;

    // A process ends: all that stood on its session goes at once. After a crash it would go when the lease has run out.
    two.close().await?;
    until(&mut members, |event| matches!(event, Event::Left(node) if node.name == "n2")).await?;

    // Unlike a drop, this waits until it is so.
    n1.leave().await?;
    println!("alive: {}", group.alive().await?.len());
    one.close().await?;
    Ok(())
}

/// Tells what happens until something does.
async fn until(members: &mut Members, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<()> {
    loop {
        let event = members.next().await.context("the watch has ended")??;
        match &event {
            Event::Snapshot(nodes) => println!("{} were there before", nodes.len()),
            Event::Joined(node) => println!("{} joined with {:?}", node.name, node.value),
            Event::Changed { new, .. } => println!("{} is now at {:?}", new.name, new.value),
            Event::Left(node) => println!("{} left", node.name),
            other => println!("{other:?}"),
        }
        if wanted(&event) {
            return Ok(());
        }
    }
}
