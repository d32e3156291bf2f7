//! The tour: worker processes that share the counting of a folder of text files, through every recipe.
//!
//! ```text
//! cargo run -p sereno-examples --bin tour -- [--workers N] [--kill] [--input DIR]
//! ```
//! The leader publishes one task per file on a topic and starts the workers; each announces itself, enters the wait group,
//! takes batches of tasks, adds what it counted to shared counters, and leaves the wait group when nothing is left to
//! take. Then the leader compares the counters with what one process counts alone. `--kill` kills a worker halfway.
//!
//! # Why nothing is lost and nothing counted twice
//! To work on a batch, a worker *claims* it: a key on its session's lease, created only when there is neither claim nor
//! record. The result is written in one transaction, on condition that the claim is still the writer's and that there is no
//! *record* yet; so a batch is recorded once, whoever dies or comes back late, and sending that transaction again when its
//! answer was lost changes nothing. The claims of a dead worker go with its lease, and the others, who watch, take the
//! batches over.
//!
//! The shared counters are fed after the record and before the next one, so a worker that dies leaves at most its last
//! record out of them. The leader is told of the death by the wait group, makes sure of it by SIGKILL, and when the wait
//! group is released nobody is left who could add: then each counter must say what the records come to, or be short by
//! exactly such a last record, which the leader adds. Anything else is an error (`settlement.rs`). The additions of the dead
//! cannot come later: the counters take none from a session that has ended.

mod corpus;
mod crew;
mod figures;
mod job;
mod leader;
mod ledger;
mod plain;
mod settlement;
mod task;
mod view;
mod worker;

use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::{Arg, Parser, ValueExt};

use crew::WORKER;
use leader::Plan;

const HELP: &str = "\
Usage: tour [--workers <N>] [--kill] [--input <folder>]

Worker processes share the counting of a folder of text files, through an etcd at $ETCD_ENDPOINTS
or http://127.0.0.1:2379, and the result is checked.

  --workers <N>       how many worker processes, 1 to 64; 4 unless given
  --kill              kill one of them halfway with SIGKILL
  --input <folder>    what to count; unless given, sources that cargo has unpacked on this machine";

/// What this process is to be.
#[derive(Debug)]
enum Role {
    Help,
    Leader(Plan),
    Worker { job: String, name: String },
}

fn main() -> ExitCode {
    match parse(Parser::from_env()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Help => println!("{HELP}"),
        Role::Leader(plan) => leader::run(&plan).await?,
        Role::Worker { job, name } => worker::run(&job, &name).await?,
    }
    Ok(())
}

fn parse(mut parser: Parser) -> anyhow::Result<Role> {
    let mut plan = Plan { workers: 4, kill: false, input: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Role::Help),
            Arg::Long("workers") => plan.workers = parser.value()?.parse().context("--workers")?,
            Arg::Long("kill") => plan.kill = true,
            Arg::Long("input") => plan.input = Some(parser.value()?.into()),
            Arg::Long(long) if format!("--{long}") == WORKER => {
                return Ok(Role::Worker { job: parser.value()?.string()?, name: parser.value()?.string()? });
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if !(1..=64).contains(&plan.workers) {
        bail!("--workers: 1 to 64, not {}", plan.workers);
    }
    if plan.kill && plan.workers == 1 {
        bail!("--kill: with one worker nobody is left to take over");
    }
    Ok(Role::Leader(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Role> {
        parse(Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn a_plan_is_made_of_flags_and_defaults() {
        let Ok(Role::Leader(plan)) = read("") else { panic!("a plan") };
        assert_eq!((plan.workers, plan.kill, plan.input), (4, false, None));
        let Ok(Role::Leader(plan)) = read("--input=/x --kill --workers 2") else { panic!("a plan") };
        assert_eq!((plan.workers, plan.kill, plan.input), (2, true, Some("/x".into())));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for line in ["--workers 0", "--workers 65", "--workers x", "--workers 1 --kill", "--fast", "x"] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_worker_is_told_its_job_and_its_name() {
        let line = format!("{WORKER} 77 w2");
        assert!(matches!(read(&line), Ok(Role::Worker { job, name }) if job == "77" && name == "w2"));
    }
}
