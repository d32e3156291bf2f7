//! `cargo xtask bench`: what the recipes cost beside plain etcd calls, measured in one run.
//!
//! This file provides the etcd and starts a release build of this program with the feature `bench`, which does the
//! rest: the library under test and the etcd client stay out of what a newcomer builds first.

#[cfg(feature = "bench")]
mod case;
#[cfg(feature = "bench")]
mod clock;
#[cfg(feature = "bench")]
mod counting;
#[cfg(feature = "bench")]
mod cpu;
#[cfg(feature = "bench")]
mod crew;
#[cfg(feature = "bench")]
mod embedded;
#[cfg(feature = "bench")]
mod hand;
#[cfg(feature = "bench")]
mod link;
#[cfg(feature = "bench")]
mod lookup;
#[cfg(feature = "bench")]
mod measure;
#[cfg(feature = "bench")]
mod membership;
#[cfg(feature = "bench")]
mod memory;
#[cfg(feature = "bench")]
mod messages;
#[cfg(feature = "bench")]
mod pipelines;
#[cfg(feature = "bench")]
mod plan;
#[cfg(feature = "bench")]
mod sample;
#[cfg(feature = "bench")]
mod sockets;
#[cfg(feature = "bench")]
mod table;
#[cfg(feature = "bench")]
mod waking;
#[cfg(feature = "bench")]
mod work;

use std::env;
use std::path;
use std::process;

use anyhow::Context;

use crate::etcd::{self, Kind, Provided};
use crate::flags::Bench;
use crate::outcome::Outcome;
use crate::program::Profile;
use crate::{runner, workspace};

#[cfg(feature = "bench")]
pub(crate) use hand::run as hand;
#[cfg(feature = "bench")]
pub(crate) use measure::run as measure;

/// Measures and prints. Exit code 0 whether or not the targets are met: a table is for reading, and machines are noisy.
/// What was counted or delivered wrongly is an error.
pub(crate) fn run(flags: &Bench) -> Outcome {
    // Cargo runs at the root; the user's file is named from where the user is.
    let json = flags.json.as_ref().map(path::absolute).transpose().context("--json")?;
    let etcd = etcd::provide(&flags.etcd, Profile::Release)?;
    println!("{}", heading(&etcd));
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--package", env!("CARGO_PKG_NAME"), "--features", "bench"]);
    command.args(["--", crate::flags::MEASURE]);
    if flags.quick {
        command.arg("--quick");
    }
    if let Some(json) = json {
        command.arg("--json").arg(json);
    }
    command.args(&flags.only);
    etcd.export(&mut command);
    // A name of its own, so that nothing is counted twice and everything can be taken away afterwards.
    command.env("SERENO_NAMESPACE", format!("sereno-bench-{}", process::id()));
    runner::run(&mut command)
}

/// What every figure depends on.
fn heading(etcd: &Provided) -> String {
    let disk = match etcd.kind {
        Kind::Docker => {
            "started with --unsafe-no-fsync, its data on tmpfs: no disk is part of these figures".to_owned()
        }
        Kind::Binary => format!(
            "started with --unsafe-no-fsync, its data in {}: no disk is waited for in these figures",
            env::temp_dir().display()
        ),
        Kind::Embed => {
            "one process that keeps everything in memory: neither a disk nor agreement is part of these figures".to_owned()
        }
        Kind::Url => {
            "as it was found: whether it waits for a disk at each write is not known here".to_owned()
        }
    };
    let cores = std::thread::available_parallelism().map_or(0, Into::into);
    format!("{etcd}\n{disk}\n{cores} cores, shared by etcd and those who call it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Members;

    #[test]
    fn the_heading_does_not_claim_to_know_how_a_foreign_etcd_runs() {
        let text = heading(&Provided::running("http://127.0.0.1:1", Members::Embed));
        assert!(text.contains("not known") && !text.contains("unsafe"), "{text}");
    }
}
