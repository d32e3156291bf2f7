//! `pubsub/publish` and `pubsub/packed`: messages of 64 bytes, until the last subscriber has the last one.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use sereno_pubsub::{Delivery, From, Retention, Subscription, Topic, TopicOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::case::{Case, Target};
use super::counting::per_second;
use super::link::Link;
use super::plan::Plan;
use super::sample::median;

pub(super) const SINGLE: &str = "pubsub/publish";
pub(super) const PACKED: &str = "pubsub/packed";

const SUBSCRIBERS: [usize; 2] = [1, 10];
const SIZE: usize = 64;
const KEPT: Duration = Duration::from_secs(600);
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);

/// One message at a time, each after the one before was acknowledged.
pub(super) async fn single(plan: &Plan, link: &mut Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for subscribers in SUBSCRIBERS {
        eprintln!("{SINGLE}: {subscribers} subscribers");
        cases.push(single_to(plan, link, subscribers).await?);
    }
    Ok(cases)
}

/// One publisher that does not wait.
pub(super) async fn packed(plan: &Plan, link: &Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for subscribers in SUBSCRIBERS {
        eprintln!("{PACKED}: {subscribers} subscribers");
        cases.push(packed_to(plan, link, subscribers).await?);
    }
    Ok(cases)
}

async fn single_to(plan: &Plan, link: &mut Link, subscribers: usize) -> anyhow::Result<Case> {
    let topic = topic(link, format!("single-{subscribers}"));
    let mut audience = Audience::gather(&topic, subscribers).await?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..=plan.windows {
        let window = if round == 0 { plan.warm_up } else { plan.window };
        let puts = puts(link, window).await?;
        let start = Instant::now();
        let first = audience.sent;
        while start.elapsed() < window {
            topic.publish(audience.message(false)).await?;
        }
        topic.publish(audience.message(true)).await?;
        let rate = audience.rate_since(start, first).await?;
        if round > 0 {
            raw.push(puts);
            ours.push(rate);
        }
    }
    topic.publish(audience.message(true)).await?;
    audience.leave().await?;
    let case = [("subscribers", json!(subscribers)), ("bytes", json!(SIZE))];
    Ok(Case { raw: Some(median(&raw)), ..Case::rate(SINGLE, "messages/s", &case, median(&ours)) })
}

/// With an age that leaves no lease behind for a day; all else is as it comes.
fn topic(link: &Link, name: String) -> Topic {
    let retention = Retention::default().age(KEPT);
    Topic::with_options(&link.session, name, TopicOptions::default().retention(retention))
}

/// Puts per second of one task.
async fn puts(link: &mut Link, window: Duration) -> anyhow::Result<f64> {
    let key = link.key("put/message");
    let payload = payload(0, false);
    let start = Instant::now();
    let mut puts = 0;
    while start.elapsed() < window {
        link.raw.put(key.as_slice(), payload.as_slice(), None).await?;
        puts += 1;
    }
    Ok(per_second(puts, start.elapsed().as_secs_f64()))
}

async fn packed_to(plan: &Plan, link: &Link, subscribers: usize) -> anyhow::Result<Case> {
    let topic = topic(link, format!("packed-{subscribers}"));
    let mut audience = Audience::gather(&topic, subscribers).await?;
    let mut publisher = topic.publisher();
    let mut rates = Vec::new();
    for round in 0..=plan.windows {
        let messages = if round == 0 { plan.packed / 10 } else { plan.packed };
        let start = Instant::now();
        let first = audience.sent;
        for number in 1..=messages {
            publisher.send(audience.message(number == messages)).await?;
        }
        let rate = audience.rate_since(start, first).await?;
        publisher.flush().await?;
        if round > 0 {
            rates.push(rate);
        }
    }
    topic.publish(audience.message(true)).await?;
    audience.leave().await?;
    let case = [("subscribers", json!(subscribers)), ("bytes", json!(SIZE))];
    Ok(Case {
        targets: vec![Target::AtLeast(300_000.0)],
        ..Case::rate(PACKED, "messages/s", &case, median(&rates))
    })
}

/// Subscribers with a session and connection each. Every message has a number, and each subscriber checks that it gets
/// all of them, once, in order.
struct Audience {
    sent: u64,
    subscribers: usize,
    links: Vec<Link>,
    following: JoinSet<anyhow::Result<()>>,
    /// When a subscriber got the last message of a round.
    arrivals: mpsc::Receiver<Instant>,
}

impl Audience {
    async fn gather(topic: &Topic, subscribers: usize) -> anyhow::Result<Self> {
        let (arrived, arrivals) = mpsc::channel(subscribers);
        let mut following = JoinSet::new();
        let mut links = Vec::new();
        for _ in 0..subscribers {
            let link = Link::open().await?;
            let subscription = Topic::new(&link.session, topic.name()).subscribe(From::Now).await?;
            following.spawn(follow(subscription, arrived.clone()));
            links.push(link);
        }
        Ok(Self { sent: 0, subscribers, links, following, arrivals })
    }

    /// The next message; the last one of a round says so.
    fn message(&mut self, is_last: bool) -> Vec<u8> {
        self.sent += 1;
        payload(self.sent, is_last).to_vec()
    }

    /// Messages per second from `start`, when `first` had been sent, until everyone has the last one.
    async fn rate_since(&mut self, start: Instant, first: u64) -> anyhow::Result<f64> {
        let end = self.everyone().await?;
        Ok(per_second(self.sent - first, (end - start).as_secs_f64()))
    }

    async fn everyone(&mut self) -> anyhow::Result<Instant> {
        let mut end = Instant::now();
        for _ in 0..self.subscribers {
            let arrival = timeout(DELIVERY_LIMIT, async {
                tokio::select! {
                    arrival = self.arrivals.recv() => arrival.context("no subscriber is left"),
                    Some(ended) = self.following.join_next() => {
                        ended??;
                        bail!("a subscription ended")
                    }
                }
            });
            let arrival = arrival.await.context("not everything was delivered")??;
            end = end.max(arrival);
        }
        Ok(end)
    }

    /// Waits for one more round, in which anything delivered twice before would show.
    async fn leave(mut self) -> anyhow::Result<()> {
        self.everyone().await?;
        self.following.shutdown().await;
        for link in self.links {
            link.close().await?;
        }
        Ok(())
    }
}

async fn follow(mut subscription: Subscription, arrived: mpsc::Sender<Instant>) -> anyhow::Result<()> {
    let mut expected = 1;
    while let Some(delivery) = subscription.next().await {
        let Delivery::Message(message) = delivery? else { bail!("a subscriber was told of a gap") };
        let (number, is_last) = parse(&message.payload).context("not a message of ours")?;
        ensure!(number == expected, "message {number} came where {expected} was due");
        expected += 1;
        if is_last && arrived.send(Instant::now()).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn payload(number: u64, is_last: bool) -> [u8; SIZE] {
    let mut payload = [0; SIZE];
    let fields = number.to_le_bytes().into_iter().chain([u8::from(is_last)]);
    payload.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    payload
}

fn parse(payload: &[u8]) -> Option<(u64, bool)> {
    let (number, rest) = payload.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), *rest.first()? != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_carries_its_number() {
        assert_eq!(parse(&payload(77, true)), Some((77, true)));
        assert_eq!(parse(&payload(1 << 40, false)), Some((1 << 40, false)));
        assert_eq!(parse(b"short"), None);
    }
}
