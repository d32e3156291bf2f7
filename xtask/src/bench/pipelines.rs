//! `pipes/end-to-end` and `pipes/stalled`: messages of a destination to the member of a group, beside the bare sockets, and what a group
//! that does not read costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde_json::json;
use sereno_pipes::{
    Destination, DestinationOptions, Group, GroupOptions, Member, Mode, Registration, WhenFull,
};
use sereno_sp::{Pull, Push, Queue};
use tokio::time::timeout;

use super::case::{Better, Case, Target};
use super::counting::per_second;
use super::crew::Hand;
use super::hand::{Answer, Order};
use super::link::Link;
use super::memory::resident;
use super::plan::Plan;
use super::sample::median;

pub(super) const NAME: &str = "pipes/end-to-end";
pub(super) const STALLED: &str = "pipes/stalled";

/// Bytes of a message. Of 100 the Go library moved 311,000 per second on a machine of two cores.
const SIZES: [usize; 3] = [64, 100, 1024];
const ANCESTOR: (usize, f64) = (100, 311_000.0);
const LIMIT: Duration = Duration::from_secs(60);
/// Messages between two looks at the clock.
const BATCH: u64 = 256;
/// Messages sent past a group that does not read, and their bytes.
const MESSAGES: u64 = 1_000_000;
const SIZE: usize = 1024;

pub(super) async fn measure(plan: &Plan, link: &Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    let other = Link::open().await?;
    for size in SIZES {
        eprintln!("{NAME}: {size} bytes");
        let (mut once, mut least, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let mut pipe_once = Pipe::lay(link, &other, Mode::AtMostOnce, size).await?;
        let mut pipe_least = Pipe::lay(link, &other, Mode::AtLeastOnce, size).await?;
        for round in 0..=plan.windows {
            let window = if round == 0 { plan.warm_up } else { plan.window };
            let rates =
                [pipe_once.rate(window).await?, pipe_least.rate(window).await?, sockets(size, window).await?];
            if round > 0 {
                let [first, second, third] = rates;
                once.push(first);
                least.push(second);
                bare.push(third);
            }
        }
        pipe_once.take_up().await?;
        pipe_least.take_up().await?;
        let (once, least, bare) = (median(&once), median(&least), median(&bare));
        let case = |what: &str, figure, beside, targets| Case {
            raw: Some(beside),
            targets,
            ..Case::rate(NAME, "msg/s", &[("bytes", json!(size)), ("what", json!(what))], figure)
        };
        let mut targets = vec![Target::OfRaw(0.8)];
        if size == ANCESTOR.0 {
            targets.push(Target::AtLeast(ANCESTOR.1));
        }
        cases.push(case("at most once, beside bare sockets", once, bare, targets));
        cases.push(case("at least once, beside at most once", least, once, vec![Target::OfRaw(0.3)]));
    }
    other.close().await?;
    Ok(cases)
}

/// One destination with one group of one member.
struct Pipe {
    registration: Arc<Registration>,
    member: Member,
    body: Bytes,
}

impl Pipe {
    async fn lay(link: &Link, other: &Link, mode: Mode, size: usize) -> anyhow::Result<Self> {
        let name = format!("bench-{mode:?}-{size}");
        let registration = Destination::new(&link.session, &name).register().await?;
        // As much as the bare sockets' queue holds.
        let options = GroupOptions::default().mode(mode).queue(Queue::default());
        let member = Group::with_options(&other.session, &name, "one", options).join().await?;
        timeout(LIMIT, registration.wait_for(1)).await.context("the group is not seen")??;
        Ok(Self { registration: Arc::new(registration), member, body: Bytes::from(vec![7; size]) })
    }

    /// Messages per second that are sent, received and, where that counts, acknowledged.
    async fn rate(&mut self, window: Duration) -> anyhow::Result<f64> {
        let (registration, body) = (self.registration.clone(), self.body.clone());
        let begun = Instant::now();
        let sending = tokio::spawn(async move {
            let mut sent = 0_u64;
            while begun.elapsed() < window {
                for _ in 0..BATCH {
                    registration.send(body.clone()).await?;
                }
                sent += BATCH;
            }
            // The last one.
            registration.send(Bytes::new()).await?;
            anyhow::Ok(sent)
        });
        let receiving = async {
            let (mut received, mut batch) = (0_u64, Vec::new());
            loop {
                self.member.recv_many(&mut batch, 256).await?;
                for delivery in batch.drain(..) {
                    if delivery.ack()?.is_empty() {
                        return anyhow::Ok((received, begun.elapsed()));
                    }
                    received += 1;
                }
            }
        };
        let (received, took) =
            timeout(LIMIT, receiving).await.context("the last message does not come")??;
        let sent = sending.await??;
        ensure!(sent == received, "{sent} were sent, {received} came");
        Ok(per_second(received, took.as_secs_f64()))
    }

    async fn take_up(self) -> anyhow::Result<()> {
        self.member.leave().await?;
        Ok(self.registration.unregister().await?)
    }
}

async fn sockets(size: usize, window: Duration) -> anyhow::Result<f64> {
    let (push, pull) = (Push::new(), Pull::new());
    pull.dial(push.listen("tcp://127.0.0.1:0").await?)?;
    push.connected(1).await?;
    let body = Bytes::from(vec![7; size]);
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        while begun.elapsed() < window {
            for _ in 0..BATCH {
                push.send(body.clone()).await?;
            }
        }
        push.send(Bytes::new()).await?;
        anyhow::Ok(push)
    });
    let receiving = async {
        let (mut received, mut batch) = (0_u64, Vec::new());
        loop {
            pull.recv_many(&mut batch, 256).await?;
            for message in batch.drain(..) {
                if message.is_empty() {
                    return anyhow::Ok((received, begun.elapsed()));
                }
                received += 1;
            }
        }
    };
    let (received, took) = timeout(LIMIT, receiving).await.context("the last message does not come")??;
    drop(sending.await??);
    Ok(per_second(received, took.as_secs_f64()))
}

