//! One destination, a few groups, nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    LONG, MODES, at_least_once, destination, join, key, keys, member_keys, nothing, place, register, session,
    share, soon, take, take_all, text, with,
};
use sereno_pipes::core::KeyError;
use sereno_pipes::sp::Queue;
use sereno_pipes::{
    Destination, Error, Group, GroupChange, GroupOptions, MemberState, Mode, RegistrationState, WhenFull,
    core,
};
use sereno_testkit::eventually;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn each_group_gets_every_message_once_and_one_of_its_members_each() {
    let (client, _) = place("once").await;
    let (sending, receiving) = (session(&client, 15).await, session(&client, 15).await);
    for mode in MODES {
        let name = format!("d-{mode:?}");
        let sender = register(&sending, &name, destination()).await;
        let mut groups = Vec::new();
        for group in ["a", "b", "c"] {
            let pair = (
                join(&receiving, &name, group, with(mode)).await,
                join(&receiving, &name, group, with(mode)).await,
            );
            eventually(LONG, "both connections", async || {
                (pair.0.status().connected && pair.1.status().connected).then_some(())
            })
            .await;
            groups.push(pair);
        }
        let sent: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
        for body in &sent {
            assert_eq!(sender.send(body.clone()).await.unwrap(), 3);
        }
        for (one, other) in &groups {
            let shares = share(&[one, other], sent.len()).await;
            println!("{mode}: {} and {}", shares[0].len(), shares[1].len());
            assert!(shares.iter().all(|share| share.is_sorted()), "each connection keeps the order");
            let mut all = shares.concat();
            all.sort();
            assert_eq!(all, sent);
            nothing(one).await;
            nothing(other).await;
        }
        let stats = sender.stats();
        assert_eq!((stats.sent, stats.dropped, stats.lost, stats.to_nobody), (300, 0, 0, 0));
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_join_waits_for_the_destination_without_a_trace_and_is_cancelled_at_once() {
    let (client, oracle) = place("waits").await;
    let session = session(&client, 15).await;
    let group = Group::new(&session, "d", "g");
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.join().await }
    });
    let cancelled = tokio::spawn(async move { group.join().await });
    let early = tokio::time::timeout(Duration::from_millis(300), async {
        while !waiting.is_finished() && !cancelled.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(early.await.is_err(), "nobody has registered the destination");
    assert_eq!(keys(&client, &oracle, "d").await, Vec::<String>::new(), "waiting leaves no trace");

    let started = Instant::now();
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    println!("a join was cancelled in {:?}", started.elapsed());
    let sender = register(&session, "d", destination()).await;
    let member = soon("joining", waiting).await.unwrap().unwrap();
    assert_eq!(member_keys(&client, &oracle, "d", "g").await.len(), 1, "the cancelled one is no member");
    assert_eq!(sender.send("hello").await.unwrap(), 1, "joined: what is sent from now on goes to the group");
    assert_eq!(take(&member).await, "hello");

    let options = GroupOptions::default().wait(Some(Duration::from_millis(50)));
    let refused = Group::with_options(&session, "nobody", "g", options).join().await.unwrap_err();
    assert!(
        matches!(&refused, Error::NoDestination { destination } if destination == "nobody"),
        "{refused:?}"
    );
    assert!(refused.is_retryable());
    assert_eq!(keys(&client, &oracle, "nobody").await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_member_outlives_its_destination_and_gets_what_is_sent_when_it_is_back() {
    let (client, oracle) = place("again").await;
    let (sending, receiving) = (session(&client, 15).await, session(&client, 15).await);
    for mode in MODES {
        let name = format!("d-{mode:?}");
        let handle = Destination::new(&sending, &name);
        let sender = handle.register().await.unwrap();
        let member = join(&receiving, &name, "g", with(mode)).await;
        let first = member.status().address.unwrap();
        let started = Instant::now();
        sender.unregister().await.unwrap();
        sender.unregister().await.unwrap();
        println!("unregistered in {:?}", started.elapsed());
        let left = keys(&client, &oracle, &name).await;
        assert!(left.len() == 1 && left[0].contains("member/"), "the member alone is left: {left:?}");
        assert!(matches!(sender.send("x").await, Err(Error::Unregistered { .. })));
        assert_eq!(sender.status().state, RegistrationState::Ended);
        soon("its end", member.until(|status| status.state == MemberState::Waiting)).await;
        assert!(!member.status().connected);

        let sender = handle.register().await.unwrap();
        soon("the group", sender.wait_for(1)).await.unwrap();
        for body in ["one", "two", "three"] {
            assert_eq!(sender.send(body).await.unwrap(), 1);
        }
        assert_eq!(take_all(&member, 3).await, ["one", "two", "three"]);
        assert_ne!(member.status().address.unwrap(), first, "another port was followed");
        member.leave().await.unwrap();
        member.leave().await.unwrap();
        assert!(matches!(member.recv().await, Err(Error::Left { .. })));
        sender.unregister().await.unwrap();
        assert_eq!(keys(&client, &oracle, &name).await, Vec::<String>::new());
    }
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

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_destination_has_one_owner_and_the_next_one_waits_for_its_end() {
    let (client, oracle) = place("owner").await;
    let (first, second) = (session(&client, 15).await, session(&client, 15).await);
    let held = register(&first, "d", destination()).await;
    let owner = oracle.get(key(&client, "d", "owner")).await.unwrap();
    for other in [&first, &second] {
        let options = destination().wait(Duration::ZERO);
        let refused = Destination::with_options(other, "d", options).register().await.unwrap_err();
        assert!(matches!(&refused, Error::Owned { destination } if destination == "d"), "{refused:?}");
        assert!(refused.is_retryable() && !refused.is_session_lost() && !refused.is_outcome_unknown());
        let options = destination().wait(Duration::from_millis(100));
        let refused = Destination::with_options(other, "d", options).register().await.unwrap_err();
        assert!(matches!(refused, Error::Owned { .. }), "{refused:?}");
    }
    assert_eq!(oracle.get(key(&client, "d", "owner")).await.unwrap(), owner, "nobody touches another's key");
    let waiting = tokio::spawn({
        let second = second.clone();
        async move { Destination::new(&second, "d").register().await }
    });
    let cancelled = tokio::spawn(async move { Destination::new(&first, "d").register().await });
    tokio::task::yield_now().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    let token = held.status().token;
    held.unregister().await.unwrap();
    let next = soon("taking over", waiting).await.unwrap().unwrap();
    assert!(next.status().token > token, "the fencing token grows");
    assert_eq!(held.send("x").await.unwrap_err().to_string(), "destination \"d\" is not registered any more");
    assert_ne!(oracle.get(key(&client, "d", "owner")).await.unwrap(), owner);
    held.unregister().await.unwrap();
    drop(held);
    assert_eq!(next.status().state, RegistrationState::Registered, "ending twice takes only one's own");
    assert!(oracle.get(key(&client, "d", "owner")).await.is_some());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_register_that_is_cancelled_at_any_moment_leaves_the_destination_free() {
    let (client, oracle) = place("cancel").await;
    let session = session(&client, 15).await;
    let handle = Destination::with_options(&session, "d", destination().wait(Duration::from_secs(20)));
    let mut registered = 0;
    for step in 0..40 {
        let limit = Duration::from_micros(100 * step);
        if tokio::time::timeout(limit, handle.register()).await.is_ok() {
            registered += 1;
        }
    }
    println!("{registered} of 40 were quick enough");
    let sender = soon("registering after all that", handle.register()).await.unwrap();
    sender.unregister().await.unwrap();
    eventually(LONG, "no key", async || keys(&client, &oracle, "d").await.is_empty().then_some(())).await;
    // The same of joining.
    let sender = soon("registering", handle.register()).await.unwrap();
    for step in 0..40 {
        let joining = Group::new(&session, "d", "g");
        drop(tokio::time::timeout(Duration::from_micros(100 * step), joining.join()).await);
    }
    eventually(LONG, "no member", async || {
        member_keys(&client, &oracle, "d", "g").await.is_empty().then_some(())
    })
    .await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    soon("its turn", sender.wait_for(1)).await.unwrap();
    sender.send("x").await.unwrap();
    assert_eq!(take(&member).await, "x");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn dropping_the_handles_and_closing_the_session_free_keys_and_ports() {
    let (client, oracle) = place("drop").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    let address = sender.groups()[0].address.to_string();
    drop(member);
    eventually(LONG, "no member", async || {
        member_keys(&client, &oracle, "d", "g").await.is_empty().then_some(())
    })
    .await;
    drop(sender);
    eventually(LONG, "no key", async || keys(&client, &oracle, "d").await.is_empty().then_some(())).await;
    let port = address.strip_prefix("tcp://").unwrap().to_owned();
    eventually(LONG, "a free port", async || std::net::TcpListener::bind(&port).ok()).await;

    let sender = register(&session, "d", destination()).await;
    let member = join(&session, "d", "g", at_least_once()).await;
    let started = Instant::now();
    session.close().await.unwrap();
    println!("closed with a destination and a member in {:?}", started.elapsed());
    assert_eq!(keys(&client, &oracle, "d").await, Vec::<String>::new());
    assert!(sender.send("x").await.unwrap_err().is_session_lost());
    assert!(member.recv().await.unwrap_err().is_session_lost());
    assert!(Destination::new(&session, "d").register().await.unwrap_err().is_session_lost());
    sender.unregister().await.unwrap();
    member.leave().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_first_member_decides_the_mode_and_others_must_want_the_same() {
    let (client, oracle) = place("mode").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination().standing("always", Mode::AtLeastOnce)).await;
    let first = join(&session, "d", "g", at_least_once()).await;
    let refused = Group::new(&session, "d", "g").join().await.unwrap_err();
    let Error::ModeMismatch { mode: Mode::AtLeastOnce, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(refused.to_string(), "group \"g\" of destination \"d\" is at least once");
    let refused = Group::new(&session, "d", "always").join().await.unwrap_err();
    assert!(matches!(refused, Error::ModeMismatch { .. }), "{refused:?}");
    let stored = oracle.get(key(&client, "d", "group/g/address")).await.unwrap();
    let address = first.status().address.unwrap();
    assert_eq!(
        String::from_utf8(stored).unwrap(),
        format!("{{\"url\":\"{address}\",\"mode\":\"acked\"}}"),
        "who knows nothing of us can read it"
    );
    let second = join(&session, "d", "g", at_least_once()).await;
    assert_eq!(member_keys(&client, &oracle, "d", "g").await.len(), 2, "those who were refused are none");
    first.leave().await.unwrap();
    second.leave().await.unwrap();
    // A group that has ended begins anew, in any mode.
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    sender.send("x").await.unwrap();
    assert_eq!(take(&member).await, "x");
    let group = sender.groups().into_iter().find(|group| group.name == "g").unwrap();
    assert_eq!((group.mode, group.members), (Mode::AtMostOnce, 1));
}

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
async fn changes_of_the_groups_are_told_and_never_need_to_be_drained() {
    let (client, _) = place("changes").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination().grace(Duration::ZERO)).await;
    let idle = sender.group_changes();
    let mut changes = sender.group_changes();
    let one = join(&session, "d", "g", GroupOptions::default()).await;
    let next = soon("a change", changes.next()).await.unwrap().unwrap();
    let GroupChange::Joined(group) = next else { panic!("{next:?}") };
    assert_eq!((group.name.as_str(), group.mode, group.members), ("g", Mode::AtMostOnce, 1));
    assert_eq!(one.status().address.unwrap(), group.address);
    let two = join(&session, "d", "g", GroupOptions::default()).await;
    let next = soon("a change", changes.next()).await.unwrap().unwrap();
    let GroupChange::Changed { old, new } = next else { panic!("{next:?}") };
    assert_eq!((old.members, new.members, new.address), (1, 2, group.address));
    one.leave().await.unwrap();
    let next = soon("a change", changes.next()).await.unwrap().unwrap();
    assert!(matches!(next, GroupChange::Changed { new, .. } if new.members == 1));
    assert_eq!(sender.groups().len(), 1, "a group lives as long as any member");
    two.leave().await.unwrap();
    let next = soon("a change", changes.next()).await.unwrap().unwrap();
    assert!(matches!(next, GroupChange::Left(group) if group.name == "g"));
    sender.unregister().await.unwrap();
    assert!(soon("the end", changes.next()).await.is_none());
    let mut idle = idle;
    assert!(soon("the end", idle.next()).await.is_none(), "whoever did not look is told what matters");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn where_to_listen_and_what_to_advertise_are_options() {
    let (client, _) = place("address").await;
    let session = session(&client, 15).await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("ipc://{}", folder.path().join("pipe").display());
    let cases = [
        (destination(), "tcp://127.0.0.1:"),
        (destination().listen("tcp://0.0.0.0:0").advertise("localhost"), "tcp://localhost:"),
        (destination().listen("tcp://[::1]:0"), "tcp://[::1]:"),
        (destination().ports(30_000..=31_000), "tcp://127.0.0.1:30"),
        (destination().listen(&file), file.as_str()),
        (destination().listen("inproc://pipes-address"), "inproc://pipes-address."),
    ];
    for (options, start) in cases {
        let sender = register(&session, "d", options).await;
        let one = join(&session, "d", "one", GroupOptions::default()).await;
        let two = join(&session, "d", "two", at_least_once()).await;
        let addresses: Vec<_> = sender.groups().iter().map(|group| group.address.to_string()).collect();
        assert!(addresses.iter().all(|address| address.starts_with(start)), "{addresses:?}");
        assert_ne!(addresses[0], addresses[1], "each group has its own");
        assert!(!addresses.iter().any(|address| address.ends_with(":0")));
        assert_eq!(sender.send("x").await.unwrap(), 2);
        assert_eq!((take(&one).await, take(&two).await), ("x".into(), "x".into()));
        sender.unregister().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no socket's file is left");
    for (options, option) in [
        (destination().listen("tcp://0.0.0.0:0"), "advertise"),
        (destination().listen("tcp://127.0.0.1:5000"), "listen"),
        (destination().ports(0..=10), "ports"),
        (destination().window(0), "window"),
    ] {
        let refused = Destination::with_options(&session, "d", options).register().await.unwrap_err();
        assert!(
            matches!(&refused, Error::Core(core::Error::InvalidOption { option: bad, .. }) if *bad == option),
            "{refused:?}"
        );
    }
    for address in ["nonsense", "tcp://192.0.2.1:0", "ipc:///nowhere/at/all"] {
        let options = destination().listen(address);
        let refused = Destination::with_options(&session, "d", options).register().await.unwrap_err();
        assert!(matches!(refused, Error::Socket(_)), "{address}: {refused:?}");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn any_text_is_a_name_and_any_bytes_are_a_message() {
    let (client, _) = place("names").await;
    let session = session(&client, 15).await;
    let bytes: Vec<u8> = (0..=255).collect();
    for name in ["a/b", "%2F", "\0", "🦉", "..", "owner", "group", "member", "address", &"x".repeat(255)] {
        let sender = register(&session, name, destination()).await;
        let member = join(&session, name, name, at_least_once()).await;
        assert_eq!((sender.destination(), member.destination(), member.group()), (name, name, name));
        sender.send(bytes.clone()).await.unwrap();
        sender.send("").await.unwrap();
        assert_eq!(soon("bytes", member.recv()).await.unwrap().ack().unwrap(), bytes);
        assert_eq!(soon("nothing", member.recv()).await.unwrap().ack().unwrap(), "");
        sender.unregister().await.unwrap();
    }
    let refused = Destination::new(&session, "").register().await.unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::InvalidKey(KeyError::Empty))), "{refused:?}");
    let refused = Group::new(&session, "d", "y".repeat(256)).join().await.unwrap_err();
    assert!(matches!(refused, Error::Core(core::Error::InvalidKey(KeyError::TooLong { len: 256 }))));
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
        sender.unregister().await.unwrap();

        let sender = register(&session, &name, options.clone().standing("limit", mode)).await;
        soon("the group", sender.wait_for(1)).await.unwrap();
        let started = Instant::now();
        for n in 0..1000 {
            sender.send(n.to_string()).await.unwrap();
        }
        println!("{mode}: 1000 messages to a stuck group in {:?}, limit {limit:?}", started.elapsed());
        assert!(
            started.elapsed() >= limit && started.elapsed() < limit * 100,
            "waited for once, not 990 times"
        );
        let group = &sender.stats().groups["limit"];
        assert_eq!((group.queued, group.dropped, group.stalled), (10, 990, true));
        sender.send_all((0..5).map(|n| Bytes::from(n.to_string()))).await.unwrap();
        assert_eq!(sender.stats().groups["limit"].dropped, 995);
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
async fn foreign_keys_and_values_harm_nothing_and_are_counted() {
    let (client, oracle) = place("foreign").await;
    let session = session(&client, 15).await;
    let sender = register(&session, "d", destination()).await;
    let foreign = [
        ("group/g/member/x", "nonsense"),
        ("group/%zz/member/x", "push"),
        ("group/g/elsewhere", ""),
        ("other", ""),
        ("group/h/address", "{\"url\":5}"),
    ];
    for (rest, value) in foreign {
        oracle.put(key(&client, "d", rest), value).await;
    }
    let member = join(&session, "d", "g", GroupOptions::default()).await;
    sender.send("x").await.unwrap();
    assert_eq!(take(&member).await, "x");
    assert_eq!(sender.stats().malformed, 4);
    assert_eq!(sender.groups().len(), 1);
    // An address that was written over is put right, and what is no address meanwhile is not dialled.
    for value in [
        "{\"url\":\"http://x\",\"mode\":\"push\"}",
        "\u{0}",
        "{\"url\":\"tcp://127.0.0.1:1\",\"mode\":\"push\"}",
    ] {
        oracle.put(key(&client, "d", "group/g/address"), value).await;
        eventually(LONG, "the right address", async || {
            let stored = oracle.get(key(&client, "d", "group/g/address")).await?;
            String::from_utf8(stored).ok()?.contains(&sender.groups()[0].address.to_string()).then_some(())
        })
        .await;
    }
    let address = sender.groups()[0].address.clone();
    soon(
        "the right connection",
        member.until(|status| status.connected && status.address.as_ref() == Some(&address)),
    )
    .await;
    sender.send("y").await.unwrap();
    assert_eq!(take(&member).await, "y");
}
