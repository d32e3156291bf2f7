//! Scripts at random, shrunk when the two servers disagree.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::ask::{ALL, span, watch};
use crate::generate::operation;
use crate::op::{Op, Watching, compacted};
use crate::pair::Pair;
use crate::shrink::Script;

/// How many operations to make up. The seed is proptest's: `PROPTEST_RNG_SEED`.
const OPERATIONS: &str = "SERENO_DIFFERENTIAL_OPS";
const DEFAULT_OPERATIONS: usize = 20_000;
const SCRIPT: usize = 1_000;

/// Watches that are open from the first operation on, and a reading of all there is at the end.
fn framed(body: &[Op]) -> Vec<Op> {
    let everything = Watching { prev_kv: true, watch_id: 90, ..watch(ALL.0, ALL.1) };
    let mut script = vec![
        Op::Watch(9, everything),
        Op::Watch(9, Watching { watch_id: 91, ..watch("a/", "a0") }),
        Op::Watch(9, Watching { watch_id: 92, prev_kv: true, filters: vec![0], ..watch("a", "") }),
        Op::Watch(9, Watching { watch_id: 93, filters: vec![1], ..watch("a", "b") }),
    ];
    script.extend_from_slice(body);
    let history = Watching { start_revision: compacted(1), prev_kv: true, ..watch(ALL.0, ALL.1) };
    script.extend([span(ALL).into(), Op::Leases, Op::Watch(10, history)]);
    script
}

#[test]
#[ignore = "needs a real etcd: compares embed with it"]
fn random_scripts_are_answered_alike() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let operations = match std::env::var(OPERATIONS) {
        Ok(number) => number.parse().expect("a number of operations"),
        Err(_) => DEFAULT_OPERATIONS,
    };
    let pair = RefCell::new(runtime.block_on(Pair::start()));
    let cases = u32::try_from(operations.div_ceil(SCRIPT)).unwrap();
    let config = Config { cases, max_shrink_iters: 3_000, failure_persistence: None, ..Config::default() };
    let strategy = Script { operation: operation().boxed(), length: SCRIPT };
    let outcome = TestRunner::new(config).run(&strategy, |body| {
        let outcome = runtime.block_on(pair.borrow_mut().run(&framed(&body)));
        if let Err(difference) = &outcome {
            // Shrinking takes its time.
            println!("a script of {} operations fails: {difference}\n", body.len());
        }
        outcome.map_err(|difference| TestCaseError::fail(difference.to_string()))
    });
    let pair = pair.into_inner();
    match outcome {
        Ok(()) => {
            assert!(pair.compared() >= operations as u64, "fewer operations ran than were asked for");
            pair.finish();
        }
        Err(TestError::Fail(reason, body)) => {
            let lines: Vec<String> =
                framed(&body).iter().enumerate().map(|(step, op)| format!("{step:>4}  {op}")).collect();
            panic!("the two disagree; the shortest script found:\n{}\n{reason}", lines.join("\n"));
        }
        Err(TestError::Abort(reason)) => panic!("the run was given up: {reason}"),
    }
}
