//! `sp/push-pull` and `sp/fast-and-slow`: messages from a PUSH to a PULL, beside zeromq's crate in the same process, and beside a
//! pair of `nngcat` and one of `nanocat` as they come.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::json;
use sereno_sp::{Pull, Push, Queue, SocketOptions};
use zeromq::{PullSocket, PushSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use super::case::{Better, Case, Target};
use super::counting::per_second;
use super::cpu;
use super::plan::Plan;
use super::sample::median;

pub(super) const NAME: &str = "sp/push-pull";
pub(super) const SPLIT: &str = "sp/fast-and-slow";

/// Bytes of a message, and how many times zeromq's rate is wanted.
const SIZES: [(usize, f64); 2] = [(64, 0.8), (1024, 1.0)];
const TRANSPORTS: [&str; 2] = ["tcp", "ipc"];
/// Messages between two looks at the clock.
const BATCH: u64 = 256;
const LIMIT: Duration = Duration::from_secs(60);
/// A tool that says nothing for so long is left out.
const SILENT: Duration = Duration::from_secs(5);
/// Messages of the split, and what the slow puller takes for each.
const JOBS: u64 = 20_000;
const SLOW: Duration = Duration::from_millis(1);

/// One window: messages per second, and microseconds of computing for each.
struct Window {
    rate: f64,
    cpu: f64,
}

pub(super) async fn measure(plan: &Plan) -> anyhow::Result<Vec<Case>> {
    let folder = tempfile::tempdir()?;
    let mut places = 0_u32;
    let mut place = |transport: &str| {
        places += 1;
        match transport {
            "tcp" => "tcp://127.0.0.1:0".to_owned(),
            _ => format!("ipc://{}/{places}", folder.path().display()),
        }
    };
    let mut cases = Vec::new();
    for transport in TRANSPORTS {
        for (size, wanted) in SIZES {
            eprintln!("{NAME}: {transport}, {size} bytes");
            let (mut ours, mut zeromq, mut nng, mut nano) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for round in 0..=plan.windows {
                let window = if round == 0 { plan.warm_up } else { plan.window };
                let sp = sp(&place(transport), size, window).await?;
                let zmq = zmq(&place(transport), size, window).await?;
                // They listen where they are told: a port that was free a moment ago.
                let told = |place: String| if transport == "tcp" { free() } else { Ok(place) };
                let tools = [
                    tool("nngcat", &["--raw"], &told(place(transport))?, size, window)?,
                    tool("nanocat", &["--raw"], &told(place(transport))?, size, window)?,
                ];
                if round > 0 {
                    ours.push(sp);
                    zeromq.push(zmq);
                    let [first, second] = tools;
                    nng.extend(first);
                    nano.extend(second);
                }
            }
            let rates = |windows: &[Window]| windows.iter().map(|window| window.rate).collect::<Vec<_>>();
            let cpus = |windows: &[Window]| windows.iter().map(|window| window.cpu).collect::<Vec<_>>();
            let case = |what: &str, unit, figure| {
                let case = [("transport", json!(transport)), ("bytes", json!(size)), ("what", json!(what))];
                Case::rate(NAME, unit, &case, figure)
            };
            let rate = median(&rates(&ours));
            cases.push(Case {
                textbook: Some(median(&rates(&zeromq))),
                targets: vec![Target::OfTextbook(wanted)],
                ..case("beside zeromq", "msg/s", rate)
            });
            cases.push(Case {
                better: Better::Lower,
                textbook: Some(median(&cpus(&zeromq))),
                ..case("computing of both ends, beside zeromq", "us/msg", median(&cpus(&ours)))
            });
            for (name, rates) in [("beside a pair of nngcat", &nng), ("beside a pair of nanocat", &nano)] {
                if rates.is_empty() {
                    eprintln!("{NAME}: that tool is not installed, so there is nothing {name}");
                } else {
                    cases.push(Case { textbook: Some(median(rates)), ..case(name, "msg/s", rate) });
                }
            }
        }
    }
    Ok(cases)
}

async fn sp(place: &str, size: usize, window: Duration) -> anyhow::Result<Window> {
    let (push, pull) = (Push::new(), Pull::new());
    pull.dial(push.listen(place).await?)?;
    push.connected(1).await?;
    let body = Bytes::from(vec![7; size]);
    let sender = push.clone();
    let (computed, begun) = (cpu::seconds()?, Instant::now());
    let sending = tokio::spawn(async move {
        let begun = Instant::now();
        while begun.elapsed() < window {
            for _ in 0..BATCH {
                sender.send(body.clone()).await?;
            }
        }
        // The last one.
        sender.send(Bytes::new()).await
    });
    let receiving = async {
        let mut messages = 0_u64;
        while !pull.recv().await?.is_empty() {
            messages += 1;
        }
        anyhow::Ok(messages)
    };
    let messages =
        tokio::time::timeout(LIMIT, receiving).await.context("the last message does not come")??;
    let took = begun.elapsed().as_secs_f64();
    let window = window_of(messages, took, cpu::seconds()? - computed);
    sending.await??;
    push.close().await;
    Ok(window)
}

async fn zmq(place: &str, size: usize, window: Duration) -> anyhow::Result<Window> {
    let mut push = PushSocket::new();
    let endpoint = push.bind(place).await?.to_string();
    let mut pull = PullSocket::new();
    pull.connect(&endpoint).await?;
    // It has no word for "connected".
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = Bytes::from(vec![7; size]);
    let (computed, begun) = (cpu::seconds()?, Instant::now());
    let sending = tokio::spawn(async move {
        let begun = Instant::now();
        while begun.elapsed() < window {
            for _ in 0..BATCH {
                push.send(ZmqMessage::from(body.clone())).await?;
            }
        }
        push.send(ZmqMessage::from(Bytes::new())).await?;
        // What is dropped now might not have been sent.
        anyhow::Ok(push)
    });
    let receiving = async {
        let mut messages = 0_u64;
        while pull.recv().await?.get(0).is_some_and(|part| !part.is_empty()) {
            messages += 1;
        }
        anyhow::Ok(messages)
    };
    let messages =
        tokio::time::timeout(LIMIT, receiving).await.context("the last message does not come")??;
    let took = begun.elapsed().as_secs_f64();
    let window = window_of(messages, took, cpu::seconds()? - computed);
    drop(sending.await??);
    Ok(window)
}

fn window_of(messages: u64, took: f64, computed: f64) -> Window {
    Window { rate: per_second(messages, took), cpu: computed * 1e6 / per_second(messages, 1.0) }
}

/// What two processes of a tool do by themselves; `None` where it is not installed.
fn tool(
    name: &str,
    format: &[&str],
    place: &str,
    size: usize,
    window: Duration,
) -> anyhow::Result<Option<f64>> {
    let body = "x".repeat(size);
    let mut push = Command::new(name);
    push.args(["--push", "--bind", place, "--data", &body, "--interval", "0"]);
    let Some(_push) = Running::start(push)? else { return Ok(None) };
    listens(place)?;
    let mut pull = Command::new(name);
    pull.args(["--pull", "--connect", place]).args(format).stdout(Stdio::piped());
    let mut pull = Running::start(pull)?.context("a tool that has just been started is not there")?;
    let mut told = pull.0.stdout.take().context("a tool has no stdout")?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    // It ends with the tool.
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = told.read(&mut buffer) {
            counted.fetch_add(read as u64, Ordering::Relaxed);
        }
    });
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) == 0 {
        if begun.elapsed() > SILENT {
            eprintln!("{NAME}: a pair of {name} is silent at {place}");
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    std::thread::sleep(window);
    let messages = (count.load(Ordering::Relaxed) - before) / u64::try_from(size)?;
    Ok(Some(per_second(messages, begun.elapsed().as_secs_f64())))
}

/// Waits until somebody listens: `nngcat` does not try again.
fn listens(place: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let is_there = || match place.split_once("://") {
        Some(("tcp", address)) => TcpStream::connect(address).is_ok(),
        // One that comes and goes would be given the first messages.
        Some((_, path)) => Path::new(path).exists(),
        None => false,
    };
    while !is_there() {
        ensure!(begun.elapsed() < LIMIT, "a tool does not listen at {place}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends with this.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> anyhow::Result<Option<Self>> {
        match command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Ok(Some(Self(child))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> anyhow::Result<String> {
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    Ok(format!("tcp://{address}"))
}

/// A puller that takes its time and one that does not, from one PUSH: how many each gets, and when all is done.
pub(super) async fn split() -> anyhow::Result<Vec<Case>> {
    eprintln!("{SPLIT}: {JOBS} messages");
    let options = || SocketOptions::default().recv_queue(Queue::of(16));
    let (push, fast, slow) = (Push::new(), Pull::with_options(options()), Pull::with_options(options()));
    let address = push.listen("tcp://127.0.0.1:0").await?;
    fast.dial(&address)?;
    slow.dial(&address)?;
    push.connected(2).await?;
    let body = Bytes::from(vec![7; 64]);
    let begun = Instant::now();
    let sender = push.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..JOBS {
            sender.send(body.clone()).await?;
        }
        Ok::<(), sereno_sp::Error>(())
    });
    let (mut by_fast, mut by_slow) = (0_u64, 0_u64);
    let busy = tokio::time::sleep(SLOW);
    let mut busy = std::pin::pin!(busy);
    let mut idle = false;
    let all = async {
        while by_fast + by_slow < JOBS {
            tokio::select! {
                biased;
                () = &mut busy, if !idle => idle = true,
                message = slow.recv(), if idle => {
                    message?;
                    by_slow += 1;
                    idle = false;
                    busy.as_mut().reset(tokio::time::Instant::now() + SLOW);
                }
                message = fast.recv() => {
                    message?;
                    by_fast += 1;
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, all).await.context("not all messages come")??;
    let took = begun.elapsed().as_secs_f64();
    sending.await??;
    let case = |what: &str, unit, figure| Case {
        better: Better::Lower,
        ..Case::rate(SPLIT, unit, &[("what", json!(what))], figure)
    };
    // With a half each it would take as long as the slow one takes for its half.
    let alone = per_second(JOBS, 1.0) * SLOW.as_secs_f64();
    Ok(vec![
        case("share of the slow one", "%", 100.0 * per_second(by_slow, 1.0) / per_second(JOBS, 1.0)),
        Case { textbook: Some(alone / 2.0), ..case("all are done", "s", took) },
    ])
}
