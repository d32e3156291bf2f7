//! Everything is bounded: queues, connections, what a peer that does not read can hold up.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{LONG, Raw, quick, soon};
use sereno_sp::{Error, PeerEvent, Pub, Pull, Push, Queue, Refusal, Rep, Req, SocketOptions, Sub, WhenFull};
use sereno_testkit::eventually;
use tokio::io::AsyncReadExt as _;

const PUSH: u8 = 0x50;
const PULL: u8 = 0x51;
const SUB: u8 = 0x21;
const REQ: u8 = 0x30;

/// Polls a future once, and drops it when it is not done.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    tokio::pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_queue_takes_as_many_messages_as_it_may_and_a_cancelled_send_was_never_sent() {
    let push = Push::with_options(SocketOptions::default().send_queue(Queue::of(10)));
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    for number in 0..10_u8 {
        assert!(once(push.send(vec![number])).await.is_some());
    }
    for _ in 0..10 {
        assert!(once(push.send("cancelled")).await.is_none());
        assert!(matches!(push.try_send("refused"), Err(Error::Full)));
    }
    assert_eq!(push.stats().pending, 10);
    let pull = Pull::new();
    pull.dial(&address).unwrap();
    for number in 0..10_u8 {
        assert_eq!(soon("it", pull.recv()).await.unwrap(), vec![number]);
    }
    push.send("last").await.unwrap();
    assert_eq!(soon("it", pull.recv()).await.unwrap(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sends_cancelled_at_any_moment_exactly_those_arrive_that_were_completed() {
    let (push, pull) = (Push::with_options(SocketOptions::default().send_queue(Queue::of(8))), Pull::new());
    pull.dial(push.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    let receiving = tokio::spawn(async move {
        let mut received = Vec::new();
        loop {
            let body = pull.recv().await.unwrap();
            match body.as_ref().try_into().map(u32::from_be_bytes) {
                Ok(number) => received.push(number),
                Err(_) => return received,
            }
        }
    });
    let mut completed = Vec::new();
    for number in 0..20_000_u32 {
        let sending = push.send(Bytes::copy_from_slice(&number.to_be_bytes()));
        tokio::pin!(sending);
        for _ in 0..2 {
            if let Some(sent) = once(sending.as_mut()).await {
                sent.unwrap();
                completed.push(number);
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    push.send("the end").await.unwrap();
    let received = soon("the end", receiving).await.unwrap();
    println!("{} of 20000 completed", completed.len());
    assert_eq!(received, completed);
    assert!((1..20_000).contains(&completed.len()), "both happen: {}", completed.len());
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let (push, pull) = (Push::new(), Pull::new());
    pull.dial(push.listen("inproc://cancelled-receive").await.unwrap()).unwrap();
    let mut received = 0_u32;
    for number in 0..2000_u32 {
        push.send(Bytes::copy_from_slice(&number.to_be_bytes())).await.unwrap();
        if let Some(body) = once(pull.recv()).await {
            assert_eq!(body.unwrap(), received.to_be_bytes().as_slice());
            received += 1;
        }
    }
    while received < 2000 {
        assert_eq!(soon("it", pull.recv()).await.unwrap(), received.to_be_bytes().as_slice());
        received += 1;
    }
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_too_and_a_single_large_message_still_fits() {
    let queue = Queue::of(10).bytes(1000);
    let push = Push::with_options(SocketOptions::default().send_queue(queue));
    push.try_send(vec![0; 5000]).unwrap();
    assert!(matches!(push.try_send(""), Err(Error::Full)));
    let push = Push::with_options(SocketOptions::default().send_queue(queue));
    for _ in 0..4 {
        push.try_send(vec![0; 250]).unwrap_or_else(|error| panic!("{error}"));
        if push.stats().pending == 3 {
            break;
        }
    }
    assert!(matches!(push.try_send(vec![0; 250]), Err(Error::Full)), "each takes three of ten slots");
    push.try_send(vec![0; 100]).unwrap();
    assert!(matches!(push.try_send(""), Err(Error::Full)));
}

#[tokio::test]
async fn what_a_receiver_does_not_take_holds_up_the_sender_and_little_is_on_the_way() {
    let small = || SocketOptions::default().send_queue(Queue::of(16)).recv_queue(Queue::of(16));
    let (push, pull) = (Push::with_options(small()), Pull::with_options(small()));
    pull.dial(push.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    let mut accepted = 0_u64;
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(500), push.send(vec![0; 1024])).await {
        sent.unwrap();
        accepted += 1;
        assert!(accepted < 4096, "4 MiB are on the way, and nobody takes them");
    }
    println!("{accepted} KiB on the way to a receiver that takes nothing");
    for _ in 0..accepted {
        soon("what is on the way", pull.recv()).await.unwrap();
    }
    assert_eq!(pull.try_recv().unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_floods_keeps_no_other_waiting() {
    let pull = Pull::with_options(SocketOptions::default().recv_queue(Queue::of(32)));
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let flooding = Push::new();
    flooding.dial(&address).unwrap();
    let flood = tokio::spawn(async move { while flooding.send(vec![0; 64]).await.is_ok() {} });
    // Until its reader has to wait.
    let mut before = 0;
    eventually(LONG, "a standstill", async || {
        let now = pull.stats().messages_in;
        // Only time tells a standstill from a pause.
        tokio::time::sleep(Duration::from_millis(50)).await;
        (now > 32 && std::mem::replace(&mut before, now) == now).then_some(())
    })
    .await;
    let mut other = Raw::hello(&address, PUSH).await;
    other.frame(b"from the other").await;
    eventually(LONG, "its arrival", async || (pull.stats().messages_in == before + 1).then_some(())).await;
    let mut count = 0;
    while soon("the other's", pull.recv()).await.unwrap() != "from the other" {
        count += 1;
    }
    println!("{before} messages of the flood had been read, {count} were received before the other's");
    assert!(count <= 100, "{count}");
    flood.abort();
}

#[tokio::test]
async fn a_socket_has_no_more_connections_than_it_may_and_a_place_that_is_free_is_taken() {
    let pull = Pull::with_options(SocketOptions::default().max_connections(2));
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    // One that says nothing yet counts as well.
    let (first, mut second) = (Raw::hello(&address, PUSH).await, Raw::connect(&address).await);
    for count in 1..=3 {
        let mut more = Raw::connect(&address).await;
        more.ends().await;
        eventually(LONG, "the count", async || {
            (pull.stats().refused(Refusal::TooMany) == count).then_some(())
        })
        .await;
    }
    drop(first);
    eventually(LONG, "its end", async || pull.peers().is_empty().then_some(())).await;
    let push = Push::with_options(quick());
    push.dial(&address).unwrap();
    push.send("third").await.unwrap();
    assert_eq!(soon("it", pull.recv()).await.unwrap(), "third");
    second.send(&[0, b'S', b'P', 0, 0, PUSH, 0, 0]).await;
    second.frame(b"second").await;
    assert_eq!(soon("it", pull.recv()).await.unwrap(), "second");
}

#[tokio::test]
async fn attempts_to_connect_become_rarer_and_start_anew_after_a_good_connection() {
    let waits = SocketOptions::default()
        .reconnect_first(Duration::from_millis(10))
        .reconnect_max(Duration::from_secs(60));
    let push = Push::with_options(waits);
    let pull = Pull::new();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    drop(pull);
    push.dial(&address).unwrap();
    // The waits are 10, 20, 40 ms and so on, each at least half as long: that is the time which is measured.
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (failures, elapsed) = (push.stats().dial_failures, begun.elapsed());
    println!("{failures} attempts in {elapsed:?}");
    let least = Duration::from_millis(5 * ((1 << (failures - 1)) - 1));
    assert!(failures >= 1 && least <= elapsed + Duration::from_millis(50), "{failures} in {elapsed:?}");
    let pull = Pull::new();
    eventually(LONG, "the address", async || pull.listen(&address).await.ok()).await;
    soon("a connection", push.connected(1)).await.unwrap();
    // A connection that lasts for longer than the wait had become makes the next wait the first again.
    tokio::time::sleep(begun.elapsed() * 3).await;
    drop(pull);
    let (before, begun) = (push.stats().dial_failures, Instant::now());
    eventually(LONG, "more attempts", async || (push.stats().dial_failures >= before + 3).then_some(()))
        .await;
    println!("three more in {:?}", begun.elapsed());
    // Else they would take at least 4.4 s.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_subscriber_that_does_not_keep_up_loses_its_oldest_messages_and_they_are_counted() {
    let queue = Queue::of(100).bytes(10_000_000);
    let publisher = Pub::with_options(SocketOptions::default().send_queue(queue));
    let address = publisher.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut slow = Raw::hello(&address, SUB).await;
    let fast = Sub::new();
    fast.subscribe("");
    fast.dial(&address).unwrap();
    publisher.connected(2).await.unwrap();
    const SENT: u32 = 2000;
    for number in 0..SENT {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(10_000, 0);
        publisher.send(body).await.unwrap();
        // The fast one gets everything, however slow the other is.
        assert_eq!(soon("it", fast.recv()).await.unwrap()[..4], number.to_be_bytes());
    }
    let dropped = publisher.stats().dropped;
    let (mut received, mut last) = (0_u32, None);
    while last != Some(SENT - 1) {
        let body = soon("the rest", slow.read_frame()).await.unwrap();
        let number = u32::from_be_bytes(body[..4].try_into().unwrap());
        assert!(last.is_none_or(|last| last < number), "in order");
        last = Some(number);
        received += 1;
    }
    println!("{received} of {SENT} received, {dropped} dropped");
    assert!(dropped > 0 && received >= 100);
    assert_eq!(u64::from(received) + dropped, u64::from(SENT));
}

#[tokio::test]
async fn a_subscriber_that_does_not_keep_up_is_disconnected_on_request() {
    let options = SocketOptions::default().send_queue(Queue::of(100)).when_full(WhenFull::Disconnect);
    let publisher = Pub::with_options(options);
    let address = publisher.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut events = publisher.events();
    let mut slow = Raw::hello(&address, SUB).await;
    let fast = Sub::new();
    fast.subscribe("");
    fast.dial(&address).unwrap();
    publisher.connected(2).await.unwrap();
    let mut sent = 0_u64;
    while publisher.stats().connections == 2 {
        publisher.send(vec![0; 10_000]).await.unwrap();
        soon("it", fast.recv()).await.unwrap();
        sent += 1;
        assert!(sent < 10_000, "it is never disconnected");
    }
    loop {
        match soon("the event", events.next()).await.unwrap().unwrap() {
            PeerEvent::Disconnected { why, peer } => {
                assert_eq!(why, Some(Refusal::TooSlow));
                assert_eq!(peer.address, format!("tcp://{}", slow.stream.local_addr().unwrap()));
                break;
            }
            PeerEvent::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut received = 0;
    while soon("the rest", slow.read_frame()).await.is_some() {
        received += 1;
    }
    let dropped = publisher.stats().dropped;
    println!("{sent} sent, {received} received, {dropped} dropped");
    assert!((1..sent).contains(&dropped));
    publisher.send("still there").await.unwrap();
    assert_eq!(soon("it", fast.recv()).await.unwrap(), "still there");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_at_all_is_disconnected_in_the_middle_of_a_message() {
    const MORE_THAN_BUFFERS_HOLD: usize = 64 << 20;
    let options = SocketOptions::default()
        .max_message(MORE_THAN_BUFFERS_HOLD)
        .send_queue(Queue::of(100).bytes(MORE_THAN_BUFFERS_HOLD))
        .when_full(WhenFull::Disconnect);
    let publisher = Pub::with_options(options);
    let address = publisher.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut silent = Raw::hello(&address, SUB).await;
    publisher.connected(1).await.unwrap();
    publisher.send(vec![0; MORE_THAN_BUFFERS_HOLD]).await.unwrap();
    let mut length = [0; 8];
    soon("the write to begin", silent.stream.read_exact(&mut length)).await.unwrap();
    for _ in 0..=100 {
        publisher.send(vec![0; 10]).await.unwrap();
    }
    let gone = async || (publisher.stats().connections == 0).then_some(());
    eventually(LONG, "it to be disconnected", gone).await;
    assert_eq!(publisher.stats().dropped, 102, "the queue, and the message under way");
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_the_answers_is_no_longer_read_from() {
    let rep = Rep::with_options(SocketOptions::default().unanswered(10));
    let mut raw = Raw::hello(&rep.listen("tcp://127.0.0.1:0").await.unwrap(), REQ).await;
    let question = [&5_u64.to_be_bytes()[..], &0x8000_0001_u32.to_be_bytes(), b"?"].concat();
    raw.send(&question.repeat(5000)).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(soon("a question", rep.recv()).await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), rep.recv()).await.is_err());
    // One that is not answered at all makes room as well.
    drop(held.pop());
    held.push(soon("one more", rep.recv()).await.unwrap());
    for request in held {
        request.reply(vec![0; 100_000]).unwrap();
    }
    let mut answered = 10;
    while let Ok(request) = tokio::time::timeout(Duration::from_millis(500), rep.recv()).await {
        request.unwrap().reply(vec![0; 100_000]).unwrap();
        answered += 1;
    }
    println!("{answered} of 5000 questions were taken from a peer that reads no answers");
    assert!(answered < 100, "{answered}");
    // Once it reads, all are answered.
    let reading = async {
        for _ in 0..4999 {
            assert_eq!(raw.read_frame().await.unwrap().len(), 100_004)
        }
    };
    let answering = async {
        loop {
            rep.recv().await.unwrap().reply(vec![0; 100_000]).unwrap()
        }
    };
    tokio::select! {
        biased;
        () = soon("all answers", reading) => {}
        () = answering => {}
    }
}

#[tokio::test]
async fn so_many_requests_are_kept_as_fit_and_withdrawn_ones_make_room() {
    let req = Req::with_options(SocketOptions::default().send_queue(Queue::of(5)));
    let mut tickets = Vec::new();
    for _ in 0..5 {
        tickets.push(req.try_send("").unwrap());
    }
    assert!(matches!(req.try_send(""), Err(Error::Full)) && matches!(req.try_post(""), Err(Error::Full)));
    assert!(once(req.post("")).await.is_none());
    tickets.pop();
    req.try_post("posted").unwrap();
    assert!(matches!(req.try_send(""), Err(Error::Full)));
    assert_eq!(req.stats().pending, 5);
    // An answer makes room too.
    let rep = Rep::new();
    rep.dial(req.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    soon("a request", rep.recv()).await.unwrap().reply("").unwrap();
    soon("room", req.post("")).await.unwrap();
}

#[tokio::test]
async fn a_stalled_puller_holds_back_only_what_it_has() {
    let push = Push::new();
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let stalled = Raw::hello(&address, PULL).await;
    let pull = Pull::new();
    pull.dial(&address).unwrap();
    push.connected(2).await.unwrap();
    const SENT: u32 = 20_000;
    let sender = push.clone();
    let sending = tokio::spawn(async move {
        for number in 0..SENT {
            sender.send(Bytes::from(vec![number.to_be_bytes(); 64].concat())).await.unwrap();
        }
    });
    soon("all to be accepted", async {
        while !sending.is_finished() || push.stats().pending > push.stats().connections * 64 {
            let _ = tokio::time::timeout(Duration::from_millis(20), pull.recv()).await;
        }
    })
    .await;
    let mut rest = 0;
    while tokio::time::timeout(Duration::from_millis(300), pull.recv()).await.is_ok() {
        rest += 1;
    }
    let (of_all, with_stalled) = (u64::from(SENT), u64::from(SENT) - pull.stats().messages_in);
    println!("{with_stalled} of {of_all} messages of 256 B are with the stalled puller; {rest} came last");
    assert!(push.stats().pending <= 64, "{:?}: a batch of 16 KiB", push.stats());
    assert!(with_stalled < of_all / 4, "{with_stalled}");
    drop(stalled);
}

#[tokio::test]
async fn a_message_over_the_receivers_limit_ends_the_connection_within_the_process_too() {
    let (push, pull) = (Push::new(), Pull::with_options(SocketOptions::default().max_message(100)));
    pull.dial(push.listen("inproc://over-the-limit").await.unwrap()).unwrap();
    push.send(vec![0; 100]).await.unwrap();
    assert_eq!(soon("it", pull.recv()).await.unwrap().len(), 100);
    push.send(vec![0; 101]).await.unwrap();
    let counted = async || (pull.stats().refused(Refusal::TooLarge) == 1).then_some(());
    eventually(LONG, "the count", counted).await;
    assert_eq!(pull.try_recv().unwrap(), None);
}
