//! Cells against an etcd: what recipes build on, and what holds them together when sessions die.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::collections::BTreeSet;
use std::time::Duration;

use sereno_core::{
    Cells, CellsOptions, Client, ConnectOptions, Error, Namespace, Op, Prefix, Session, SessionOptions,
    Tally, TallyChange, Verdict,
};
use sereno_testkit::{Member, Oracle, Proxy, eventually, fresh_namespace, shared};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(120);

struct Place {
    endpoints: Vec<String>,
    options: ConnectOptions,
}

impl Place {
    async fn shared(test: &str) -> Self {
        Self::at(test, shared().await)
    }

    fn at(test: &str, endpoints: Vec<String>) -> Self {
        let options = ConnectOptions::default()
            .namespace(Namespace::new(&fresh_namespace(test)).unwrap())
            .attempt(Duration::from_millis(300))
            .deadline(Duration::from_secs(10));
        Self { endpoints, options }
    }

    async fn session(&self) -> Session {
        self.session_at(self.endpoints.clone()).await
    }

    async fn session_at(&self, endpoints: Vec<String>) -> Session {
        let client = Client::connect_with(endpoints, self.options.clone()).await.unwrap();
        Session::open_with(&client, SessionOptions::default().ttl(Duration::from_secs(60))).await.unwrap()
    }

    fn prefix(&self) -> Prefix {
        self.options.namespace.prefix("cells").unwrap().join("x").unwrap()
    }

    fn cells(&self, session: &Session) -> Cells {
        Cells::new(session, &self.prefix(), CellsOptions::default())
    }

    async fn names(&self, oracle: &Oracle) -> Vec<String> {
        let below = self.prefix().as_bytes().len();
        let all = oracle.range(self.prefix().as_bytes()).await;
        all.iter().map(|(key, _)| String::from_utf8(key[below..].to_vec()).unwrap()).collect()
    }
}

async fn revoke(oracle: &Oracle, session: &Session) {
    let read = oracle.client().get(session.epoch().key().as_bytes(), None).await.unwrap();
    assert!(oracle.revoke(read.kvs()[0].lease()).await);
}

