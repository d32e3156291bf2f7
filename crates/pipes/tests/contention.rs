//! Many at the same time.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use common::{
    LONG, MODES, destination, join, member_keys, nothing, place, register, session, share, soon, take, with,
};
use sereno_pipes::{Destination, Error, Group, Mode};
use sereno_testkit::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn of_many_who_register_one_owns_the_destination_at_a_time_and_each_has_its_turn() {
    let (client, _) = place("turns").await;
    let (holders, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let session = session(&client, 15).await;
        let (holders, last) = (holders.clone(), last.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..3 {
                let options = destination().wait(LONG);
                let held = Destination::with_options(&session, "d", options).register().await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "somebody else has it, too");
                let token = held.status().token;
                assert!(last.swap(token, Ordering::SeqCst) < token, "tokens grow");
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                held.unregister().await.unwrap();
            }
        }));
    }
    for task in tasks {
        soon("all turns", task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn those_who_join_a_new_group_at_once_in_two_modes_all_get_one_mode_or_the_error() {
    let (client, oracle) = place("modes").await;
    let sending = session(&client, 15).await;
    let sender = register(&sending, "d", destination()).await;
    for round in 0..5 {
        let name = format!("g{round}");
        let mut tasks = Vec::new();
        for n in 0..8 {
            let session = session(&client, 15).await;
            let group = Group::with_options(&session, "d", &name, with(MODES[n % 2]));
            tasks.push(tokio::spawn(async move { (MODES[n % 2], group.join().await, session) }));
        }
        let (mut joined, mut modes, mut refused) = (Vec::new(), BTreeSet::new(), 0);
        for task in tasks {
            let (mode, member, session) = soon("joining", task).await.unwrap();
            match member {
                Ok(member) => {
                    modes.insert(mode.to_string());
                    joined.push((member, session));
                }
                Err(Error::ModeMismatch { mode: theirs, .. }) => {
                    assert_ne!(theirs, mode);
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!((modes.len(), joined.len(), refused), (1, 4, 4));
        assert_eq!(member_keys(&client, &oracle, "d", &name).await.len(), 4);
        let group = sender.groups().into_iter().find(|group| group.name == name).unwrap();
        assert_eq!(Some(group.mode.to_string()), modes.pop_first());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn many_members_that_join_at_once_share_what_is_sent() {
    let (client, _) = place("many").await;
    let session = session(&client, 15).await;
    for mode in MODES {
        let name = format!("d-{mode:?}");
        let sender = register(&session, &name, destination()).await;
        let joins: Vec<_> = (0..12)
            .map(|_| {
                let group = Group::with_options(&session, &name, "g", with(mode));
                tokio::spawn(async move { group.join().await.unwrap() })
            })
            .collect();
        let mut members = Vec::new();
        for joined in joins {
            members.push(soon("joining", joined).await.unwrap());
        }
        eventually(LONG, "twelve connections", async || {
            (sender.stats().groups["g"].connections == 12).then_some(())
        })
        .await;
        for n in 0..600 {
            sender.send(format!("{n:03}")).await.unwrap();
        }
        let shares = share(&members.iter().collect::<Vec<_>>(), 600).await;
        println!("{mode}: {:?}", shares.iter().map(Vec::len).collect::<Vec<_>>());
        let mut all = shares.concat();
        all.sort();
        assert!(all.iter().eq((0..600).map(|n| format!("{n:03}")).collect::<Vec<_>>().iter()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn several_tasks_send_at_once_and_each_keeps_its_order() {
    let (client, _) = place("senders").await;
    let session = session(&client, 15).await;
    for mode in MODES {
        let name = format!("d-{mode:?}");
        let sender = Arc::new(register(&session, &name, destination()).await);
        let member = join(&session, &name, "g", with(mode)).await;
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for n in 0..2000 {
                        sender.send(format!("{task} {n}")).await.unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        for _ in 0..8000 {
            let body = take(&member).await;
            let (task, n) = body.split_once(' ').unwrap();
            let task: usize = task.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[task]), "task {task}");
            next[task] += 1;
        }
        for task in tasks {
            soon("sending", task).await.unwrap();
        }
        nothing(&member).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test"]
async fn groups_that_come_and_go_do_not_touch_the_others() {
    let (client, _) = place("churn").await;
    let (sending, receiving) = (session(&client, 15).await, session(&client, 15).await);
    let options = destination().grace(std::time::Duration::ZERO);
    let sender = Arc::new(register(&sending, "d", options).await);
    let steady = join(&receiving, "d", "steady", with(Mode::AtLeastOnce)).await;
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let churn: Vec<_> = (0..3)
        .map(|group| {
            let (session, sender) = (receiving.clone(), sender.clone());
            tokio::spawn(async move {
                for round in 0..8 {
                    let options = with(MODES[(group + round) % 2]);
                    let group = Group::with_options(&session, "d", format!("g{group}"), options);
                    let member = group.join().await.unwrap();
                    let body = soon("something", member.recv()).await.unwrap().ack().unwrap();
                    assert!(!body.is_empty());
                    member.leave().await.unwrap();
                }
                drop(sender);
            })
        })
        .collect();
    let sent = tokio::spawn({
        let (sender, over) = (sender.clone(), over.clone());
        async move {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                sender.send(sent.to_string()).await.unwrap();
                sent += 1;
                if sent % 50 == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            sent
        }
    });
    let reader = tokio::spawn(async move {
        let mut next = 0;
        loop {
            let body = take(&steady).await;
            if body == "end" {
                // With the member, so that its group does not end with this task.
                return (next, steady);
            }
            assert_eq!(body, next.to_string());
            next += 1;
        }
    });
    for group in churn {
        soon("coming and going", group).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let sent = soon("sending", sent).await.unwrap();
    sender.send("end").await.unwrap();
    let (read, _steady) = soon("reading", reader).await.unwrap();
    assert_eq!(read, sent);
    eventually(LONG, "the others to be gone", async || (sender.groups().len() == 1).then_some(())).await;
    println!("{sent} messages in order while 24 groups came and went");
}
