//! What sockets do when all is well.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use common::{LONG, places, quick, soon};
use sereno_sp::{Address, Error, PeerEvent, Pull, Push, Queue, SocketOptions};
use sereno_testkit::eventually;

#[tokio::test]
async fn what_is_pushed_is_pulled_in_order_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "order") {
        let (push, pull) = (Push::new(), Pull::new());
        pull.dial(push.listen(&place).await.unwrap()).unwrap();
        let sending = tokio::spawn({
            let push = push.clone();
            async move {
                for number in 0..10_000_u32 {
                    // From no bytes to many, so that every way to write is taken.
                    let size = if number % 1000 == 0 { 100_000 } else { number as usize % 300 };
                    let mut body = number.to_be_bytes().to_vec();
                    body.resize(4 + size, 7);
                    push.send(body).await.unwrap();
                }
            }
        });
        for number in 0..10_000_u32 {
            let body = soon("a message", pull.recv()).await.unwrap();
            assert_eq!(body[..4], number.to_be_bytes(), "{place}");
            assert!(body[4..].iter().all(|byte| *byte == 7));
        }
        sending.await.unwrap();
        assert_eq!(push.close().await.undelivered, 0);
        let stats = push.stats();
        assert_eq!((stats.messages_out, stats.dropped, stats.pending), (10_000, 0, 0));
        assert_eq!(pull.stats().messages_in, 10_000);
        assert_eq!(pull.stats().bytes_in, stats.bytes_out);
    }
}

#[tokio::test]
async fn messages_of_no_bytes_and_of_the_largest_size_arrive() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "sizes") {
        let options = SocketOptions::default().max_message(300_000);
        let (push, pull) = (Push::with_options(options.clone()), Pull::with_options(options));
        push.dial(pull.listen(&place).await.unwrap()).unwrap();
        for size in [0, 1, 65_535, 65_536, 300_000, 0] {
            push.send(vec![1; size]).await.unwrap();
            assert_eq!(soon("it", pull.recv()).await.unwrap().len(), size);
        }
        let error = push.send(vec![1; 300_001]).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { size: 300_001, limit: 300_000 }), "{error}");
    }
}

#[tokio::test]
async fn whoever_dials_before_anybody_listens_is_connected_later() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "early") {
        // A TCP port that is free, which the listener takes later.
        let place = match Push::new().listen(&place).await.unwrap() {
            Address::Inproc(name) => format!("inproc://{name}"),
            address => address.to_string(),
        };
        let push = Push::with_options(quick());
        push.dial(&place).unwrap();
        push.send("early").await.unwrap();
        eventually(LONG, "a failed attempt", async || (push.stats().dial_failures > 0).then_some(())).await;
        let pull = Pull::new();
        eventually(LONG, "the address", async || pull.listen(&place).await.ok()).await;
        assert_eq!(soon("the message", pull.recv()).await.unwrap(), "early");
    }
}

#[tokio::test]
async fn one_socket_listens_and_dials_several_addresses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pull = Pull::with_options(quick());
    let (mut pushers, mut expected) = (Vec::new(), BTreeSet::new());
    for (index, place) in places(&folder, "several").into_iter().enumerate() {
        let (listening, dialling) = (Push::with_options(quick()), Push::with_options(quick()));
        dialling.dial(pull.listen(&place).await.unwrap()).unwrap();
        let other = place.replace("several", "several-other");
        pull.dial(listening.listen(&other).await.unwrap()).unwrap();
        for (kind, push) in [("listening", listening), ("dialling", dialling)] {
            let body = format!("{kind} {index}");
            push.send(body.clone()).await.unwrap();
            expected.insert(Bytes::from(body));
            pushers.push(push);
        }
    }
    let mut received = BTreeSet::new();
    for _ in 0..expected.len() {
        received.insert(soon("all", pull.recv()).await.unwrap());
    }
    assert_eq!(received, expected);
    assert_eq!(pull.addresses().len(), 4);
    assert_eq!(pull.peers().len(), 8);
    let peers = pull.peers();
    assert_eq!(peers.iter().filter(|peer| peer.dialled).count(), 4);
    assert!(matches!(pull.dial("inproc://several-other"), Err(Error::AlreadyUsed { .. })));
}

