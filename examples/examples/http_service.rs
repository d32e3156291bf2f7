//! Shows: an HTTP service of two processes, and a client that follows the registry while they are restarted one after the
//! other, again and again, and loses no request.
//!
//! Run it: `cargo run --example http_service`, with an etcd at `ETCD_ENDPOINTS` or `http://127.0.0.1:2379`. A number behind
//! `--` is how many requests are sent at least.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sereno_discovery::core::Client;
use sereno_discovery::{
    Balancer, BalancerOptions, Directory, Host, Registry, RegistryOptions, Strategy, View,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

const REQUESTS: u64 = 20_000;
/// Requests under way at the same time.
const TASKS: usize = 8;
/// From saying that it shall not be chosen any more until an instance stops: followers hear of it within milliseconds, and
/// within this even on a machine that is very busy.
const GRACE: Duration = Duration::from_millis(500);
/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("serve"), Some(service)) => serve(&service).await,
        (Some(requests), _) => lead(requests.parse().context("a number of requests")?).await,
        _ => lead(REQUESTS).await,
    }
}

/// One instance: serves and is registered until standard input ends, then leaves in order.
async fn serve(service: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    // It listens already: whoever finds it can connect.
    let registry = Registry::open(&client, RegistryOptions::default());
    let registration = registry.register(service, Host::new("127.0.0.1").port("http", port))?;
    let app = Router::new().route("/", get(async move || format!("hello from port {port}")));
    let leave = async move {
        let _ = tokio::io::stdin().read_u8().await;
        // New requests go elsewhere from here on; those under way are finished, and so is what was sent before the word got
        // around.
        if let Err(error) = registration.drain().await {
            eprintln!("draining: {error}");
        }
        tokio::time::sleep(GRACE).await;
        if let Err(error) = registration.stop().await {
            eprintln!("stopping: {error}");
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(leave).await?;
    registry.close().await?;
    Ok(())
}

/// What the clients have seen.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    again: AtomicU64,
    enough: AtomicBool,
}

/// Restarts the instances in turn while clients send requests.
async fn lead(requests: u64) -> anyhow::Result<()> {
    let client = Client::from_env().await.context("there is no etcd at ETCD_ENDPOINTS")?;
    let service = format!("example-http-{}", std::process::id());
    let mut view = Directory::new(&client).follow(&service).await?;
    let mut instances = vec![start(&service)?, start(&service)?];
    instances_are(&mut view, 2).await?;

    let counts = Arc::new(Counts::default());
    let balancer = Balancer::new(&view, BalancerOptions::default().strategy(Strategy::LeastLoaded));
    let mut clients = JoinSet::new();
    for _ in 0..TASKS {
        clients.spawn(send(balancer.clone(), counts.clone()));
    }
    let mut restarts = 0;
    while restarts < 4 || counts.requests.load(Ordering::Relaxed) < requests {
        stop(instances.remove(0)).await?;
        instances_are(&mut view, 1).await?;
        instances.push(start(&service)?);
        instances_are(&mut view, 2).await?;
        restarts += 1;
    }
    counts.enough.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    for instance in instances {
        stop(instance).await?;
    }
    let [sent, failed, again] =
        [&counts.requests, &counts.failed, &counts.again].map(|count| count.load(Ordering::Relaxed));
    println!("restarts: {restarts}");
    println!("requests: {sent}, of which sent again to another instance: {again}");
    println!("failed: {failed}");
    ensure!(failed == 0, "requests were lost");
    Ok(())
}

fn start(service: &str) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", service]).stdin(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("cannot start an instance")
}

async fn stop(mut instance: Child) -> anyhow::Result<()> {
    drop(instance.stdin.take());
    let ended = tokio::time::timeout(LONG, instance.wait()).await.context("an instance does not end")??;
    ensure!(ended.success(), "an instance ended with {ended}");
    Ok(())
}

/// Waits until so many are there.
async fn instances_are(view: &mut View, wanted: usize) -> anyhow::Result<()> {
    let waiting = async {
        while view.len()? != wanted {
            view.changed().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONG, waiting).await.context("the instances do not come or go")?
}

/// Sends one request after the other until there were enough.
async fn send(balancer: Balancer, counts: Arc<Counts>) {
    let http: Http<HttpConnector, Empty<Bytes>> = Http::builder(TokioExecutor::new()).build_http();
    while !counts.enough.load(Ordering::Relaxed) {
        // A second instance is tried only when the first could not be connected to: nothing was done there.
        let mut answered = false;
        for attempt in 0..2 {
            match request(&http, &balancer).await {
                Ok(()) => answered = true,
                Err(Trouble::Unreachable) if attempt == 0 => {
                    counts.again.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(trouble) => eprintln!("a request failed: {trouble:?}"),
            }
            break;
        }
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.failed.fetch_add(u64::from(!answered), Ordering::Relaxed);
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "shown when a request fails")]
enum Trouble {
    Unreachable,
    Other(anyhow::Error),
}

async fn request(http: &Http<HttpConnector, Empty<Bytes>>, balancer: &Balancer) -> Result<(), Trouble> {
    let other = |error: anyhow::Error| Trouble::Other(error);
    let host = balancer.pick().map_err(|error| other(error.into()))?;
    let url = host.private_url("http", "/").map_err(|error| other(error.into()))?;
    let url = url.parse().map_err(|error: axum::http::uri::InvalidUri| other(error.into()))?;
    let answer = match tokio::time::timeout(LONG, http.get(url)).await {
        Ok(Ok(answer)) if answer.status().is_success() => answer.into_body().collect().await,
        Ok(Ok(answer)) => return Err(other(anyhow::anyhow!("status {}", answer.status()))),
        Ok(Err(error)) => {
            host.failed();
            return Err(if error.is_connect() { Trouble::Unreachable } else { other(error.into()) });
        }
        Err(late) => return Err(other(late.into())),
    };
    let body = answer.map_err(|error| other(error.into()))?.to_bytes();
    if !body.starts_with(b"hello from ") {
        return Err(other(anyhow::anyhow!("another answer")));
    }
    host.succeeded();
    Ok(())
}
