//! `seq/join` and `seq/leave`: members of one group that join at the same time, until all agree who is where; beside the way
//! it is usually written, in which each member reads the whole group again at each change.

use std::time::Duration;

use anyhow::{Context, ensure};
use etcd_client::{GetOptions, PutOptions, SortOrder, SortTarget, WatchOptions};
use serde_json::json;
use sereno_seq::{Member, Sequence};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::case::{Better, Case, Target};
use super::link::Link;
use super::plan::Plan;
use super::sample::median;

pub(super) const NAME: &str = "seq/agree";

/// Sessions, each with a connection of its own, over which the members are spread.
const SESSIONS: usize = 8;
/// Members that join at the same time. The textbook's way is measured for those up to the second: it reads their square.
const SIZES: [usize; 3] = [100, 300, 1000];
const TEXTBOOK_UP_TO: usize = 300;
/// What etcdseq (Go) took with 300 members and 8 clients on a machine of two cores, in milliseconds; and half of that is
/// wanted.
const JOIN_TARGET: f64 = 440.0 / 2.0;
const LEAVE_TARGET: f64 = 153.0 / 2.0;
const LIMIT: Duration = Duration::from_secs(60);
/// The textbook's leases, in seconds: longer than a round.
const TTL: i64 = 120;

/// Milliseconds of one round.
#[derive(Default)]
struct Times {
    joined: Vec<f64>,
    left: Vec<f64>,
}

pub(super) async fn measure(plan: &Plan) -> anyhow::Result<Vec<Case>> {
    let mut links = Vec::new();
    for _ in 0..SESSIONS {
        links.push(Link::open().await?);
    }
    let mut cases = Vec::new();
    for members in SIZES {
        eprintln!("{NAME}: {members} members");
        let (mut ours, mut textbook) = (Times::default(), Times::default());
        for round in 0..=plan.windows {
            // The first one is for warming up.
            let mut beside = Times::default();
            let mut warm = Times::default();
            let times = if round == 0 { &mut warm } else { &mut ours };
            join_and_leave(&links, &format!("{members}-{round}"), members, times).await?;
            if members <= TEXTBOOK_UP_TO {
                let times = if round == 0 { &mut beside } else { &mut textbook };
                textbook_round(&links, &format!("{members}-{round}"), members, times).await?;
            }
        }
        let case = |what: &str, ours: &[f64], beside: &[f64], target: f64| {
            let textbook = (!beside.is_empty()).then(|| median(beside));
            let mut targets = Vec::new();
            if members == 300 {
                targets.extend([Target::AtMost(target), Target::WithinTextbook(0.5)]);
            }
            Case {
                better: Better::Lower,
                textbook,
                targets,
                ..Case::rate(NAME, "ms", &[("members", json!(members)), ("what", json!(what))], median(ours))
            }
        };
        cases.push(case("all have joined", &ours.joined, &textbook.joined, JOIN_TARGET));
        cases.push(case("one has left", &ours.left, &textbook.left, LEAVE_TARGET));
    }
    for link in links {
        link.close().await?;
    }
    Ok(cases)
}

