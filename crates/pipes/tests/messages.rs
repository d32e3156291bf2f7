//! What becomes of messages: acknowledged or not, with room or not, with somebody there or not.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    LONG, MODES, at_least_once, destination, join, nothing, place, register, session, soon, take, take_all,
    text, with,
};
use sereno_pipes::sp::Queue;
use sereno_pipes::{Error, GroupOptions, Mode, WhenFull};
use sereno_testkit::eventually;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_message_comes_again_until_it_is_acknowledged_and_says_so() {
    let (client, _) = place("ack").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", at_least_once()).await;
    for body in ["a", "b"] {
        sender.send(body).await.unwrap();
    }
    let a = soon("a", member.recv()).await.unwrap();
    let b = soon("b", member.recv()).await.unwrap();
    assert_eq!((text(a.body()), text(b.body())), ("a".into(), "b".into()));
    assert!(!a.is_redelivered() && !b.is_redelivered());
    assert_ne!(a.number(), b.number());
    assert_eq!(sender.stats().groups["g"].queued, 2, "kept until they are acknowledged");
    let number = a.number();
    let started = Instant::now();
    drop(a);
    let again = soon("a again", member.recv()).await.unwrap();
    println!("given back and there again after {:?}", started.elapsed());
    assert_eq!((text(again.body()), again.is_redelivered(), again.number()), ("a".into(), true, number));
    // A second member gets what the first gives back.
    let other = join(&session, "d", "g", at_least_once()).await;
    soon("the connection", other.until(|status| status.connected)).await;
    drop(again);
    let again = soon("a at the other", other.recv()).await.unwrap();
    assert_eq!((text(again.body()), again.is_redelivered(), again.number()), ("a".into(), true, number));
    assert_eq!(again.ack().unwrap(), "a");
    assert_eq!(b.ack().unwrap(), "b");
    eventually(LONG, "nothing to be kept", async || (sender.stats().groups["g"].queued == 0).then_some(()))
        .await;
    assert_eq!(sender.stats().groups["g"].resent, 2);
    nothing(&member).await;
    nothing(&other).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_message_without_an_acknowledgement_is_sent_again_after_a_time() {
    let (client, _) = place("resend").await;
    let session = session(&client, 15).await;
    let options = destination().resend(Some(Duration::from_millis(100)));
    let sender = register(&session, "d", options).await;
    let member = join(&session, "d", "g", at_least_once()).await;
    sender.send("x").await.unwrap();
    let first = soon("x", member.recv()).await.unwrap();
    let second = soon("x again", member.recv()).await.unwrap();
    assert!(!first.is_redelivered() && second.is_redelivered());
    assert_eq!(first.number(), second.number());
    // The first acknowledgement counts, for whichever copy it is.
    assert_eq!(first.ack().unwrap(), "x");
    eventually(LONG, "nothing to be kept", async || (sender.stats().groups["g"].queued == 0).then_some(()))
        .await;
    drop(second);
    eventually(LONG, "peace", async || (sender.stats().groups["g"].queued == 0).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn who_leaves_can_still_read_what_came_or_hands_it_back() {
    let (client, _) = place("leave").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let plain = join(&session, "d", "plain", GroupOptions::default()).await;
    let acked = join(&session, "d", "acked", at_least_once()).await;
    sender.send_all((0..10).map(|n| Bytes::from(format!("{n}")))).await.unwrap();
    let group = async |name: &str| sender.stats().groups[name].clone();
    eventually(LONG, "all to be sent", async || {
        (group("plain").await.sent == 10 && group("acked").await.sent == 10).then_some(())
    })
    .await;
    assert_eq!(take(&plain).await, "0");
    let held = soon("0", acked.recv()).await.unwrap();
    assert_eq!(take(&acked).await, "1");
    let other = join(&session, "d", "acked", at_least_once()).await;
    eventually(LONG, "its acknowledgement", async || (group("acked").await.queued == 9).then_some(())).await;
    // All ten came by one connection, so they are there.
    eventually(LONG, "the last", async || plain.status().connected.then_some(())).await;
    let started = Instant::now();
    plain.leave().await.unwrap();
    acked.leave().await.unwrap();
    println!("two members left in {:?}", started.elapsed());
    let mut rest = Vec::new();
    let end = loop {
        match plain.recv().await {
            Ok(delivery) => rest.push(text(delivery.body())),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, Error::Left { .. }), "{end:?}");
    println!("at most once: {} of 9 were there and could be read", rest.len());
    assert!(rest.iter().eq((1..10).map(|n| n.to_string()).collect::<Vec<_>>().iter().take(rest.len())));
    assert!(matches!(acked.recv().await, Err(Error::Left { .. })));
    assert!(matches!(acked.try_recv(), Err(Error::Left { .. })));
    assert!(matches!(held.ack(), Err(Error::NotAcknowledged)), "its connection is gone");
    let mut handed = take_all(&other, 9).await;
    handed.sort();
    assert_eq!(handed, ["0", "2", "3", "4", "5", "6", "7", "8", "9"]);
    nothing(&other).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_full_queue_waits_or_gives_up_or_drops_the_oldest_as_it_was_told() {
    let (client, _) = place("full").await;
    let session = session(&client, 15).await;
    for mode in MODES {
        let limit = Duration::from_millis(50);
        let options = destination()
            .queue(Queue::of(10))
            .when_full(WhenFull::Wait)
            .when_full_for("limit", WhenFull::WaitUpTo(limit))
            .when_full_for("newest", WhenFull::DropOldest)
            .linger(Duration::ZERO);
        let name = format!("d-{mode:?}");
        let sender = register(&session, &name, options.clone().standing("newest", mode)).await;
        soon("the group", sender.wait_for(1)).await.unwrap();
        // Nobody is connected: everything stays in the queue.
        for n in 0..100 {
            assert_eq!(soon("never waits", sender.send(n.to_string())).await.unwrap(), 1);
        }
        let stats = sender.stats();
        assert_eq!(
            (stats.groups["newest"].queued, stats.groups["newest"].dropped, stats.dropped),
            (10, 90, 90)
        );
        let member = join(&session, &name, "newest", with(mode)).await;
        let newest: Vec<_> = (90..100).map(|n| n.to_string()).collect();
        assert_eq!(take_all(&member, 10).await, newest);
        member.leave().await.unwrap();
        sender.unregister().await.unwrap();

        let sender = register(&session, &name, options.clone().standing("limit", mode)).await;
        soon("the group", sender.wait_for(1)).await.unwrap();
        let started = Instant::now();
        for n in 0..1000 {
            let groups = sender.send(n.to_string()).await.unwrap();
            assert_eq!(groups, usize::from(n < 10), "whoever sends is told that it went nowhere");
        }
        println!("{mode}: 1000 messages to a stuck group in {:?}, limit {limit:?}", started.elapsed());
        assert!(
            started.elapsed() >= limit && started.elapsed() < limit * 100,
            "waited for once, not 990 times"
        );
        let group = &sender.stats().groups["limit"];
        assert_eq!((group.queued, group.dropped, group.stalled), (10, 990, true));
        let groups = sender.send_all((0..5).map(|n| Bytes::from(n.to_string()))).await.unwrap();
        assert_eq!((groups, sender.stats().groups["limit"].dropped), (0, 995));
        let member = join(&session, &name, "limit", with(mode)).await;
        let oldest: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(take_all(&member, 10).await, oldest);
        eventually(LONG, "room", async || (sender.stats().groups["limit"].queued == 0).then_some(())).await;
        sender.send("well again").await.unwrap();
        assert_eq!(take(&member).await, "well again");
        assert!(!sender.stats().groups["limit"].stalled);
        sender.unregister().await.unwrap();

        let sender = register(&session, &name, options.standing("wait", mode)).await;
        soon("the group", sender.wait_for(1)).await.unwrap();
        sender.send_all((0..10).map(|n| Bytes::from(n.to_string()))).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(200), sender.send("cancelled")).await;
        assert!(waits.is_err(), "{waits:?}");
        let member = join(&session, &name, "wait", with(mode)).await;
        assert_eq!(take_all(&member, 10).await, oldest, "what was cancelled is not sent");
        sender.send("next").await.unwrap();
        assert_eq!(take(&member).await, "next");
        member.leave().await.unwrap();
        let gone = async || (sender.stats().groups["wait"].connections == 0).then_some(());
        eventually(LONG, "its departure", gone).await;
        // Whoever waits for room when the registration ends is told that the message went nowhere.
        let waits = async {
            for n in 0..=10 {
                sender.send(n.to_string()).await?;
            }
            Ok(())
        };
        let ends = async {
            eventually(LONG, "a full queue", async || {
                (sender.stats().sent == 23 && sender.stats().groups["wait"].queued == 10).then_some(())
            })
            .await;
            sender.unregister().await.unwrap();
        };
        let (refused, ()) = soon("both", async { tokio::join!(waits, ends) }).await;
        assert!(matches!(refused, Err(Error::Unregistered { .. })), "{refused:?}");
        sender.unregister().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_group_without_members_ends_after_its_grace_and_one_that_stands_keeps_its_messages() {
    let (client, _) = place("grace").await;
    let session = session(&client, 15).await;
    let options = destination().grace(Duration::from_secs(600)).standing("stands", Mode::AtLeastOnce);
    let sender = register(&session, "d", options).await;
    soon("the standing group", sender.wait_for(1)).await.unwrap();
    sender.send("early").await.unwrap();
    let member = join(&session, "d", "g", at_least_once()).await;
    member.leave().await.unwrap();
    eventually(LONG, "the departure", async || {
        sender.groups().iter().any(|group| group.name == "g" && group.members == 0).then_some(())
    })
    .await;
    assert_eq!(sender.send("meanwhile").await.unwrap(), 2);
    let member = join(&session, "d", "g", at_least_once()).await;
    assert_eq!(take(&member).await, "meanwhile", "kept for whoever comes in time");
    let late = join(&session, "d", "stands", at_least_once()).await;
    assert_eq!(take_all(&late, 2).await, ["early", "meanwhile"]);

    let brief = register(&session, "brief", destination().grace(Duration::ZERO)).await;
    let member = join(&session, "brief", "g", at_least_once()).await;
    brief.send("x").await.unwrap();
    member.leave().await.unwrap();
    eventually(LONG, "the end of the group", async || brief.groups().is_empty().then_some(())).await;
    eventually(LONG, "the loss to be counted", async || (brief.stats().lost == 1).then_some(())).await;
    assert_eq!(brief.send("y").await.unwrap(), 0);

    let timed = register(&session, "timed", destination().grace(Duration::from_millis(200))).await;
    let member = join(&session, "timed", "g", at_least_once()).await;
    let started = Instant::now();
    member.leave().await.unwrap();
    eventually(LONG, "the end of the group", async || timed.groups().is_empty().then_some(())).await;
    println!("a group ended {:?} after its last member, grace 200 ms", started.elapsed());
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_cancelled_receive_loses_nothing() {
    let (client, _) = place("recv").await;
    let session = session(&client, 15).await;
    for mode in MODES {
        let name = format!("d-{mode:?}");
        let sender = register(&session, &name, destination()).await;
        let member = join(&session, &name, "g", with(mode)).await;
        let sending = tokio::spawn(async move {
            for n in 0..2000 {
                sender.send(format!("{n:04}")).await.unwrap();
                if n % 20 == 0 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            sender
        });
        let mut seen = Vec::new();
        let all = async {
            while seen.len() < 2000 {
                // Most of these end before there is anything.
                if let Ok(delivery) = tokio::time::timeout(Duration::from_micros(20), member.recv()).await {
                    seen.push(text(&delivery.unwrap().ack().unwrap()));
                }
            }
        };
        soon("all", all).await;
        assert!(seen.iter().eq((0..2000).map(|n| format!("{n:04}")).collect::<Vec<_>>().iter()));
        soon("sending", sending).await.unwrap().unregister().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_message_that_is_too_large_goes_to_nobody_and_harms_nothing() {
    let (client, _) = place("large").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    let refused = sender.send(vec![0; (1 << 20) + 1]).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { size: 1_048_577, limit: 1_048_576 }), "{refused:?}");
    let refused = sender.send_all([Bytes::from("x"), Bytes::from(vec![0; 1 << 21])]).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
    sender.send(vec![7; 1 << 20]).await.unwrap();
    assert_eq!(soon("the largest", member.recv()).await.unwrap().body().len(), 1 << 20);
    nothing(&member).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_message_for_no_group_goes_to_nobody_and_is_counted() {
    let (client, _) = place("nobody").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    assert_eq!(sender.send("x").await.unwrap(), 0);
    assert_eq!(sender.send_all([Bytes::from("y"), Bytes::from("z")]).await.unwrap(), 0);
    let stats = sender.stats();
    assert_eq!((stats.sent, stats.to_nobody), (3, 3));
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    assert_eq!(sender.send("seen").await.unwrap(), 1);
    assert_eq!(take(&member).await, "seen");
}
