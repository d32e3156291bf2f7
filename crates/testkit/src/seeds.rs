//! Runs that a seed decides: a server in the process, faults, chances and time, all repeatable.
//!
//! Each seed has a thread's runtime to itself, with paused time, so that hours of waiting cost nothing and nothing runs
//! beside it. A run that fails is played again, the same, by its seed.

use std::any::Any;
use std::collections::BTreeSet;
use std::env;
use std::ops::AsyncFn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sereno_core::chance;

use crate::stage::Stage;

/// Plays this seed alone, and tells what happened.
const SEED: &str = "SERENO_SEED";
/// Plays so many seeds instead of the suite's own number.
const SEEDS: &str = "SERENO_SEEDS";
/// No run lasts longer, by its own time.
const RUN: Duration = Duration::from_secs(600);
/// No run lasts longer, by real time: one that does has hung without waiting for anything.
const STUCK: Duration = Duration::from_secs(60);

/// Seeds to run a scenario with.
#[derive(Debug, Clone)]
#[must_use]
pub struct Seeds {
    package: &'static str,
    test: &'static str,
    count: u64,
    only: Option<u64>,
}

/// What one run did: two runs that did the same are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The faults injected, in order.
    pub faults: Vec<String>,
    /// The store's revision at the end.
    pub revision: i64,
    /// A checksum of every change of the store, in order.
    pub journal: u64,
    /// How long it took by its own time.
    pub took: Duration,
}

struct Failure {
    what: String,
    trace: Trace,
}

impl Seeds {
    /// Seeds from 0 on, so many, for a test of a package: `Seeds::new(env!("CARGO_PKG_NAME"), "name_of_the_test", 100)`.
    /// The environment may say otherwise: see [`Seeds::run`].
    pub fn new(package: &'static str, test: &'static str, count: u64) -> Self {
        Self { package, test, count: number(SEEDS).unwrap_or(count), only: number(SEED) }
    }

    /// Plays the scenario with each seed, on all cores. With `SERENO_SEED=n`, only with that one, and tells what was
    /// done; with `SERENO_SEEDS=n`, with n of them.
    ///
    /// # Panics
    /// When the scenario panics, lasts for ever or gets stuck: with the seed, what was injected, and the command that
    /// plays it again.
    pub fn run<S>(self, scenario: S)
    where
        S: AsyncFn(&Stage) + Send + Sync + 'static,
    {
        let scenario = Arc::new(scenario);
        if let Some(seed) = self.only {
            return match play(seed, &*scenario) {
                Ok(trace) => println!("{}", self.tell(seed, &trace)),
                Err(failure) => panic!("{}", self.explain(seed, &failure)),
            };
        }
        let started = Instant::now();
        let traces = self.play_all(&scenario);
        let faults: usize = traces.iter().map(|trace| trace.faults.len()).sum();
        let kinds: BTreeSet<&str> = traces
            .iter()
            .flat_map(|trace| &trace.faults)
            .filter_map(|fault| fault.split(": ").nth(1))
            .map(kind)
            .collect();
        let took: Duration = traces.iter().map(|trace| trace.took).sum();
        println!(
            "{} of {}: {} seeds in {:.1?}, {:.0?} of their own time, {faults} faults of {} kinds",
            self.test,
            self.package,
            traces.len(),
            started.elapsed(),
            took,
            kinds.len()
        );
        if self.count >= 20 {
            assert!(faults as u64 >= self.count, "too few faults to prove anything: {faults}");
        }
    }

    /// Plays each seed twice.
    ///
    /// # Panics
    /// As [`Seeds::run`], and when a seed did not do exactly the same both times.
    pub fn repeat<S: AsyncFn(&Stage)>(&self, scenario: S) {
        let mut different = Vec::new();
        for seed in self.only.map_or(0..self.count, |seed| seed..seed + 1) {
            let twice = [play(seed, &scenario), play(seed, &scenario)].map(|played| match played {
                Ok(trace) => trace,
                Err(failure) => panic!("{}", self.explain(seed, &failure)),
            });
            let [first, second] = twice;
            if first != second {
                different.push(format!("seed {seed}: {}", difference(&first, &second)));
            }
        }
        assert!(different.is_empty(), "not the same when played again:\n{}", different.join("\n"));
    }

    fn play_all<S>(&self, scenario: &Arc<S>) -> Vec<Trace>
    where
        S: AsyncFn(&Stage) + Send + Sync + 'static,
    {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (results, played) = mpsc::sync_channel(cores);
        let next = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..cores {
            let (scenario, results, next, over) =
                (Arc::clone(scenario), results.clone(), Arc::clone(&next), Arc::clone(&over));
            let count = self.count;
            thread::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || results.send((seed, play(seed, &*scenario))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut traces = Vec::new();
        while (traces.len() as u64) < self.count {
            match played.recv_timeout(STUCK) {
                Ok((_, Ok(trace))) => traces.push(trace),
                Ok((seed, Err(failure))) => {
                    over.store(true, Ordering::Release);
                    panic!("{}", self.explain(seed, &failure));
                }
                Err(_) => panic!("{}: nothing came of any seed up to {next:?} for {STUCK:?}", self.test),
            }
        }
        traces
    }

    fn tell(&self, seed: u64, trace: &Trace) -> String {
        let mut text = format!(
            "{} of {}, seed {seed}: {} faults in {:.1?} of its own time, at revision {}, checksum {:016x}",
            self.test,
            self.package,
            trace.faults.len(),
            trace.took,
            trace.revision,
            trace.journal
        );
        for fault in &trace.faults {
            text.push_str("\n  ");
            text.push_str(fault);
        }
        text
    }

    fn explain(&self, seed: u64, failure: &Failure) -> String {
        format!(
            "seed {seed} fails: {}\n{}\nagain: cargo xtask test --seed {seed} -p {} -- {}",
            failure.what,
            self.tell(seed, &failure.trace),
            self.package,
            self.test
        )
    }
}

fn play<S: AsyncFn(&Stage)>(seed: u64, scenario: &S) -> Result<Trace, Failure> {
    let _seeded = chance::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let stage = runtime.block_on(Stage::start(seed));
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let run = tokio::time::timeout(RUN, scenario(&stage));
            assert!(run.await.is_ok(), "it is not over after {RUN:?} of its own time");
        });
    }));
    let trace = runtime.block_on(async { stage.trace() });
    // What still runs is dropped before the server is, as where a process dies.
    drop(runtime);
    match played {
        Ok(()) => Ok(trace),
        Err(panic) => Err(Failure { what: message(&*panic), trace }),
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// The name of a fault without its details.
fn kind(fault: &str) -> &str {
    fault.split(['(', ' ']).next().unwrap_or(fault)
}

fn difference(one: &Trace, two: &Trace) -> String {
    for (index, (a, b)) in one.faults.iter().zip(&two.faults).enumerate() {
        if a != b {
            return format!("fault {index} was once {a:?} and once {b:?}");
        }
    }
    let brief = |trace: &Trace| {
        let Trace { faults, revision, journal, took } = trace;
        format!("{} faults, revision {revision}, checksum {journal:016x}, {took:?}", faults.len())
    };
    format!("once {}, once {}", brief(one), brief(two))
}
