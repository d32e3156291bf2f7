//! What recipes on these sockets stand on: requests given back, requests marked as sent before, queues that keep the newest.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{LONG, soon};
use sereno_sp::{Error, Pull, Push, Queue, RESENT, Rep, Req, SocketOptions};
use sereno_testkit::eventually;

const AGAIN: Bytes = Bytes::from_static(b"not I");

fn options() -> SocketOptions {
    SocketOptions::default().mark_resent(true).again(Some(AGAIN)).linger(Duration::ZERO)
}

async fn pair(options: SocketOptions, name: &str) -> (Req, Rep, String) {
    let (req, rep) = (Req::with_options(options), Rep::new());
    let address = format!("inproc://{name}");
    req.listen(&address).await.unwrap();
    rep.dial(&address).unwrap();
    soon("it", req.connected(1)).await.unwrap();
    (req, rep, address)
}

#[tokio::test]
async fn a_request_that_is_given_back_goes_to_another_peer_under_the_same_number_with_the_mark() {
    let (req, rep, address) = pair(options(), "given-back").await;
    let mut ticket = req.send("x").await.unwrap();
    let first = soon("it", rep.recv()).await.unwrap();
    assert_eq!(first.number() & RESENT, 0, "new");
    let number = first.number();
    let other = Rep::new();
    other.dial(&address).unwrap();
    soon("it", req.connected(2)).await.unwrap();
    first.reply(AGAIN).unwrap();
    let again = soon("it", other.recv()).await.unwrap();
    assert_eq!((&again.body()[..], again.number()), (&b"x"[..], number | RESENT));
    again.reply("done").unwrap();
    assert_eq!(soon("it", &mut ticket).await.unwrap(), "done");
    assert_eq!((req.stats().resent, req.stats().late, req.stats().pending), (1, 0, 0));
}

#[tokio::test]
async fn a_request_of_a_lost_connection_is_marked_if_it_had_been_written_and_not_otherwise() {
    let (req, rep, address) = pair(options().window(2), "lost").await;
    for body in ["a", "b", "c"] {
        req.post(body).await.unwrap();
    }
    let mut requests = Vec::new();
    while requests.len() < 2 {
        soon("it", rep.recv_many(&mut requests, 9)).await.unwrap();
    }
    assert_eq!(requests.len(), 2, "the window");
    rep.close().await;
    let rep = Rep::new();
    rep.dial(&address).unwrap();
    for (body, marked) in [("a", true), ("b", true), ("c", false)] {
        let request = soon("it", rep.recv()).await.unwrap();
        assert_eq!((&request.body()[..], request.number() & RESENT != 0), (body.as_bytes(), marked));
        request.reply("").unwrap();
    }
    soon("it", req.flush()).await.unwrap();
}

#[tokio::test]
async fn an_answer_to_either_copy_counts_and_giving_back_what_another_has_changes_nothing() {
    let (req, rep, _) = pair(options().resend(Some(Duration::from_millis(20))), "either").await;
    req.post("x").await.unwrap();
    let first = soon("it", rep.recv()).await.unwrap();
    let second = soon("it", rep.recv()).await.unwrap();
    assert_eq!(second.number(), first.number() | RESENT);
    first.reply("done").unwrap();
    soon("it", req.flush()).await.unwrap();
    second.reply(AGAIN).unwrap();
    // The next comes after it on the same connection.
    req.post("y").await.unwrap();
    let next = soon("it", async {
        loop {
            let request = rep.recv().await.unwrap();
            if request.body() == "y" {
                break request;
            }
        }
    })
    .await;
    next.reply("done").unwrap();
    soon("it", req.flush()).await.unwrap();
    assert_eq!(req.stats().pending, 0);
}

#[tokio::test]
async fn without_the_option_numbers_carry_no_mark_and_every_answer_is_one() {
    let (req, rep, _) = pair(SocketOptions::default(), "plain").await;
    let ticket = req.send("x").await.unwrap();
    soon("it", rep.recv()).await.unwrap().reply(AGAIN).unwrap();
    assert_eq!(soon("it", ticket).await.unwrap(), AGAIN);
}

#[tokio::test]
async fn a_queue_that_keeps_the_newest_drops_the_oldest_and_never_waits() {
    let bounded = options().send_queue(Queue::of(5));
    let (push, pull) = (Push::with_options(bounded.clone()), Pull::new());
    push.listen("inproc://newest-push").await.unwrap();
    let dropped: usize = (0..20).map(|n| push.send_newest(format!("{n:02}")).unwrap()).sum();
    assert_eq!((dropped, push.stats().pending), (15, 5));
    assert!(matches!(push.try_send("x"), Err(Error::Full)), "no room came from nothing");
    pull.dial("inproc://newest-push").unwrap();
    for n in 15..20 {
        assert_eq!(soon("it", pull.recv()).await.unwrap(), format!("{n:02}"));
    }
    eventually(LONG, "room", async || push.try_send("x").is_ok().then_some(())).await;

    let req = Req::with_options(bounded.window(2));
    req.listen("inproc://newest-req").await.unwrap();
    let dropped: usize = (0..20).map(|n| req.post_newest(format!("{n:02}")).unwrap()).sum();
    assert_eq!((dropped, req.stats().pending), (15, 5));
    let rep = Rep::new();
    rep.dial("inproc://newest-req").unwrap();
    let held = (soon("it", rep.recv()).await.unwrap(), soon("it", rep.recv()).await.unwrap());
    // Two are with the peer: those are not dropped.
    let dropped: usize = (20..30).map(|n| req.post_newest(format!("{n:02}")).unwrap()).sum();
    assert_eq!((dropped, req.stats().pending), (10, 5));
    assert_eq!((&held.0.body()[..], &held.1.body()[..]), (&b"15"[..], &b"16"[..]));
    drop(held);
    req.close().await;
    assert!(matches!(req.post_newest("x"), Err(Error::Closed)));
    push.close().await;
    assert!(matches!(push.send_newest("x"), Err(Error::Closed)));
}

#[tokio::test]
async fn when_peers_have_all_a_queue_holds_the_newest_is_what_is_dropped() {
    let (req, rep, _) = pair(options().send_queue(Queue::of(3)).window(10), "all").await;
    for n in 0..3 {
        assert_eq!(req.post_newest(n.to_string()).unwrap(), 0);
    }
    let mut requests = Vec::new();
    while requests.len() < 3 {
        soon("it", rep.recv_many(&mut requests, 9)).await.unwrap();
    }
    assert_eq!(req.post_newest("too many").unwrap(), 1);
    assert_eq!(req.stats().pending, 3);
    for request in requests {
        request.reply("").unwrap();
    }
    soon("it", req.flush()).await.unwrap();
    assert_eq!(req.post_newest("fits").unwrap(), 0);
}
