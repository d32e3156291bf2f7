//! Sockets that are closed or dropped, also in the midst of work.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, Raw, job, number, places, quick, small, soon};
use sereno_sp::{Error, Pub, Pull, Push, Queue, Rep, Req, Respondent, Sub, Surveyor};
use sereno_testkit::{ChildHost, child, eventually};

const PULL: u8 = 0x51;

#[tokio::test]
async fn a_dropped_socket_frees_its_address_soon_and_its_tasks_end() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    for (index, place) in places(&folder, "dropped").into_iter().enumerate() {
        let pull = Pull::new();
        let address = pull.listen(&place).await.unwrap();
        let pushers: Vec<_> = (0..5).map(|_| Push::with_options(quick())).collect();
        for push in &pushers {
            push.dial(&address).unwrap();
            push.dial("tcp://127.0.0.1:1").unwrap();
        }
        pull.connected(5).await.unwrap();
        assert!(metrics.num_alive_tasks() >= before + 16);
        if index % 2 == 0 {
            drop(pull);
        } else {
            pull.close().await;
        }
        let again = Pull::new();
        eventually(LONG, "the address", async || again.listen(&address).await.ok()).await;
        again.connected(5).await.unwrap();
        drop((pushers, again));
        eventually(LONG, "the end of all tasks", async || {
            (metrics.num_alive_tasks() == before).then_some(())
        })
        .await;
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
}

#[tokio::test]
async fn every_kind_of_socket_ends_its_tasks_when_it_is_closed_and_when_it_is_dropped() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    macro_rules! pair {
        ($one:ident, $other:ident, $name:literal) => {
            for close in [true, false] {
                let (one, other) = ($one::new(), $other::new());
                other.dial(one.listen(concat!("inproc://tasks-", $name)).await.unwrap()).unwrap();
                one.connected(1).await.unwrap();
                other.connected(1).await.unwrap();
                if close {
                    assert_eq!(soon("closing", one.close()).await, soon("closing", other.close()).await);
                    assert_eq!(one.close().await.undelivered, 0);
                    assert!(matches!(one.listen("inproc://x").await, Err(Error::Closed)));
                    assert!(matches!(other.dial("inproc://x"), Err(Error::Closed)));
                }
                drop((one, other));
                eventually(LONG, $name, async || (metrics.num_alive_tasks() == before).then_some(())).await;
            }
        };
    }
    pair!(Push, Pull, "push and pull");
    pair!(Pub, Sub, "pub and sub");
    pair!(Surveyor, Respondent, "surveyor and respondent");
    pair!(Req, Rep, "req and rep");
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_a_live_one_and_any_other_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let place = format!("ipc://{}", path.display());
    let mut dies = ChildHost::new("child_entry", "ipc").argument(&place).spawn();
    dies.wait_for("listening", LONG).await;
    let pull = Pull::new();
    assert!(matches!(pull.listen(&place).await, Err(Error::AddressInUse { .. })));
    dies.kill();
    assert!(path.exists(), "the dead leave their file");
    pull.listen(&place).await.unwrap();
    assert!(matches!(Pull::new().listen(&place).await, Err(Error::AddressInUse { .. })));
    pull.close().await;
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Pull::new().listen(&place).await, Err(Error::AddressInUse { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    // A socket whose file was replaced underneath does not delete the other's.
    let other = format!("{place}-other");
    let (pull, successor) = (Pull::new(), Pull::new());
    pull.listen(&other).await.unwrap();
    std::fs::remove_file(other.strip_prefix("ipc://").unwrap()).unwrap();
    successor.listen(&other).await.unwrap();
    drop(pull);
    let push = Push::new();
    push.dial(&other).unwrap();
    push.send("to the successor").await.unwrap();
    assert_eq!(soon("it", successor.recv()).await.unwrap(), "to the successor");
}

#[tokio::test]
async fn closing_sends_what_was_accepted_or_tells_how_much_was_not() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "closing") {
        let (push, pull) = (Push::with_options(quick().linger(LONG)), Pull::with_options(small()));
        let address = push.listen(&place).await.unwrap();
        for number in 0..1000 {
            push.send(job(number)).await.unwrap();
        }
        // Even to somebody who comes only now.
        pull.dial(&address).unwrap();
        let closing = tokio::spawn(async move { push.close().await });
        for expected in 0..1000 {
            assert_eq!(number(&soon("it", pull.recv()).await.unwrap()), expected);
        }
        assert_eq!(soon("the end", closing).await.unwrap().undelivered, 0);
    }
    let push = Push::with_options(quick().linger(Duration::from_millis(100)));
    push.listen("tcp://127.0.0.1:0").await.unwrap();
    for number in 0..7 {
        push.send(job(number)).await.unwrap();
    }
    assert_eq!(soon("the end", push.close()).await.undelivered, 7);
    assert_eq!(push.close().await.undelivered, 7);
    assert!(
        matches!(push.send("more").await, Err(Error::Closed))
            && matches!(push.try_send("more"), Err(Error::Closed))
    );
}

