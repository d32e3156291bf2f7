//! Shows: a load balancer. A TCP proxy whose backends are the peers that are there: one that dies is passed over at once and
//! forgotten soon, one that comes is used.
//!
//! Run it: `cargo run --example peers_proxy`. It needs no etcd: the backends are found by survey.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use sereno_peers::{Client, ClientOptions, PeersStream, Server, ServerOptions, Subscriber};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = ServerOptions::default().poll_time(Duration::from_millis(500));
    let server = Server::bind("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", options).await?;

    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(backend(&server).await?);
    }
    // The proxy is no backend: it looks on.
    let subscriber = Subscriber::connect(server.pubsub_urls())?;
    let proxy = Proxy::start(subscriber.changes()).await?;
    proxy.has(3).await?;
    println!("backends: 3");
    let answers = ask(&proxy, 30).await?;
    println!("30 connections, each backend had {:?}", answers.values().collect::<Vec<_>>());

    // One dies. Before anybody knows, those who connect go on to the next.
    let (victim, running) = backends.pop().context("there are three")?;
    running.abort();
    let died = running.await.is_err_and(|end| end.is_cancelled());
    let answers = ask(&proxy, 30).await?;
    println!("one died: {died}, and of 30 connections {} succeeded", answers.values().sum::<usize>());
    let names = proxy.has(2).await?;
    println!("backends: 2, the dead one among them: {}", names.contains(&victim));

    // Another takes its place.
    let (newcomer, _running) = backend(&server).await?;
    proxy.has(3).await?;
    println!("backends: 3, the new one is used: {}", ask(&proxy, 3).await?.contains_key(&newcomer));

    subscriber.cancel().await;
    server.cancel().await;
    Ok(())
}

/// Starts a backend that tells whoever connects its name: the address by which it is reached, and under which it is a peer.
async fn backend(server: &Server) -> anyhow::Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let name = listener.local_addr()?.to_string();
    let peer = Client::connect(server.survey_urls(), &*name, ClientOptions::default())?;
    let answer = name.clone();
    let running = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever has gone meanwhile needs no answer.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        drop(peer);
    });
    Ok((name, running))
}

/// The proxy.
struct Proxy {
    address: String,
    backends: watch::Receiver<Vec<String>>,
}

impl Proxy {
    /// Serves for as long as the list of backends is followed.
    async fn start(mut peers: PeersStream) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (known, backends) = watch::channel(Vec::new());
        let used = backends.clone();
        tokio::spawn(async move {
            let mut turn = 0_usize;
            loop {
                tokio::select! {
                    names = peers.next() => match names {
                        Some(Ok(names)) => drop(known.send_replace(names)),
                        Some(Err(error)) => eprintln!("{error}"),
                        None => return,
                    },
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        tokio::spawn(serve(stream, used.borrow().clone(), turn));
                        turn = turn.wrapping_add(1);
                    },
                }
            }
        });
        Ok(Self { address, backends })
    }

    /// Waits until it has so many backends.
    async fn has(&self, count: usize) -> anyhow::Result<Vec<String>> {
        Ok(self.backends.clone().wait_for(|names| names.len() == count).await?.clone())
    }
}

/// Connects to the backend whose turn it is, or to the next that is there.
async fn serve(mut stream: TcpStream, names: Vec<String>, first: usize) {
    for at in 0..names.len() {
        let Some(name) = names.get((first + at) % names.len()) else { return };
        if let Ok(mut backend) = TcpStream::connect(name).await {
            // Either side may end it as it likes.
            let _ = copy_bidirectional(&mut stream, &mut backend).await;
            return;
        }
    }
}

/// Connects so often, and counts which backend answered how often.
async fn ask(proxy: &Proxy, times: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let mut answer = String::new();
        TcpStream::connect(&proxy.address).await?.read_to_string(&mut answer).await?;
        anyhow::ensure!(!answer.is_empty(), "no backend answered");
        *answers.entry(answer).or_default() += 1;
    }
    Ok(answers)
}