/// A group that never reads beside one that does: a million messages of 1 KiB, and what they cost in memory, in a process of its
/// own.
pub(super) async fn stalled() -> anyhow::Result<Vec<Case>> {
    eprintln!("{STALLED}: {MESSAGES} messages of {SIZE} bytes");
    let mut hand = Hand::hire()?;
    hand.order(&Order::Stall).await?;
    let Answer::Stalled { rate, bytes } = hand.answer().await? else {
        bail!("a child process did not stall")
    };
    hand.dismiss().await?;
    let grown = per_second(bytes, 1.0) / f64::from(1 << 20);
    let case = |what: &str, unit, figure| Case::rate(STALLED, unit, &[("what", json!(what))], figure);
    Ok(vec![
        Case {
            better: Better::Lower,
            targets: vec![Target::AtMost(64.0)],
            ..case("memory after a million messages of 1 KiB", "MiB", grown)
        },
        case("the other group meanwhile", "msg/s", rate),
    ])
}

/// The work of the child process.
pub(super) async fn stall(link: &Link) -> anyhow::Result<Answer> {
    let other = Link::open().await?;
    let options = DestinationOptions::default().when_full_for("stalled", WhenFull::DropOldest);
    let registration = Destination::with_options(&link.session, "bench-stalled", options).register().await?;
    let stalled = Group::new(&other.session, "bench-stalled", "stalled").join().await?;
    let reading = Group::new(&other.session, "bench-stalled", "reading").join().await?;
    timeout(LIMIT, registration.wait_for(2)).await.context("the groups are not seen")??;
    let body = Bytes::from(vec![7; SIZE]);
    let before = resident()?;
    let begun = Instant::now();
    let sending = async {
        for _ in 0..MESSAGES {
            registration.send(body.clone()).await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        let (mut received, mut batch) = (0_u64, Vec::new());
        while received < MESSAGES {
            reading.recv_many(&mut batch, 256).await?;
            for delivery in batch.drain(..) {
                drop(delivery.ack()?);
                received += 1;
            }
        }
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(sending, receiving) };
    timeout(LIMIT, both).await.context("a stalled group holds up the other one")??;
    let rate = per_second(MESSAGES, begun.elapsed().as_secs_f64());
    let bytes = resident()?.saturating_sub(before);
    stalled.leave().await?;
    reading.leave().await?;
    registration.unregister().await?;
    other.close().await?;
    Ok(Answer::Stalled { rate, bytes })
}
