//! How fast messages go: `cargo run --release -p sereno-sp --example throughput -- [push|batch|share|req] [tcp|ipc|inproc] [bytes] [seconds] [pullers or window]`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sereno_sp::{Pull, Push, Rep, Req, SocketOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let (kind, transport) = (argument(0, "push"), argument(1, "tcp"));
    let size: usize = argument(2, "64").parse()?;
    let time = Duration::from_secs_f64(argument(3, "2").parse()?);
    let folder = std::env::temp_dir().join(format!("sereno-sp-throughput-{}", std::process::id()));
    let address = match transport.as_str() {
        "ipc" => format!("ipc://{}", folder.display()),
        "inproc" => "inproc://throughput".to_owned(),
        _ => "tcp://127.0.0.1:0".to_owned(),
    };
    let rate = match kind.as_str() {
        "push" | "batch" => push(&address, Bytes::from(vec![7; size]), time, kind == "batch").await?,
        "share" => share(&address, Bytes::from(vec![7; size]), time, argument(4, "2").parse()?).await?,
        "req" => {
            let window = argument(4, "256").parse()?;
            request(&address, Bytes::from(vec![7; size]), time, window).await?
        }
        other => return Err(format!("unknown kind {other:?}").into()),
    };
    println!("{kind} {transport} {size} B: {rate:.0} messages/s");
    Ok(())
}

/// One who pushes to several who pull.
async fn share(address: &str, body: Bytes, time: Duration, pullers: usize) -> sereno_sp::Result<f64> {
    let push = Push::new();
    let address = push.listen(address).await?;
    let mut receiving = Vec::new();
    for _ in 0..pullers {
        let pull = Pull::new();
        pull.dial(&address)?;
        receiving.push(tokio::spawn(async move {
            let mut count = 0_u64;
            while !pull.recv().await?.is_empty() {
                count += 1;
            }
            Ok::<_, sereno_sp::Error>(count)
        }));
    }
    push.connected(pullers).await?;
    let begun = Instant::now();
    while begun.elapsed() < time {
        for _ in 0..256 {
            push.send(body.clone()).await?;
        }
    }
    let mut counts = Vec::new();
    // A puller that has had its end does not pull any more, and another has the next.
    while counts.len() < pullers {
        push.send(Bytes::new()).await?;
        let mut rest = Vec::new();
        for receiving in receiving.drain(..) {
            if receiving.is_finished() {
                counts.extend(receiving.await.ok().and_then(Result::ok));
            } else {
                rest.push(receiving);
            }
        }
        receiving = rest;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = counts.iter().sum::<u64>() as f64 / begun.elapsed().as_secs_f64();
    println!("shared as {counts:?}");
    push.close().await;
    Ok(rate)
}

/// Requests that are answered at once, each with nothing, as a pipeline with acknowledgements has them.
async fn request(address: &str, body: Bytes, time: Duration, window: usize) -> sereno_sp::Result<f64> {
    let (req, rep) = (Req::with_options(SocketOptions::default().window(window)), Rep::new());
    rep.dial(&req.listen(address).await?)?;
    req.connected(1).await?;
    let answering = tokio::spawn(async move {
        while let Ok(request) = rep.recv().await {
            if request.reply(Bytes::new()).is_err() {
                break;
            }
        }
    });
    let begun = Instant::now();
    let mut count = 0_u64;
    while begun.elapsed() < time {
        for _ in 0..256 {
            req.post(body.clone()).await?;
        }
        count += 256;
    }
    req.flush().await?;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    req.close().await;
    answering.abort();
    Ok(rate)
}

async fn push(address: &str, body: Bytes, time: Duration, batch: bool) -> sereno_sp::Result<f64> {
    let (push, pull) = (Push::new(), Pull::new());
    pull.dial(&push.listen(address).await?)?;
    push.connected(1).await?;
    let sender = push.clone();
    let sending = tokio::spawn(async move {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if batch {
                sender.send_all(&mut std::iter::repeat_n(body.clone(), 256).collect()).await?;
            } else {
                for _ in 0..256 {
                    sender.send(body.clone()).await?;
                }
            }
        }
        sender.send(Bytes::new()).await
    });
    let begun = Instant::now();
    let mut count = 0_u64;
    if batch {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|last: &Bytes| !last.is_empty()) {
            messages.clear();
            count += pull.recv_many(&mut messages, 1024).await? as u64;
        }
    } else {
        while !pull.recv().await?.is_empty() {
            count += 1;
        }
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    if let Ok(sent) = sending.await {
        sent?;
    }
    push.close().await;
    Ok(rate)
}