async fn join_and_leave(links: &[Link], name: &str, members: usize, times: &mut Times) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut joining = JoinSet::new();
    for (_, link) in (0..members).zip(links.iter().cycle()) {
        let sequence = Sequence::new(&link.session, name);
        joining.spawn(async move { sequence.join().await });
    }
    let mut group = Vec::new();
    while let Some(joined) = joining.join_next().await {
        group.push(joined??);
    }
    agree(&group, members).await?;
    times.joined.push(start.elapsed().as_secs_f64() * 1e3);
    // Each index once.
    let mut indices =
        group.iter().map(|member| Ok(member.position()?.index)).collect::<anyhow::Result<Vec<_>>>()?;
    indices.sort_unstable();
    ensure!(indices.into_iter().eq(0..members), "the members' indices are not 0 to {members}");

    let leaving = group.pop().context("nobody is there")?;
    let start = Instant::now();
    leaving.leave().await?;
    agree(&group, members - 1).await?;
    times.left.push(start.elapsed().as_secs_f64() * 1e3);
    let mut leaving = JoinSet::new();
    for member in group {
        leaving.spawn(async move { member.leave().await });
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

/// Waits until everyone says that there are so many.
async fn agree(group: &[Member], count: usize) -> anyhow::Result<()> {
    for member in group {
        let mut positions = member.positions();
        let agreed = async {
            while let Some(standing) = positions.next().await {
                if standing.is_ok_and(|position| position.count == count) {
                    return Ok(());
                }
            }
            anyhow::bail!("a member's positions ended")
        };
        timeout(LIMIT, agreed).await.with_context(|| format!("not all say {count}"))??;
    }
    Ok(())
}

/// One member in the way that etcdseq does it: a seat on a lease of its own, and at each event the whole group anew.
struct Seat {
    lease: i64,
    client: etcd_client::Client,
    /// Index and count.
    told: watch::Receiver<(usize, usize)>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Seat {
    async fn take(mut client: etcd_client::Client, prefix: Vec<u8>) -> anyhow::Result<Self> {
        let lease = client.lease_grant(TTL, None).await?.id();
        let mut key = prefix.clone();
        key.extend_from_slice(lease.to_string().as_bytes());
        client.put(key.as_slice(), "", Some(PutOptions::new().with_lease(lease))).await?;
        let (position, revision) = read(&mut client, &prefix, &key).await?;
        let (tell, told) = watch::channel(position);
        let mut reader = client.clone();
        let task = tokio::spawn(async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
            let mut events = reader.watch(prefix.as_slice(), Some(options)).await?;
            while let Some(event) = events.message().await? {
                if event.events().is_empty() {
                    continue;
                }
                let (position, _) = read(&mut reader, &prefix, &key).await?;
                tell.send_replace(position);
            }
            Ok(())
        });
        Ok(Self { lease, client, told, task })
    }

    async fn leave(mut self) -> anyhow::Result<()> {
        self.task.abort();
        self.client.lease_revoke(self.lease).await?;
        Ok(())
    }
}

async fn read(
    client: &mut etcd_client::Client,
    prefix: &[u8],
    key: &[u8],
) -> anyhow::Result<((usize, usize), i64)> {
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
    let found = client.get(prefix, Some(options)).await?;
    let index = found.kvs().iter().position(|seat| seat.key() == key).unwrap_or(usize::MAX);
    Ok(((index, found.kvs().len()), found.header().context("no header")?.revision()))
}

async fn textbook_round(links: &[Link], name: &str, members: usize, times: &mut Times) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut joining = JoinSet::new();
    for (_, link) in (0..members).zip(links.iter().cycle()) {
        joining.spawn(Seat::take(link.raw.clone(), link.key(&format!("textbook-seq/{name}/"))));
    }
    let mut group = Vec::new();
    while let Some(joined) = joining.join_next().await {
        group.push(joined??);
    }
    all_read(&mut group, members).await?;
    times.joined.push(start.elapsed().as_secs_f64() * 1e3);
    let leaving = group.pop().context("nobody is there")?;
    let start = Instant::now();
    leaving.leave().await?;
    all_read(&mut group, members - 1).await?;
    times.left.push(start.elapsed().as_secs_f64() * 1e3);
    // Nobody reads the group again for each of these.
    group.iter().for_each(|seat| seat.task.abort());
    let mut leaving = JoinSet::new();
    for seat in group {
        leaving.spawn(seat.leave());
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

async fn all_read(group: &mut [Seat], count: usize) -> anyhow::Result<()> {
    for seat in group {
        let agreed = timeout(LIMIT, seat.told.wait_for(|(_, told)| *told == count)).await;
        agreed.with_context(|| format!("not all read {count}"))??;
    }
    Ok(())
}
