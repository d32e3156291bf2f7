//! Requests and their answers.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{places, soon};
use sereno_sp::{Rep, Req, SocketOptions};

#[tokio::test]
async fn requests_are_answered_in_any_order_and_each_gets_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "requests") {
        let (req, rep) = (Req::new(), Rep::new());
        rep.dial(req.listen(&place).await.unwrap()).unwrap();
        let mut tickets = Vec::new();
        for number in 0..10_u8 {
            tickets.push(soon("room", req.send(vec![number])).await.unwrap());
        }
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(soon("a request", rep.recv()).await.unwrap());
        }
        for request in requests.into_iter().rev() {
            let body = [request.body().as_ref(), b" answered"].concat();
            request.reply(body).unwrap();
        }
        for (number, ticket) in (0..10_u8).zip(tickets) {
            let answer = soon("an answer", ticket).await.unwrap();
            assert_eq!(answer, [&[number][..], b" answered"].concat());
        }
        assert_eq!(req.stats().pending, 0);
    }
}

#[tokio::test]
async fn a_flush_waits_for_what_was_posted_before_it_and_for_no_more() {
    let (req, rep) = (Req::new(), Rep::new());
    rep.dial(req.listen("inproc://flush").await.unwrap()).unwrap();
    req.flush().await.unwrap();
    req.post("1").await.unwrap();
    req.post("2").await.unwrap();
    let (one, two) = (rep.recv().await.unwrap(), rep.recv().await.unwrap());
    let flush = req.flush();
    tokio::pin!(flush);
    let unfinished = |context: &mut std::task::Context<'_>| {
        std::task::Poll::Ready(flush.as_mut().poll(context).is_pending())
    };
    assert!(std::future::poll_fn(unfinished).await);
    req.post("3").await.unwrap();
    let three = soon("the third", rep.recv()).await.unwrap();
    two.reply("").unwrap();
    one.reply("").unwrap();
    soon("the flush", flush).await.unwrap();
    assert_eq!(req.stats().pending, 1, "the third is still open");
    drop(three);
}

#[tokio::test]
async fn no_connection_has_more_unanswered_requests_than_the_window_and_the_least_busy_comes_first() {
    let req = Req::with_options(SocketOptions::default().window(4));
    let address = req.listen("tcp://127.0.0.1:0").await.unwrap();
    let busy = Rep::new();
    busy.dial(&address).unwrap();
    req.connected(1).await.unwrap();
    for _ in 0..3 {
        req.post("").await.unwrap();
    }
    let free = Rep::new();
    free.dial(&address).unwrap();
    req.connected(2).await.unwrap();
    for _ in 0..10 {
        req.post("").await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(soon("its window", busy.recv()).await.unwrap());
        held.push(soon("its window", free.recv()).await.unwrap());
    }
    let more =
        tokio::time::timeout(Duration::from_millis(100), async { tokio::join!(busy.recv(), free.recv()) })
            .await;
    assert!(more.is_err() && busy.try_recv().unwrap().is_none() && free.try_recv().unwrap().is_none());
    assert_eq!(req.stats().pending, 13);
    // An answer makes room for one, just where it came from.
    held.pop().unwrap().reply("").unwrap();
    soon("one more", free.recv()).await.unwrap();
    assert!(busy.try_recv().unwrap().is_none());
}
