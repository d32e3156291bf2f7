//! `cargo xtask test`: every test, those that need an etcd included, against a real one.

use std::collections::BTreeSet;
use std::process::Command;

use crate::etcd::{self, Provided};
use crate::flags::Test;
use crate::outcome::Outcome;
use crate::{runner, workspace};

/// Test binaries that start servers of their own.
const FAULTS: &str = "faults";

/// Runs the tests and returns the runner's exit code. Its summary is the last thing printed.
pub(crate) fn run(flags: &Test) -> Outcome {
    let etcd = etcd::provide(&flags.etcd)?;
    // Doctests first: nextest does not run them, and its summary shall come last.
    if flags.rest.is_empty()
        && let Some(mut doctests) = doctests(&flags.packages)
    {
        etcd.export(&mut doctests);
        let code = runner::run(&mut doctests)?;
        if code != 0 {
            return Ok(code);
        }
    }
    if etcd.members.is_none() {
        eprintln!("skipped: the tests in `{FAULTS}` binaries, which start servers of their own");
    }
    let mut tests = if workspace::has_subcommand("nextest") {
        nextest(flags, &etcd)
    } else {
        eprintln!("cargo-nextest is not installed: running `cargo test`, which stops no test that hangs");
        libtest(flags, &etcd)?
    };
    etcd.export(&mut tests);
    runner::run(&mut tests)
}

fn doctests(packages: &[String]) -> Option<Command> {
    // Asked for by name, a package without a library is an error.
    let libraries: Vec<String> =
        packages.iter().filter(|name| *name != env!("CARGO_PKG_NAME")).cloned().collect();
    if libraries.is_empty() && !packages.is_empty() {
        return None;
    }
    let mut command = workspace::cargo();
    command.args(["test", "--doc", "--quiet"]).args(selection(&libraries));
    Some(command)
}

fn nextest(flags: &Test, etcd: &Provided) -> Command {
    let mut command = workspace::cargo();
    command.args(["nextest", "run", "--run-ignored", "all"]).args(selection(&flags.packages));
    if etcd.members.is_none() {
        // Its summary counts what the expression leaves out as skipped.
        command.args(["-E", &format!("not binary(/^{FAULTS}$/)")]);
    }
    command.arg("--").args(&flags.rest);
    command
}

fn libtest(flags: &Test, etcd: &Provided) -> anyhow::Result<Command> {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(selection(&flags.packages));
    if etcd.members.is_none() {
        command.args(targets_without_faults(&flags.packages)?);
    } else {
        command.arg("--all-targets");
    }
    command.args(["--", "--include-ignored", "--test-threads=2"]).args(&flags.rest);
    Ok(command)
}

fn selection(packages: &[String]) -> Vec<String> {
    if packages.is_empty() {
        return vec!["--workspace".to_owned()];
    }
    packages.iter().flat_map(|name| ["--package".to_owned(), name.clone()]).collect()
}

/// `cargo test` can name the targets it wants, not those it does not want.
fn targets_without_faults(packages: &[String]) -> anyhow::Result<Vec<String>> {
    let mut arguments = BTreeSet::from(["--bins".to_owned()]);
    for package in workspace::packages()? {
        if !packages.is_empty() && !packages.contains(&package.name) {
            continue;
        }
        for target in package.targets {
            match target.kind.as_str() {
                "lib" => drop(arguments.insert("--lib".to_owned())),
                "test" if target.name != FAULTS => drop(arguments.insert(format!("--test={}", target.name))),
                _ => {}
            }
        }
    }
    Ok(arguments.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Members;

    fn etcd(members: Option<Members>) -> Provided {
        Provided::running("http://127.0.0.1:1", members)
    }

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    fn flags(packages: &[&str], rest: &[&str]) -> Test {
        Test {
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            rest: rest.iter().map(Into::into).collect(),
            ..Test::default()
        }
    }

    #[test]
    fn everything_is_run_unless_packages_are_named() {
        let all =
            words(&nextest(&flags(&[], &[]), &etcd(Some(Members::Docker { image: "etcd".to_owned() }))));
        assert_eq!(all, ["nextest", "run", "--run-ignored", "all", "--workspace", "--"]);
        let some = nextest(&flags(&["a", "b"], &["some_test"]), &etcd(None));
        let expected =
            "nextest run --run-ignored all --package a --package b -E not binary(/^faults$/) -- some_test";
        assert_eq!(words(&some).join(" "), expected);
    }

    #[test]
    fn cargo_test_runs_ignored_tests_and_takes_the_filter_last() {
        let command =
            libtest(&flags(&["a"], &["some_test"]), &etcd(Some(Members::Binary { path: "/etcd".into() })))
                .unwrap();
        let expected =
            "test --no-fail-fast --package a --all-targets -- --include-ignored --test-threads=2 some_test";
        assert_eq!(words(&command).join(" "), expected);
    }

    #[test]
    fn cargo_test_without_members_names_every_target_but_the_fault_tests() {
        let words = words(&libtest(&flags(&[], &[]), &etcd(None)).unwrap());
        assert!(words.contains(&"--lib".to_owned()) && words.contains(&"--bins".to_owned()), "{words:?}");
        assert!(!words.iter().any(|word| word.contains(FAULTS) || word == "--all-targets"), "{words:?}");
    }

    #[test]
    fn a_package_without_a_library_has_no_doctests() {
        assert!(doctests(&["xtask".to_owned()]).is_none());
        let both = doctests(&["xtask".to_owned(), "sereno-core".to_owned()]).unwrap();
        assert_eq!(words(&both).join(" "), "test --doc --quiet --package sereno-core");
        assert_eq!(words(&doctests(&[]).unwrap()).join(" "), "test --doc --quiet --workspace");
    }
}
