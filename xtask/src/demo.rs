//! `cargo xtask demo`: several OS processes share real work through an etcd.

use std::path::Path;
use std::process::Command;

use crate::etcd;
use crate::flags::Demo;
use crate::outcome::Outcome;
use crate::program::{self, Profile};
use crate::runner;

/// The program that is shown.
const PROGRAM: &str = "tour";

/// Builds the tour, provides an etcd and runs the one against the other. Returns the tour's exit code.
pub(crate) fn run(flags: &Demo) -> Outcome {
    // First, and not silently: from a fresh clone it takes minutes, and nobody needs an etcd meanwhile.
    let program = program::build(PROGRAM, Profile::Dev)?;
    let etcd = etcd::provide(&flags.etcd, Profile::Dev)?;
    let mut tour = command(&program, flags);
    etcd.export(&mut tour);
    runner::run(&mut tour)
}

fn command(program: &Path, flags: &Demo) -> Command {
    let mut command = Command::new(program);
    if let Some(workers) = &flags.workers {
        command.arg("--workers").arg(workers);
    }
    if flags.kill {
        command.arg("--kill");
    }
    if let Some(folder) = &flags.input {
        command.arg("--input").arg(folder);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_handed_on() {
        let words = |flags: &Demo| {
            let command = command(Path::new("/t/tour"), flags);
            command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<String>>()
        };
        assert!(words(&Demo::default()).is_empty());
        let flags =
            Demo { workers: Some("3".into()), kill: true, input: Some("texts".into()), ..Demo::default() };
        assert_eq!(words(&flags), ["--workers", "3", "--kill", "--input", "texts"]);
    }
}