#[tokio::test]
async fn closing_is_bounded_with_a_peer_that_reads_nothing() {
    let push = Push::with_options(small().send_queue(Queue::of(1000)).linger(Duration::from_millis(200)));
    let publisher = Pub::with_options(small().send_queue(Queue::of(1000)).linger(Duration::from_millis(200)));
    let mut puller = Raw::hello(&push.listen("tcp://127.0.0.1:0").await.unwrap(), PULL).await;
    let mut subscriber = Raw::hello(&publisher.listen("tcp://127.0.0.1:0").await.unwrap(), 0x21).await;
    push.connected(1).await.unwrap();
    publisher.connected(1).await.unwrap();
    for number in 0..1000 {
        push.send(job(number)).await.unwrap();
        publisher.send(job(number)).await.unwrap();
    }
    let begun = Instant::now();
    let (pushed, published) = soon("both", async { tokio::join!(push.close(), publisher.close()) }).await;
    println!("closed after {:?}: {pushed:?}, {published:?}", begun.elapsed());
    for (closed, raw) in [(pushed, &mut puller), (published, &mut subscriber)] {
        let mut received = 0;
        while soon("the rest", raw.read_frame()).await.is_some() {
            received += 1;
        }
        assert!((1..1000).contains(&closed.undelivered), "{closed:?}");
        // A write that was cut short counts as not delivered, though its first messages may have been.
        assert!(received + closed.undelivered >= 1000 && received + closed.undelivered < 1100, "{received}");
    }
}

#[tokio::test]
async fn what_came_before_closing_is_still_received_and_then_it_is_closed() {
    let (push, pull) = (Push::new(), Pull::new());
    pull.dial(push.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    for number in 0..10 {
        push.send(job(number)).await.unwrap();
    }
    assert_eq!(push.close().await.undelivered, 0);
    eventually(LONG, "all", async || (pull.stats().messages_in == 10).then_some(())).await;
    let waiting = {
        let pull = pull.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while pull.recv().await.is_ok() {
                count += 1;
            }
            count
        })
    };
    pull.close().await;
    assert_eq!(soon("the end", waiting).await.unwrap(), 10);
    assert!(matches!(pull.recv().await, Err(Error::Closed)));
    assert!(matches!(pull.try_recv(), Err(Error::Closed)));
}

#[tokio::test]
async fn everybody_who_waits_is_told_when_the_socket_is_closed() {
    let req = Req::with_options(quick().linger(Duration::from_millis(50)).send_queue(Queue::of(2)));
    let surveyor = Surveyor::new();
    let (one, two) = (req.send("1").await.unwrap(), req.send("2").await.unwrap());
    let mut survey = surveyor.survey_for("", LONG).unwrap();
    let waiting =
        async { tokio::join!(one, two, req.post("3"), req.flush(), req.connected(1), survey.next()) };
    let closing = async {
        surveyor.close().await;
        req.close().await
    };
    let ((one, two, three, flush, connected, answer), closed) =
        soon("all", async { tokio::join!(waiting, closing) }).await;
    assert!(matches!(one, Err(Error::Unanswered)) && matches!(two, Err(Error::Unanswered)));
    assert!(one.unwrap_err().is_outcome_unknown());
    assert!(matches!(three, Err(Error::Closed)) && matches!(flush, Err(Error::Unanswered)));
    assert!(matches!(connected, Err(Error::Closed)));
    assert!(matches!(answer, Some(Err(Error::Closed))));
    assert_eq!(closed.undelivered, 2);
    assert!(matches!(surveyor.survey(""), Err(Error::Closed)));
    assert!(matches!(Pub::new().close().await.undelivered, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("ipc") {
        return; // Run by hand: nobody asked for a role.
    }
    let pull = Pull::new();
    let address = pull.listen(child::argument(0)).await.unwrap();
    child::say(&format!("listening {address}"));
    pull.recv().await.unwrap();
}
