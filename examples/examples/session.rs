//! Shows: what every recipe stands on: a session, its epochs, and what becomes of things when one is lost.
//!
//! Run it: `cargo run --example session`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use std::time::Duration;

use anyhow::Context;
use sereno_core::{Client, Compare, Conflict, Op, Outcome, Session, SessionOptions, SessionState, Txn};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(5))).await?;
    let mut events = session.events();

    // An epoch is one lease. Its token grows from epoch to epoch, whoever's they are: a fence against those who were
    // only thought alive.
    let first = session.valid_epoch()?;
    println!("epoch {} is valid for {} s", first.number(), first.remaining().as_secs_f64().round());

    let keys = client.namespace().prefix("example")?;
    // Presence: to be there again after a loss is what one wants.
    let here = session.keep(&keys.key("here")?, "n1", Conflict::TakeOver).await?;
    // Ownership: to own again what somebody else may have taken meanwhile is what one does not want.
    let owned = keys.key("owned")?;
    let take = Txn::new().when(Compare::absent(&owned)).then(Op::put_leased(&owned, "mine", &first));
    println!("owned: {}", client.settle(&take).await?.reply.succeeded);

    // Somebody else ends our epoch: an operator, or etcd itself after a long silence of ours.
    client.settle(&Txn::new().then(Op::delete(first.key()))).await?;
    println!("epoch {} was lost: {}", first.number(), first.lost().await);

    while let Some(status) = events.next().await {
        println!("epoch {}: {:?}", status.epoch, status.state);
        if status.state == SessionState::Connected {
            break;
        }
    }
    let second = session.next_epoch(first.number()).await?;
    println!("epoch {} has a higher token: {}", second.number(), second.token() > first.token());

    let mut status = here.status();
    let mut here = here;
    while status.epoch != second.number() {
        status = here.changed().await.context("the presence has ended")?;
    }
    println!("presence was restored {} time(s)", status.restored);
    println!("owned is {:?}", client.get(&owned).await?.map(|kv| kv.value));

    // Whatever was still to be done under the old epoch is refused by etcd, not by good will.
    let late = Txn::new().when(first.fence()).then(Op::put(&owned, "late"));
    if let Outcome::NotApplied(_) = client.commit(&late).await? {
        println!("a late write of epoch {} was refused", first.number());
    }
    session.close().await?;
    Ok(())
}
