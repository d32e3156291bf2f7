//! Shows: a cache whose keys are shared out among its peers. When one comes or goes, only the keys that must move do.
//!
//! Run it: `cargo run --example peers_ring`. It needs no etcd: the peers find each other by survey.

use anyhow::Context;
use sereno_peers::core::spread;
use sereno_peers::{Client, ClientOptions, PeersStream, Server, ServerOptions};

/// What is in the cache.
const KEYS: usize = 1000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Anywhere that all can reach; a client may be given several servers.
    let server = Server::bind("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", ServerOptions::default()).await?;
    let join = |name: &str| {
        let options = ClientOptions::default();
        Client::with_subscription(server.survey_urls(), server.pubsub_urls(), name, options)
    };

    let (one, two, three) = (join("cache-1")?, join("cache-2")?, join("cache-3")?);
    let mut peers = one.peers()?;
    let before = ring(&mut peers, 3).await?;
    println!("peers: {}", before.peers.join(" "));

    // Every peer has the same list, and so shares out the keys in the same way.
    let elsewhere = ring(&mut two.peers()?, 3).await?;
    println!("all agree on every key: {}", before.owners == elsewhere.owners);

    let four = join("cache-4")?;
    let after = ring(&mut peers, 4).await?;
    println!("peers: {}", after.peers.join(" "));
    let moved: Vec<&String> = moved(&before, &after).collect();
    println!("all that moved went to cache-4: {}", moved.iter().all(|owner| *owner == "cache-4"));
    println!("{} of {KEYS} keys moved", moved.len());

    // As if it had crashed: its connection is lost, and it misses the next surveys.
    drop(four);
    let back = ring(&mut peers, 3).await?;
    println!("peers: {}", back.peers.join(" "));
    println!("every key is where it was: {}", back.owners == before.owners);

    for peer in [one, two, three] {
        peer.cancel().await;
    }
    server.cancel().await;
    Ok(())
}

/// Who is there, and which of them each key belongs to.
struct Ring {
    peers: Vec<String>,
    owners: Vec<String>,
}

/// The ring as it is once there are so many peers.
async fn ring(peers: &mut PeersStream, count: usize) -> anyhow::Result<Ring> {
    let peers = peers.wait_for(|names| names.len() == count).await?;
    let owner = |key: usize| {
        let members = peers.iter().map(|name| (spread::hash(name.as_bytes()), name));
        spread::owner(format!("key-{key}").as_bytes(), members).cloned().context("there is nobody")
    };
    let owners = (0..KEYS).map(owner).collect::<anyhow::Result<_>>()?;
    Ok(Ring { peers, owners })
}

/// The new owners of those keys that have another than before.
fn moved<'a>(before: &'a Ring, after: &'a Ring) -> impl Iterator<Item = &'a String> {
    let pairs = before.owners.iter().zip(&after.owners);
    pairs.filter(|(old, new)| old != new).map(|(_, new)| new)
}
