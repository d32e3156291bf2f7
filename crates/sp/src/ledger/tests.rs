//! The book under every order of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Add,
    Connect,
    Disconnect(usize),
    Write(usize),
    Answer(usize),
    Withdraw(usize),
    Overdue,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Add),
        1 => Just(Step::Connect),
        1 => any::<usize>().prop_map(Step::Disconnect),
        4 => any::<usize>().prop_map(Step::Write),
        3 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::Withdraw),
        1 => Just(Step::Overdue),
    ];
    prop::collection::vec(step, 1..120)
}

fn take(ledger: &mut Ledger, index: usize) -> Option<Vec<u32>> {
    let mut batch = VecDeque::new();
    ledger.write(index, &mut batch, Waker::noop()).then(|| {
        batch
            .into_iter()
            .map(|frame| match frame.head {
                Head::Word(word) => word & !tags::LAST,
                other => panic!("{other:?}"),
            })
            .collect()
    })
}

proptest! {
    /// Whatever happens: no request is lost or has two places, no connection has more than its window, and the sums are right.
    #[test]
    fn every_open_request_waits_or_is_with_one_connection(steps in steps(), window in 1_usize..4) {
        // Just before the numbers begin again.
        let mut ledger = Ledger::new(window, tags::LAST - 5);
        let mut up = BTreeSet::new();
        let mut open = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add => {
                    let body = Bytes::from(open.len().to_string());
                    prop_assert!(open.insert(ledger.add(body.clone(), None), body).is_none());
                }
                Step::Connect => prop_assert!(up.insert(ledger.connect())),
                Step::Disconnect(pick) if !up.is_empty() => {
                    let index = *up.iter().nth(pick % up.len()).unwrap();
                    up.remove(&index);
                    ledger.disconnect(index);
                    prop_assert!(take(&mut ledger, index).is_none());
                }
                Step::Write(pick) if !up.is_empty() => {
                    let index = *up.iter().nth(pick % up.len()).unwrap();
                    let written = take(&mut ledger, index).unwrap();
                    prop_assert!(written.len() <= window);
                    prop_assert!(written.iter().all(|number| open.contains_key(number)));
                }
                Step::Answer(pick) if !open.is_empty() => {
                    let number = *open.keys().nth(pick % open.len()).unwrap();
                    let request = ledger.answer(pick % 3, number).unwrap();
                    prop_assert_eq!(Some(request.body), open.remove(&number));
                    prop_assert!(ledger.answer(0, number).is_none());
                }
                Step::Withdraw(pick) if !open.is_empty() => {
                    let number = *open.keys().nth(pick % open.len()).unwrap();
                    prop_assert!(ledger.withdraw(number).is_some());
                    open.remove(&number);
                }
                Step::Overdue => {
                    let with_links = ledger.open.values().filter(|request| request.link.is_some()).count();
                    prop_assert_eq!(ledger.overdue(Duration::ZERO), with_links);
                }
                _ => {}
            }
            ledger.assign();
            prop_assert_eq!(ledger.len(), open.len());
            let mut unanswered = 0;
            for (index, link) in ledger.links.iter().enumerate() {
                prop_assert_eq!(link.is_some(), up.contains(&index));
                let had = ledger.open.values().filter(|request| request.link == Some(index)).count();
                prop_assert_eq!(link.as_ref().map_or(0, |link| link.unanswered), had);
                prop_assert!(had <= window);
                unanswered += had;
            }
            prop_assert_eq!(ledger.room, up.len() * window - unanswered);
            let waiting: BTreeSet<_> = ledger.waiting.iter().filter(|number| ledger.open.contains_key(number)).collect();
            prop_assert_eq!(waiting.len(), ledger.len() - unanswered);
            prop_assert!(waiting.is_empty() || ledger.room == 0, "nothing waits while somebody has room");
        }
    }
}

#[test]
fn requests_of_a_lost_connection_go_elsewhere_in_their_order_before_all_others() {
    let mut ledger = Ledger::new(3, 7);
    let first = ledger.connect();
    for body in ["a", "b", "c", "d"] {
        ledger.add(Bytes::from(body), None);
    }
    ledger.assign();
    assert_eq!(take(&mut ledger, first), Some(vec![7, 8, 9]));
    assert_eq!(ledger.disconnect(first), 3);
    let second = ledger.connect();
    ledger.assign();
    assert_eq!(take(&mut ledger, second), Some(vec![7, 8, 9]));
    assert!(ledger.answer(second, 8).is_some());
    ledger.assign();
    assert_eq!(take(&mut ledger, second), Some(vec![10]));
}

#[test]
fn a_connection_that_does_not_answer_comes_last() {
    let mut ledger = Ledger::new(8, 0);
    let (silent, other) = (ledger.connect(), ledger.connect());
    ledger.add(Bytes::new(), None);
    ledger.assign();
    assert_eq!(take(&mut ledger, silent), Some(vec![0]));
    assert_eq!(ledger.overdue(Duration::ZERO), 1);
    ledger.assign();
    assert_eq!(take(&mut ledger, silent), Some(vec![]));
    assert_eq!(take(&mut ledger, other), Some(vec![0]));
}

#[test]
fn a_request_that_is_withdrawn_again_and_again_leaves_nothing_behind() {
    let mut ledger = Ledger::new(2, 0);
    ledger.connect();
    for _ in 0..10_000 {
        let number = ledger.add(Bytes::new(), None);
        ledger.assign();
        assert!(ledger.withdraw(number).is_some());
    }
    assert_eq!(ledger.len(), 0);
    assert!(ledger.links[0].as_ref().unwrap().out.len() < 100);
    assert!(ledger.waiting.len() < 100);
}
