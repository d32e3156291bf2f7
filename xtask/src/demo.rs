//! `cargo xtask demo`: several OS processes share real work through an etcd.

use std::process::Command;

use crate::etcd::{self, Profile};
use crate::flags::Demo;
use crate::outcome::Outcome;
use crate::{runner, workspace};

/// The program that is shown.
const PROGRAM: [&str; 4] = ["--package", "sereno-examples", "--bin", "tour"];

/// Builds the tour, provides an etcd and runs the one against the other. Returns the tour's exit code.
pub(crate) fn run(flags: &Demo) -> Outcome {
    // First, and not silently: from a fresh clone it takes minutes, and nobody needs an etcd meanwhile.
    let code = runner::run(workspace::cargo().arg("build").args(PROGRAM))?;
    if code != 0 {
        return Ok(code);
    }
    let etcd = etcd::provide(&flags.etcd, Profile::Dev)?;
    let mut tour = command(flags);
    etcd.export(&mut tour);
    runner::run(&mut tour)
}

fn command(flags: &Demo) -> Command {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet"]).args(PROGRAM).arg("--");
    if let Some(workers) = &flags.workers {
        command.arg("--workers").arg(workers);
    }
    if flags.kill {
        command.arg("--kill");
    }
    if let Some(folder) = &flags.input {
        // Cargo is run at the root, not where the user is.
        command.arg("--input").arg(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_handed_on_and_a_folder_is_the_users() {
        let words = |flags: &Demo| {
            let command = command(flags);
            command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<String>>()
        };
        let plain = words(&Demo::default());
        assert_eq!(plain.join(" "), "run --quiet --package sereno-examples --bin tour --");
        let flags =
            Demo { workers: Some("3".into()), kill: true, input: Some("texts".into()), ..Demo::default() };
        let here = std::env::current_dir().unwrap().join("texts");
        let expected = ["--workers", "3", "--kill", "--input", here.to_str().unwrap()];
        assert_eq!(words(&flags)[plain.len()..], expected);
    }
}
