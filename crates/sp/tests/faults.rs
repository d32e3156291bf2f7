//! What breaks: processes that die, connections that end, sockets that are closed or dropped in the midst of work.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{LONG, Raw, job, number, places, quick, small, soon};
use sereno_sp::{Error, Pull, Push, Queue, Rep, Req};
use sereno_testkit::{ChildHost, child, eventually};

const PULL: u8 = 0x51;
/// So many requests the child process answers, and no more.
const ANSWERED: u32 = 50;

/// Sends numbered jobs to two pullers, of which one is killed, and returns what each job became: how often it was received.
async fn jobs_with_one_puller_killed(requeue: bool) -> (u32, BTreeMap<u32, u32>, sereno_sp::Stats) {
    /// Jobs after the kill.
    const REST: u32 = 2000;
    let push = Push::with_options(small().requeue(requeue));
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut dies = ChildHost::new("child_entry", "puller").argument(address.to_string()).spawn();
    let survivor = Pull::with_options(small());
    survivor.dial(&address).unwrap();
    soon("both", push.connected(2)).await.unwrap();
    let (sender, kill) = (push.clone(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&kill);
    let sending = tokio::spawn(async move {
        let (mut jobs, mut rest) = (0, REST);
        while rest > 0 {
            rest -= u32::from(told.load(Ordering::SeqCst));
            sender.send(job(jobs)).await.unwrap();
            jobs += 1;
        }
        jobs
    });
    let mut counts = BTreeMap::new();
    let mut said = 0;
    let mut survived = 0;
    let mut killed = false;
    while !(killed && sending.is_finished() && push.stats().pending == 0) {
        if let Ok(body) = tokio::time::timeout(Duration::from_millis(20), survivor.recv()).await {
            *counts.entry(number(&body.unwrap())).or_default() += 1;
            survived += 1;
        }
        for line in dies.pending_lines() {
            *counts.entry(line.parse().unwrap()).or_default() += 1;
            said += 1;
        }
        if !killed && survived > 300 && said > 300 {
            dies.kill();
            killed = true;
            kill.store(true, Ordering::SeqCst);
        }
    }
    let jobs = sending.await.unwrap();
    // What it had said before it died.
    while let Some(line) = dies.next_line(Duration::from_millis(500)).await {
        *counts.entry(line.parse().unwrap()).or_default() += 1;
    }
    while let Ok(body) = tokio::time::timeout(Duration::from_millis(500), survivor.recv()).await {
        *counts.entry(number(&body.unwrap())).or_default() += 1;
    }
    (jobs, counts, push.stats())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_puller_takes_with_it_what_was_on_its_way_and_no_more() {
    let (jobs, counts, stats) = jobs_with_one_puller_killed(false).await;
    let lost = jobs - u32::try_from(counts.len()).unwrap();
    println!("{lost} of {jobs} jobs of 1 KiB lost, {} of them known: {stats:?}", stats.dropped);
    assert!(counts.values().all(|count| *count == 1), "no job twice");
    // The buffers of the system on both sides, which it makes twice as large as asked for, what the dead process had read, and
    // one write. Megabytes if nothing bounded them.
    assert!(lost < 400, "{lost}");
    assert!(u64::from(lost) >= stats.dropped && stats.requeued == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_failed_is_sent_again_on_request() {
    let (jobs, counts, stats) = jobs_with_one_puller_killed(true).await;
    let lost = jobs - u32::try_from(counts.len()).unwrap();
    println!("{lost} of {jobs} jobs of 1 KiB lost: {stats:?}");
    assert!(lost < 400, "{lost}");
    assert_eq!(stats.dropped, 0);
}

/// Pushes to a peer that reads nothing and leaves. Returns how many of 200 messages of 10 KB the next peer gets.
async fn after_a_stalled_peer(requeue: bool) -> (BTreeSet<u32>, sereno_sp::Stats) {
    let push = Push::with_options(small().requeue(requeue).send_queue(Queue::of(1000)));
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let stalled = Raw::hello(&address, PULL).await;
    push.connected(1).await.unwrap();
    for number in 0..200_u32 {
        push.send([&number.to_be_bytes()[..], &[0; 9_996]].concat()).await.unwrap();
    }
    let mut pending = 0;
    eventually(LONG, "a standstill", async || {
        // Only time tells a standstill from a pause.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = push.stats().pending;
        (now < 200 && std::mem::replace(&mut pending, now) == now).then_some(())
    })
    .await;
    drop(stalled);
    eventually(LONG, "its end", async || push.peers().is_empty().then_some(())).await;
    let pull = Pull::with_options(quick());
    pull.dial(&address).unwrap();
    let mut received = BTreeSet::new();
    while !received.contains(&199) {
        let body = soon("the rest", pull.recv()).await.unwrap();
        assert!(received.last().is_none_or(|last| *last < number(&body)), "in order");
        received.insert(number(&body));
    }
    let stats = push.stats();
    println!(
        "requeue {requeue}: {pending} pending at the standstill, {} received, {stats:?}",
        received.len()
    );
    (received, stats)
}

#[tokio::test]
async fn what_a_lost_connection_had_taken_is_counted_as_dropped_or_goes_to_another() {
    let (received, stats) = after_a_stalled_peer(false).await;
    assert!(stats.dropped > 0 && stats.requeued == 0, "{stats:?}");
    assert!(received.len() as u64 + stats.dropped <= 200);
    let (received, stats) = after_a_stalled_peer(true).await;
    assert!(stats.dropped == 0 && stats.requeued > 0, "{stats:?}");
    assert!(received.len() as u64 > stats.requeued);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_one_of_those_who_answer_is_killed() {
    const WINDOW: usize = 64;
    /// Jobs after the kill.
    const REST: u32 = 500;
    let req = Req::with_options(quick().window(WINDOW));
    let address = req.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut dies = ChildHost::new("child_entry", "answerer").argument(address.to_string()).spawn();
    let survivor = Rep::with_options(quick());
    survivor.dial(&address).unwrap();
    soon("both", req.connected(2)).await.unwrap();
    let closer = survivor.clone();
    let answering = tokio::spawn(async move {
        let mut counts = BTreeMap::<u32, u32>::new();
        while let Ok(request) = survivor.recv().await {
            *counts.entry(number(request.body())).or_default() += 1;
            tokio::task::yield_now().await;
            if request.reply(Bytes::new()).is_err() {
                break;
            }
        }
        counts
    });
    let (sender, killed) = (req.clone(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&killed);
    let sending = tokio::spawn(async move {
        let (mut jobs, mut rest) = (0, REST);
        while rest > 0 {
            rest -= u32::from(told.load(Ordering::SeqCst));
            sender.post(job(jobs)).await.unwrap();
            jobs += 1;
        }
        sender.flush().await.unwrap();
        jobs
    });
    let mut counts = BTreeMap::<u32, u32>::new();
    // The last of these is never answered.
    for _ in 0..=ANSWERED {
        *counts.entry(dies.line().await.parse().unwrap()).or_default() += 1;
    }
    dies.kill();
    killed.store(true, Ordering::SeqCst);
    let jobs: u32 = soon("every answer", sending).await.unwrap();
    while let Some(line) = dies.next_line(Duration::from_millis(500)).await {
        *counts.entry(line.parse().unwrap()).or_default() += 1;
    }
    let stats = req.stats();
    assert_eq!(req.close().await.undelivered, 0);
    closer.close().await;
    for (job, count) in soon("the survivor", answering).await.unwrap() {
        *counts.entry(job).or_default() += count;
    }
    let twice = counts.values().filter(|count| **count > 1).count();
    println!("{jobs} jobs, none lost, {twice} processed twice: {stats:?}");
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), (0..jobs).collect::<Vec<_>>());
    assert!((1..=WINDOW as u64).contains(&stats.requeued), "at most what the window holds: {stats:?}");
    assert!(twice <= WINDOW && counts.values().all(|count| *count <= 2));
}

#[tokio::test]
async fn a_request_goes_to_another_at_once_when_its_connection_is_lost() {
    let req = Req::with_options(quick().resend(None));
    let address = req.listen("tcp://127.0.0.1:0").await.unwrap();
    let first = Rep::new();
    first.dial(&address).unwrap();
    let ticket = req.send("question").await.unwrap();
    let unanswered = soon("it", first.recv()).await.unwrap();
    let second = Rep::new();
    second.dial(&address).unwrap();
    req.connected(2).await.unwrap();
    assert!(second.try_recv().unwrap().is_none());
    drop(first);
    let request = soon("the same", second.recv()).await.unwrap();
    assert_eq!(request.body(), "question");
    request.reply("answer").unwrap();
    assert_eq!(soon("the answer", ticket).await.unwrap(), "answer");
    assert!(matches!(unanswered.reply("too late"), Err(Error::PeerGone)));
    assert_eq!(req.stats().requeued, 1);
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_is_sent_again_even_to_the_same() {
    let req = Req::with_options(quick().window(1).resend(Some(Duration::from_millis(200))));
    let rep = Rep::new();
    rep.dial(req.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    let begun = Instant::now();
    let ticket = req.send("question").await.unwrap();
    drop(soon("it", rep.recv()).await.unwrap());
    let again = soon("it again", rep.recv()).await.unwrap();
    println!("sent again after {:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_millis(200) && req.stats().resent >= 1);
    again.reply("answer").unwrap();
    assert_eq!(soon("the answer", ticket).await.unwrap(), "answer");
    // Who asked no longer waits: it is not sent a third time.
    let ticket = req.send("withdrawn").await.unwrap();
    drop(soon("it", rep.recv()).await.unwrap());
    drop(ticket);
    assert_eq!(req.stats().pending, 0);
    let more = async { while soon("more", rep.recv()).await.unwrap().body() != "question" {} };
    assert!(tokio::time::timeout(Duration::from_millis(500), more).await.is_err());
}

#[tokio::test]
async fn a_listener_that_comes_back_is_found_again_and_the_queue_has_waited() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "again") {
        let push = Push::with_options(quick());
        let pull = Pull::new();
        let address = pull.listen(&place).await.unwrap();
        push.dial(&address).unwrap();
        for round in 0..3 {
            let body = format!("round {round}");
            push.send(body.clone()).await.unwrap();
            let pull = if round == 0 { pull.clone() } else { Pull::new() };
            if round > 0 {
                // Closed sockets free their address before `close` returns.
                assert_eq!(pull.listen(&address).await.unwrap(), address);
            }
            assert_eq!(soon("it", pull.recv()).await.unwrap(), body);
            pull.close().await;
            eventually(LONG, "its end", async || push.peers().is_empty().then_some(())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    match child::role().as_deref() {
        Some("puller") => {
            let pull = Pull::with_options(small());
            pull.dial(child::argument(0)).unwrap();
            while let Ok(body) = pull.recv().await {
                child::say(&number(&body).to_string());
            }
        }
        Some("answerer") => {
            let rep = Rep::with_options(small());
            rep.dial(child::argument(0)).unwrap();
            let mut unanswered = Vec::new();
            for count in 0.. {
                let Ok(request) = rep.recv().await else { break };
                child::say(&number(request.body()).to_string());
                if count < ANSWERED {
                    request.reply(Bytes::new()).unwrap();
                } else {
                    unanswered.push(request);
                }
            }
        }
        _ => {} // Run by hand: nobody asked for a role.
    }
}
