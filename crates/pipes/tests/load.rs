//! Many messages: whether all arrive, and what is printed of how fast.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{LONG, MODES, destination, join, place, register, session, soon, with};
use sereno_pipes::sp::{Pull, Push, Queue};
use sereno_pipes::{Delivery, Member, Mode, Registration, WhenFull};
use sereno_testkit::eventually;

const MESSAGES: u64 = 100_000;
/// Longer than a hundred thousand messages take on a busy machine.
const LOAD: Duration = Duration::from_secs(300);

fn body(n: u64, size: usize) -> Bytes {
    let mut body = n.to_be_bytes().to_vec();
    body.resize(size.max(8), 0);
    body.into()
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

/// Receives until `count` came in order.
async fn in_order(member: Member, count: u64) -> Member {
    let (mut next, mut batch) = (0, Vec::<Delivery>::new());
    while next < count {
        member.recv_many(&mut batch, 256).await.unwrap();
        for delivery in batch.drain(..) {
            assert_eq!(number(&delivery.ack().unwrap()), next);
            next += 1;
        }
    }
    member
}

async fn send(sender: Registration, count: u64, size: usize, batch: u64) -> Registration {
    let mut n = 0;
    while n < count {
        if batch == 1 {
            sender.send(body(n, size)).await.unwrap();
        } else {
            sender.send_all((n..n + batch).map(|n| body(n, size))).await.unwrap();
        }
        n += batch;
    }
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_hundred_thousand_messages_arrive_in_order_and_what_a_pipe_carries_is_told() {
    let (client, _) = place("order").await;
    let session = session(&client, 15).await;
    let options = || destination().when_full(WhenFull::Wait);
    for size in [100, 1000] {
        // The same without pipes.
        let push = Push::new();
        let pull = Pull::new();
        pull.dial(push.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
        push.connected(1).await.unwrap();
        let started = Instant::now();
        let pushing = tokio::spawn(async move {
            for n in 0..MESSAGES {
                push.send(body(n, size)).await.unwrap();
            }
            push
        });
        let (mut next, mut batch) = (0, Vec::new());
        let pulled = async {
            while next < MESSAGES {
                pull.recv_many(&mut batch, 256).await.unwrap();
                for body in batch.drain(..) {
                    assert_eq!(number(&body), next);
                    next += 1;
                }
            }
        };
        tokio::time::timeout(LOAD, pulled).await.expect("all in time");
        let bare = rate(started);
        drop(pushing.await.unwrap());
        println!("{size} B: sockets alone {bare:.0}/s");
        for mode in MODES {
            for batch in [1, 50] {
                let name = format!("d-{mode:?}-{size}-{batch}");
                let sender = register(&session, &name, options()).await;
                let member = join(&session, &name, "g", with(mode)).await;
                soon("the connection", member.until(|status| status.connected)).await;
                let started = Instant::now();
                let sending = tokio::spawn(send(sender, MESSAGES, size, batch));
                let member =
                    tokio::time::timeout(LOAD, in_order(member, MESSAGES)).await.expect("all in time");
                let rate = rate(started);
                println!("{size} B: {mode}, {batch} at once: {rate:.0}/s, {:.2} of that", rate / bare);
                let sender = soon("sending", sending).await.unwrap();
                sender.unregister().await.unwrap();
                member.leave().await.unwrap();
                assert_eq!((sender.stats().dropped, sender.stats().lost), (0, 0));
            }
        }
    }
}

fn rate(started: Instant) -> f64 {
    MESSAGES as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn four_groups_of_two_members_each_get_every_message_once() {
    const EACH: u64 = 20_000;
    let (client, _) = place("groups").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination().when_full(WhenFull::Wait)).await;
    let mut members = Vec::new();
    for group in 0..4 {
        for _ in 0..2 {
            let mode = MODES[group % 2];
            members.push((group, join(&session, "d", &format!("g{group}"), with(mode)).await));
        }
    }
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = members
        .into_iter()
        .map(|(group, member)| {
            let over = over.clone();
            tokio::spawn(async move {
                let (mut got, mut batch) = (Vec::new(), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    let some = member.recv_many(&mut batch, 256);
                    if tokio::time::timeout(Duration::from_millis(20), some).await.is_ok() {
                        got.extend(batch.drain(..).map(|delivery| number(&delivery.ack().unwrap())));
                    }
                }
                (group, got)
            })
        })
        .collect();
    let started = Instant::now();
    let sender = tokio::time::timeout(LOAD, send(sender, EACH, 100, 1)).await.expect("all sent");
    eventually(LOAD, "all to be sent", async || {
        sender.stats().groups.values().all(|group| group.queued == 0).then_some(())
    })
    .await;
    println!("{EACH} messages to 4 groups in {:?}", started.elapsed());
    // What is at most once is with the members a moment later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::Relaxed);
    let mut groups = vec![Vec::new(); 4];
    for reader in readers {
        let (group, got) = soon("a reader", reader).await.unwrap();
        println!("group {group}: a member got {}", got.len());
        assert!(got.is_sorted(), "each connection keeps the order");
        groups[group].extend(got);
    }
    for mut group in groups {
        group.sort_unstable();
        assert!(group.iter().copied().eq(0..EACH), "every message exactly once, {} came", group.len());
    }
    assert_eq!((sender.stats().dropped, sender.stats().lost), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_that_is_stuck_holds_up_nobody_and_no_more_memory_than_its_queue() {
    const COUNT: u64 = 50_000;
    let (client, _) = place("stuck").await;
    let session = session(&client, 15).await;
    for (stuck_mode, when_full) in [
        (Mode::AtMostOnce, WhenFull::DropOldest),
        (Mode::AtLeastOnce, WhenFull::DropOldest),
        (Mode::AtMostOnce, WhenFull::WaitUpTo(Duration::from_millis(100))),
        (Mode::AtLeastOnce, WhenFull::WaitUpTo(Duration::from_millis(100))),
    ] {
        let name = format!("d-{stuck_mode:?}-{when_full:?}");
        let options = destination()
            .queue(Queue::of(1000))
            .when_full(WhenFull::Wait)
            .when_full_for("stuck", when_full)
            .linger(Duration::ZERO);
        let sender = register(&session, &name, options).await;
        // It is connected and never reads.
        let stuck = join(&session, &name, "stuck", with(stuck_mode)).await;
        let member = join(&session, &name, "moves", with(Mode::AtMostOnce)).await;
        soon("both", async {
            stuck.until(|status| status.connected).await;
            member.until(|status| status.connected).await
        })
        .await;
        let started = Instant::now();
        let sending = tokio::spawn(send(sender, COUNT, 100, 1));
        let _member = tokio::time::timeout(LOAD, in_order(member, COUNT)).await.expect("all in time");
        let took = started.elapsed();
        let sender = soon("sending", sending).await.unwrap();
        let group = sender.stats().groups["stuck"].clone();
        println!(
            "stuck {stuck_mode}, {when_full:?}: {COUNT} past it in {took:?}; {} queued, {} dropped",
            group.queued, group.dropped
        );
        // At most once: and what the connection has in hand, 64 KiB at most.
        assert!(group.queued <= 1700, "{}", group.queued);
        assert!(group.dropped > 0);
        if stuck_mode == Mode::AtLeastOnce {
            assert_eq!(group.queued + group.dropped, COUNT, "what is not kept is counted");
        }
        sender.unregister().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_fast_member_gets_more_than_a_slow_one_and_together_they_get_everything() {
    const COUNT: usize = 6000;
    let (client, _) = place("split").await;
    let session = session(&client, 15).await;
    for (mode, window) in [(Mode::AtMostOnce, 256), (Mode::AtLeastOnce, 256), (Mode::AtLeastOnce, 16)] {
        let name = format!("d-{mode:?}-{window}");
        let options = destination().when_full(WhenFull::Wait).window(window);
        let sender = register(&session, &name, options).await;
        let queue = Queue::of(16);
        let (fast, slow) = (
            join(&session, &name, "g", with(mode).queue(queue)).await,
            join(&session, &name, "g", with(mode).queue(queue)).await,
        );
        eventually(LONG, "both", async || (sender.stats().groups["g"].connections == 2).then_some(())).await;
        let received = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let read = |member: Member, pause: Option<Duration>| {
            let received = received.clone();
            tokio::spawn(async move {
                let mut got = 0;
                while received.load(Ordering::Relaxed) < COUNT {
                    if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(20), member.recv()).await
                    {
                        if let Some(pause) = pause {
                            tokio::time::sleep(pause).await;
                        }
                        delivery.unwrap().ack().unwrap();
                        got += 1;
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
                got
            })
        };
        let readers = (read(fast, None), read(slow, Some(Duration::from_millis(1))));
        let started = Instant::now();
        let sending = tokio::spawn(send(sender, COUNT as u64, 1000, 1));
        let fast = tokio::time::timeout(LOAD, readers.0).await.expect("in time").unwrap();
        let slow = soon("the slow one", readers.1).await.unwrap();
        println!("{mode}, window {window}: fast {fast}, slow {slow} in {:?}", started.elapsed());
        assert_eq!(fast + slow, COUNT, "everything once");
        assert!(fast > slow, "{fast} and {slow}");
        soon("sending", sending).await.unwrap().unregister().await.unwrap();
    }
}
