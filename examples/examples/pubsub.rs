//! Shows: a topic with any number of subscribers, each of which sees every message in one order, from where it likes.
//!
//! Run it: `cargo run --example pubsub`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`.

use std::time::Instant;

use anyhow::Context;
use sereno_pubsub::core::{Client, Session};
use sereno_pubsub::{Draft, From, Topic};

const MANY: usize = 10_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let session = Session::open(&client).await?;
    let topic = Topic::new(&session, "example-news");

    // When `subscribe` has returned, nothing published from then on is missed.
    let mut live = topic.subscribe(From::Now).await?;

    let first = topic.publish("hello").await?;
    // Any bytes will do, and headers for what is not part of them.
    topic.publish(Draft::new(vec![0xff, 0x00]).header("content-type", "application/octet-stream")).await?;
    println!("two messages are published, the first at {first}");

    for _ in 0..2 {
        let message = live.next_message().await.context("the topic has ended")??;
        println!("heard {:?} {:?}", message.payload, message.headers.get("content-type"));
    }

    // Whoever was not there can begin at any position that is still kept. This one begins behind the first message.
    let mut late = topic.subscribe(From::Position(first)).await?;
    let message = late.next_message().await.context("the topic has ended")??;
    println!("heard later: {:?}", message.payload);

    // A publisher does not wait for each message and packs many into one round trip.
    let start = Instant::now();
    let mut publisher = topic.publisher();
    for number in 0..MANY {
        publisher.send_json(&number).await?;
    }
    publisher.flush().await?;
    let mut expected = 0;
    while expected < MANY {
        let number: usize = live.next_message().await.context("the topic has ended")??.json()?;
        anyhow::ensure!(number == expected, "{number} came instead of {expected}");
        expected += 1;
    }
    println!("{MANY} messages came in order within {} ms", start.elapsed().as_millis());

    // Nothing else has to be stopped: a subscription ends when it is dropped.
    session.close().await?;
    Ok(())
}