#[tokio::test]
async fn each_pushed_message_goes_to_one_puller_and_those_who_are_free_share_them() {
    let push = Push::new();
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let pullers = [Pull::new(), Pull::new(), Pull::new()];
    for pull in &pullers {
        pull.dial(&address).unwrap();
    }
    push.connected(3).await.unwrap();
    // One at a time, so that all are free each time: they have their turns.
    let mut counts = [0; 3];
    for number in 0..30_u8 {
        push.send(vec![number]).await.unwrap();
        let receive = async {
            tokio::select! {
                biased;
                body = pullers[0].recv() => (0, body),
                body = pullers[1].recv() => (1, body),
                body = pullers[2].recv() => (2, body),
            }
        };
        let (who, body) = soon("it", receive).await;
        assert_eq!(body.unwrap(), vec![number]);
        counts[who] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[tokio::test]
async fn a_batch_is_shared_by_all_who_are_free() {
    let push = Push::new();
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let pullers = [Pull::new(), Pull::new(), Pull::new()];
    for pull in &pullers {
        pull.dial(&address).unwrap();
    }
    push.connected(3).await.unwrap();
    let mut before = [0; 3];
    for round in 1..=10 {
        push.send_all(&mut (0..30_u8).map(|number| Bytes::from(vec![number])).collect()).await.unwrap();
        let counts = || pullers.each_ref().map(|pull| pull.stats().messages_in);
        let all = async || (counts().iter().sum::<u64>() == 30 * round).then_some(());
        eventually(LONG, "all", all).await;
        println!("{:?}", counts());
        for (count, before) in counts().into_iter().zip(&mut before) {
            assert!(
                std::mem::replace(before, count) < count,
                "everybody has a part of each batch: {:?}",
                counts()
            );
        }
    }
}

#[tokio::test]
async fn batches_are_sent_and_received_whole_and_in_order() {
    let (push, pull) = (Push::new(), Pull::with_options(SocketOptions::default().recv_queue(Queue::of(16))));
    pull.dial(push.listen("inproc://batches").await.unwrap()).unwrap();
    let mut batch: VecDeque<Bytes> =
        (0..5000_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    let sending = tokio::spawn(async move {
        push.send_all(&mut batch).await.unwrap();
        assert!(batch.is_empty());
        push
    });
    let mut received = Vec::new();
    while received.len() < 5000 {
        let before = received.len();
        let count = soon("some", pull.recv_many(&mut received, 100)).await.unwrap();
        assert!((1..=100).contains(&count) && received.len() == before + count);
    }
    let expected: Vec<_> = (0..5000_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    assert_eq!(received, expected);
    sending.await.unwrap();
}

#[tokio::test]
async fn events_tell_who_comes_and_goes() {
    let (push, pull) = (Push::with_options(quick()), Pull::new());
    let mut events = pull.events();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    push.dial(&address).unwrap();
    let PeerEvent::Connected(peer) = soon("an event", events.next()).await.unwrap().unwrap() else {
        panic!("not that")
    };
    assert!(peer.address.starts_with("tcp://127.0.0.1:") && peer.address != address.to_string(), "{peer:?}");
    assert_eq!((&peer.endpoint, peer.dialled), (&address, false));
    assert_eq!(pull.peers(), std::slice::from_ref(&peer));
    assert!(push.disconnect(&address).unwrap() && !push.disconnect(&address).unwrap());
    let event = soon("an event", events.next()).await.unwrap().unwrap();
    assert_eq!(event, PeerEvent::Disconnected { peer, why: None });
    assert_eq!(pull.stats().connections, 0);
    pull.close().await;
    assert!(soon("the end", events.next()).await.is_none());
    assert!(soon("the end", pull.events().next()).await.is_none());
}

#[tokio::test]
async fn an_address_is_told_with_the_port_that_the_system_chose_over_ipv4_and_ipv6_and_by_name() {
    for place in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0", "tcp://*:0"] {
        let pull = Pull::new();
        let address = match pull.listen(place).await {
            Ok(address) => address,
            // Not every machine has IPv6.
            Err(Error::Listen { source, .. }) if place.contains("::1") && source.raw_os_error().is_some() => {
                println!("no IPv6 here: {source}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let Address::Tcp { port, .. } = address else { panic!("{address}") };
        assert_ne!(port, 0);
        assert_eq!(pull.addresses(), std::slice::from_ref(&address));
        let push = Push::new();
        let name =
            if place.contains("localhost") { format!("tcp://localhost:{port}") } else { address.to_string() };
        push.dial(name.replace("0.0.0.0", "127.0.0.1")).unwrap();
        push.send(place).await.unwrap();
        assert_eq!(soon("it", pull.recv()).await.unwrap(), place);
        let error = Push::new().listen(&address).await.unwrap_err();
        assert!(matches!(error, Error::AddressInUse { .. }) && error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn what_can_never_be_dialled_is_refused_at_once() {
    let push = Push::new();
    let long = format!("ipc:///tmp/{}", "x".repeat(120));
    for (address, why) in [
        ("tcp://*:5555", "* is for listening"),
        ("tcp://127.0.0.1:0", "port 0 is for listening"),
        (&long, "longer than the system allows"),
    ] {
        let error = push.dial(address).unwrap_err();
        let Error::BadAddress { address: told, reason } = &error else { panic!("{error:?}") };
        assert!(told == address && reason.contains(why), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(push.stats().dial_failures, 0, "nothing was tried");
}

#[tokio::test]
async fn why_an_address_cannot_be_reached_is_told_once_and_stays_until_it_can() {
    let push = Push::with_options(quick());
    let mut events = push.events();
    // The socket has the port, so that nobody else gets it, and does not listen.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address: Address = format!("tcp://{}", taken.local_addr().unwrap()).parse().unwrap();
    push.dial(&address).unwrap();
    let event = soon("the failure", events.next()).await.unwrap().unwrap();
    let PeerEvent::DialFailed { address: told, reason } = event else { panic!("{event:?}") };
    assert!(told == address && reason.contains("refused"), "{told} {reason}");
    let more = async || (push.stats().dial_failures >= 5).then_some(());
    eventually(LONG, "more attempts", more).await;
    let unreachable = push.stats().unreachable;
    assert!(unreachable.len() == 1 && unreachable[0].address == address, "{unreachable:?}");
    drop(taken);
    let pull = Pull::new();
    eventually(LONG, "the port", async || pull.listen(&address).await.ok()).await;
    soon("a connection", push.connected(1)).await.unwrap();
    assert_eq!(push.stats().unreachable, []);
    let event = soon("the connection", events.next()).await.unwrap().unwrap();
    assert!(matches!(event, PeerEvent::Connected(_)), "the same failure is told once: {event:?}");
}