fn count(by: i64) -> impl FnMut(&Tally) -> Verdict<i128> {
    move |tally| Verdict::Apply {
        change: TallyChange::Add(by),
        ops: vec![],
        result: tally.value + i128::from(by),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn decisions_and_additions_of_several_sessions_make_one_order() {
    let place = Place::shared("cells-order").await;
    let mut running = Vec::new();
    for _ in 0..4 {
        let cells = place.cells(&place.session().await);
        for task in 0..4 {
            let cells = cells.clone();
            running.push(tokio::spawn(async move {
                let mut told = Vec::new();
                for _ in 0..15 {
                    told.push(match task {
                        0 => i64::try_from(cells.exact(count(1)).await.unwrap()).unwrap(),
                        _ => cells.add(1).await.unwrap().unwrap().value,
                    });
                }
                told
            }));
        }
    }
    let mut told = Vec::new();
    for task in running {
        told.extend(task.await.unwrap());
    }
    told.sort_unstable();
    assert_eq!(told, (1..=240).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn decisions_see_the_entries_that_earlier_ones_have_made() {
    let place = Place::shared("cells-entries").await;
    let workers = place.prefix().join("workers").unwrap();
    let mut running = Vec::new();
    for _ in 0..3 {
        let cells = place.cells(&place.session().await);
        for _ in 0..5 {
            let (cells, workers) = (cells.clone(), workers.clone());
            running.push(tokio::spawn(async move {
                // Each takes the lowest free number: with anything stale two would take the same.
                let take = move |tally: &Tally| {
                    let number = tally.entries.len();
                    assert_eq!(tally.value, number as i128, "value and entries change together");
                    let key = workers.key(format!("{number:03}")).unwrap();
                    Verdict::Apply {
                        change: TallyChange::Add(1),
                        ops: vec![Op::put(&key, "x")],
                        result: number,
                    }
                };
                cells.exact(take).await.unwrap()
            }));
        }
    }
    let mut taken = BTreeSet::new();
    for task in running {
        assert!(taken.insert(task.await.unwrap()));
    }
    assert_eq!(taken, (0..15).collect());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_view_of_the_cells_tells_the_same_as_a_reading() {
    let place = Place::shared("cells-view").await;
    let (one, two) = (place.cells(&place.session().await), place.cells(&place.session().await));
    let mut watcher = one.watch().await.unwrap();
    assert_eq!(one.tally(watcher.view()).unwrap().base_revision, 0);
    one.add(3).await.unwrap().unwrap();
    two.exact(count(4)).await.unwrap();
    let last = two.set(9).await.unwrap();
    assert_eq!(last.value, 9);
    let seen =
        timeout(SOON, watcher.wait(|view| (view.revision() >= last.revision).then(|| one.tally(view))));
    let seen = seen.await.unwrap().unwrap().unwrap();
    let read = two.read().await.unwrap();
    assert_eq!((seen.value, seen.generation, seen.base_revision), (9, 2, last.revision));
    assert_eq!((read.value, read.generation, read.base_revision), (9, 2, last.revision));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_decision_whose_answer_was_lost_is_applied_once_even_when_its_session_dies() {
    let member = Member::single().await;
    let place = Place::at("cells-exact-lost", vec![member.endpoint()]);
    let oracle = member.oracle().await;
    let proxy = Proxy::to(member.endpoint()).await;
    let session = place.session_at(vec![proxy.endpoint()]).await;
    let (cells, other) = (place.cells(&session), place.cells(&place.session().await));
    for dies in [false, true] {
        cells.set(10).await.unwrap();
        // Only when this returns is what follows a use over and done with.
        cells.add(0).await.unwrap().unwrap();
        let (arrived, arrives) = std::sync::mpsc::sync_channel(16);
        let deciding = tokio::spawn({
            let cells = cells.clone();
            async move {
                cells
                    .exact(move |tally| {
                        // The state has been read; what comes now is the write.
                        let _ = arrived.try_send(());
                        std::thread::sleep(Duration::from_millis(100));
                        Verdict::Apply { change: TallyChange::Add(5), ops: vec![], result: tally.value + 5 }
                    })
                    .await
            }
        });
        tokio::task::spawn_blocking(move || arrives.recv_timeout(SOON).unwrap()).await.unwrap();
        proxy.drop_responses().await;
        let landed = async || (other.read().await.unwrap().value == 15).then_some(());
        eventually(SOON, "the decision to land", landed).await;
        if dies {
            revoke(&oracle, &session).await;
            let folded = async || {
                other.add(100).await.unwrap().unwrap();
                place.names(&oracle).await.iter().any(|name| name.starts_with("folded/")).then_some(())
            };
            eventually(SOON, "the cell to be folded", folded).await;
        }
        let before = other.read().await.unwrap().value;
        proxy.pass().await;
        assert_eq!(
            timeout(SOON, deciding).await.unwrap().unwrap().unwrap(),
            15,
            "what it was when it landed"
        );
        assert_eq!(other.read().await.unwrap().value, before, "applied once");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn the_cells_of_many_dead_sessions_are_counted_once_by_many_who_look() {
    const DEAD: usize = 60;
    let place = Place::shared("cells-dead").await;
    let oracle = Oracle::connect(&place.endpoints).await;
    let client = Client::connect_with(place.endpoints.clone(), place.options.clone()).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..DEAD {
        let session = Session::open(&client).await.unwrap();
        // They are not to count their cells in themselves.
        let options = CellsOptions::default().idle(Duration::from_secs(600));
        let cells = Cells::new(&session, &place.prefix(), options);
        cells.add(1).await.unwrap().unwrap();
        sessions.push((cells, session));
    }
    for (_, session) in &sessions {
        revoke(&oracle, session).await;
    }
    let mut lookers = Vec::new();
    for _ in 0..3 {
        lookers.push(place.cells(&place.session().await));
    }
    let counted = async || {
        for looker in &lookers {
            looker.add(0).await.unwrap().unwrap();
            assert_eq!(looker.read().await.unwrap().value, DEAD as i128, "whatever has been folded by now");
        }
        let names = place.names(&oracle).await;
        (names.iter().filter(|name| name.starts_with("folded/")).count() == DEAD).then_some(())
    };
    eventually(SOON, "all to be folded", counted).await;
    assert_eq!(lookers[0].read().await.unwrap().value, DEAD as i128);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_worker_that_dies_by_a_panic_is_replaced_and_its_callers_are_told_the_truth() {
    let place = Place::shared("cells-panic").await;
    let cells = place.cells(&place.session().await);
    cells.add(1).await.unwrap().unwrap();
    let told = cells.exact(|_| -> Verdict<()> { panic!("a decision of somebody's") }).await;
    assert!(matches!(told, Err(Error::OutcomeUnknown { .. })), "{told:?}");
    // Whoever comes while it is unwinding still is told that it has ended, and that nothing was applied.
    let value = eventually(SOON, "another worker", async || match cells.add(1).await {
        Ok(sum) => Some(sum.unwrap().value),
        Err(Error::Stopped) => None,
        Err(error) => panic!("{error}"),
    })
    .await;
    assert_eq!(value, 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn too_large_a_decision_harms_only_itself() {
    let place = Place::shared("cells-large").await;
    let cells = place.cells(&place.session().await);
    let key = place.prefix().key("own").unwrap();
    let many = key.clone();
    let many = cells.exact(move |_| Verdict::Apply {
        change: TallyChange::Add(1),
        ops: vec![Op::get(&many); 121],
        result: (),
    });
    let large = cells.exact(move |_| Verdict::Apply {
        change: TallyChange::Add(1),
        ops: vec![Op::put(&key, vec![0; 2 << 20])],
        result: (),
    });
    let (many, large, good) = tokio::join!(many, large, cells.add(1));
    assert!(matches!(many, Err(Error::TooLarge { what: "transaction", size: 121, .. })), "{many:?}");
    assert!(matches!(large, Err(Error::TooLarge { what: "request", .. })), "{large:?}");
    assert_eq!(good.unwrap().unwrap().value, 1);
    assert_eq!(cells.read().await.unwrap().value, 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_decision_can_change_the_value_and_other_keys_at_once() {
    let place = Place::shared("cells-exact").await;
    let session = place.session().await;
    let (cells, prefix) = (place.cells(&session), place.prefix());
    cells.add(2).await.unwrap().unwrap();
    let key = prefix.join("workers").unwrap().key("w1").unwrap();
    let put = key.clone();
    let enter = move |tally: &Tally| Verdict::Apply {
        change: TallyChange::Add(1),
        ops: vec![Op::put(&put, "here")],
        result: tally.value,
    };
    assert_eq!(cells.exact(enter).await.unwrap(), 2);
    let seen = cells.read().await.unwrap();
    assert_eq!((seen.value, seen.entries.len(), seen.generation), (3, 1, 1));
    let leave = cells.exact(move |tally| match tally.entries.iter().any(|kv| kv.key == key) {
        true => {
            Verdict::Apply { change: TallyChange::Set(0), ops: vec![Op::delete(&key)], result: tally.value }
        }
        false => Verdict::Refuse(-1),
    });
    assert_eq!(leave.await.unwrap(), 3);
    let seen = cells.read().await.unwrap();
    assert_eq!((seen.value, seen.entries.len(), seen.generation), (0, 0, 2));
    let outside =
        cells.exact(|_| Verdict::Apply { change: TallyChange::Set(i64::MAX), ops: vec![], result: () });
    outside.await.unwrap();
    let refused =
        cells.exact(|_| Verdict::Apply { change: TallyChange::Add(1), ops: vec![], result: () }).await;
    assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test"]
async fn a_decision_on_a_reading_kept_from_before_sees_everything_written_since() {
    let place = Place::shared("cells-kept").await;
    let session = place.session().await;
    let (cells, other) = (place.cells(&session), place.cells(&place.session().await));
    let entry = place.prefix().join("workers").unwrap().key("x").unwrap();
    let entries = |tally: &Tally| Verdict::Apply {
        change: TallyChange::Add(1),
        ops: vec![],
        result: (tally.entries.len(), tally.value),
    };
    assert_eq!(cells.exact(entries).await.unwrap(), (0, 0));
    assert_eq!(cells.exact(entries).await.unwrap(), (0, 1));
    // An addition of our own answers with the cells alone, and at a later revision than this entry's.
    session.client().settle(&sereno_core::Txn::new().then(Op::put(&entry, "x"))).await.unwrap();
    cells.add(1).await.unwrap().unwrap();
    assert_eq!(cells.exact(entries).await.unwrap(), (1, 3));
    // Somebody else's addition, and a refusal, which writes nothing and so is not checked by any condition.
    other.add(10).await.unwrap().unwrap();
    assert_eq!(cells.exact(|tally| Verdict::Refuse(tally.value)).await.unwrap(), 14);
    other.add(10).await.unwrap().unwrap();
    assert_eq!(cells.exact(entries).await.unwrap(), (1, 24));
    // Nothing but deciding to leave it: as good as a read.
    other.add(10).await.unwrap().unwrap();
    let keep = |tally: &Tally| Verdict::Apply { change: TallyChange::Keep, ops: vec![], result: tally.value };
    assert_eq!(cells.exact(keep).await.unwrap(), 35);
    // Our own cell is folded after a while; others have written meanwhile.
    let idle = Cells::new(
        &place.session().await,
        &place.prefix(),
        CellsOptions::default().idle(Duration::from_millis(100)),
    );
    assert_eq!(idle.exact(entries).await.unwrap(), (1, 35));
    let name = place.prefix().join("cells").unwrap();
    let before = session.client().count(&name).await.unwrap().0;
    eventually(SOON, "the idle cell to be folded", async || {
        (session.client().count(&name).await.unwrap().0 < before).then_some(())
    })
    .await;
    other.add(10).await.unwrap().unwrap();
    assert_eq!(idle.exact(entries).await.unwrap(), (1, 46));
}
