//! One destination, a few groups, nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{
    LONG, MODES, at_least_once, destination, join, key, keys, member_keys, nothing, place, register, session,
    share, soon, take, take_all, with,
};
use sereno_pipes::core::KeyError;
use sereno_pipes::{
    Destination, Error, Group, GroupChange, GroupOptions, MemberState, Mode, RegistrationState, core,
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
    let mut others = Vec::new();
    for n in 0..20 {
        let other = join(&session, "d", &format!("g{n}"), GroupOptions::default()).await;
        assert!(other.status().address.is_some());
        assert_eq!(sender.send("all").await.unwrap(), n + 2, "nobody has to wait after joining");
        assert_eq!(take(&other).await, "all");
        others.push(other);
    }

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
