//! `cargo xtask test`: every test, those that need an etcd included, against a real one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::etcd;
use crate::flags::Test;
use crate::outcome::Outcome;
use crate::workspace::Package;
use crate::{runner, workspace};

/// What a test file names that starts servers of its own.
const STARTERS: [&str; 2] = ["Member", "Cluster"];

/// The test binaries that are driven by seeds, and what tells them to try one seed alone.
const SEEDED: &str = "seeded";
const SEED: &str = "SERENO_SEED";

/// Runs the tests and returns the runner's exit code. Its summary is the last thing printed.
pub(crate) fn run(flags: &Test) -> Outcome {
    if let Some(seed) = flags.seed {
        return runner::run(&mut replay(flags, seed));
    }
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
    let left_out = match etcd.members {
        Some(_) => Vec::new(),
        None => starters(&workspace::packages()?),
    };
    if !left_out.is_empty() {
        let names: Vec<String> = left_out.iter().map(|(package, test)| format!("{package}/{test}")).collect();
        eprintln!(
            "skipped: {} test binaries, which start servers of their own (install etcd or Docker): {}",
            names.len(),
            names.join(" ")
        );
    }
    let mut tests = if workspace::has_subcommand("nextest") {
        nextest(flags, &left_out)
    } else {
        eprintln!("cargo-nextest is not installed: running `cargo test`, which stops no test that hangs");
        libtest(flags, &left_out)?
    };
    etcd.export(&mut tests);
    runner::run(&mut tests)
}

/// One seed, with what it prints. The server it needs is in the test itself.
fn replay(flags: &Test, seed: u64) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast", "--test", SEEDED]).args(selection(&flags.packages));
    command.args(["--", "--nocapture", "--test-threads=1"]).args(&flags.rest);
    command.env(SEED, seed.to_string());
    command
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

/// The test binaries, with their packages, that start servers of their own.
fn starters(packages: &[Package]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for package in packages {
        for target in package.targets.iter().filter(|target| target.kind == "test") {
            let source = fs::read_to_string(&target.source).unwrap_or_default();
            let mut words = source.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            if words.any(|word| STARTERS.contains(&word)) {
                found.push((package.name.clone(), target.name.clone()));
            }
        }
    }
    found
}

fn nextest(flags: &Test, left_out: &[(String, String)]) -> Command {
    let mut command = workspace::cargo();
    command.args(["nextest", "run", "--run-ignored", "all"]).args(selection(&flags.packages));
    if !left_out.is_empty() {
        // Its summary counts what the expression leaves out as skipped.
        let one = |(package, test): &(String, String)| format!("(package(={package}) & binary(={test}))");
        let all: Vec<String> = left_out.iter().map(one).collect();
        command.args(["-E", &format!("not ({})", all.join(" | "))]);
    }
    command.arg("--").args(&flags.rest);
    command
}

fn libtest(flags: &Test, left_out: &[(String, String)]) -> anyhow::Result<Command> {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(selection(&flags.packages));
    if left_out.is_empty() {
        command.arg("--all-targets");
    } else {
        command.args(targets_without(&flags.packages, left_out)?);
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

/// `cargo test` can name the targets it wants, not those it does not want, and has no names for one package alone: what is
/// left out of one is left out of all.
fn targets_without(packages: &[String], left_out: &[(String, String)]) -> anyhow::Result<Vec<String>> {
    let unwanted = |name: &str| left_out.iter().any(|(_, test)| test == name);
    let mut arguments = BTreeSet::from(["--bins".to_owned()]);
    for package in workspace::packages()? {
        if !packages.is_empty() && !packages.contains(&package.name) {
            continue;
        }
        for target in package.targets {
            match target.kind.as_str() {
                "lib" => {
                    arguments.insert("--lib".to_owned());
                }
                "test" if !unwanted(&target.name) => {
                    arguments.insert(format!("--test={}", target.name));
                }
                _ => {}
            }
        }
    }
    Ok(arguments.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Target;

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

    fn faults() -> Vec<(String, String)> {
        vec![("a".to_owned(), "faults".to_owned()), ("b".to_owned(), "once".to_owned())]
    }

    #[test]
    fn everything_is_run_unless_packages_are_named() {
        let all = words(&nextest(&flags(&[], &[]), &[]));
        assert_eq!(all, ["nextest", "run", "--run-ignored", "all", "--workspace", "--"]);
        let some = nextest(&flags(&["a", "b"], &["some_test"]), &faults());
        let expected = "nextest run --run-ignored all --package a --package b \
            -E not ((package(=a) & binary(=faults)) | (package(=b) & binary(=once))) -- some_test";
        assert_eq!(words(&some).join(" "), expected);
    }

    #[test]
    fn a_seed_is_played_again_by_the_seeded_tests_alone() {
        let command = replay(&flags(&["a"], &["some_test"]), 42);
        let expected =
            "test --no-fail-fast --test seeded --package a -- --nocapture --test-threads=1 some_test";
        assert_eq!(words(&command).join(" "), expected);
        let seed = command.get_envs().find(|(name, _)| *name == SEED).and_then(|(_, value)| value);
        assert_eq!(seed, Some("42".as_ref()));
        assert!(words(&replay(&flags(&[], &[]), 1)).contains(&"--workspace".to_owned()));
    }

    #[test]
    fn cargo_test_runs_ignored_tests_and_takes_the_filter_last() {
        let command = libtest(&flags(&["a"], &["some_test"]), &[]).unwrap();
        let expected =
            "test --no-fail-fast --package a --all-targets -- --include-ignored --test-threads=2 some_test";
        assert_eq!(words(&command).join(" "), expected);
    }

    #[test]
    fn cargo_test_without_members_names_every_target_but_those_that_start_some() {
        let words = words(&libtest(&flags(&[], &[]), &faults()).unwrap());
        assert!(words.contains(&"--lib".to_owned()) && words.contains(&"--bins".to_owned()), "{words:?}");
        assert!(words.contains(&"--test=stopped".to_owned()), "{words:?}");
        assert!(!words.iter().any(|word| word == "--test=faults" || word == "--all-targets"), "{words:?}");
    }

    #[test]
    fn a_test_binary_that_starts_members_is_known_by_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let target = |name: &str, text: &str| {
            let source = folder.path().join(format!("{name}.rs"));
            fs::write(&source, text).unwrap();
            Target { name: name.to_owned(), kind: "test".to_owned(), source }
        };
        let targets = vec![
            target("plain", "use sereno_testkit::shared; // no Members here"),
            target("one", "let member = Member::single().await;"),
            target("three", "Cluster::start(3)"),
        ];
        let package = Package { name: "a".to_owned(), targets };
        let found: Vec<String> = starters(&[package]).into_iter().map(|(_, test)| test).collect();
        assert_eq!(found, ["one", "three"]);
    }

    #[test]
    fn a_package_without_a_library_has_no_doctests() {
        assert!(doctests(&["xtask".to_owned()]).is_none());
        let both = doctests(&["xtask".to_owned(), "sereno-core".to_owned()]).unwrap();
        assert_eq!(words(&both).join(" "), "test --doc --quiet --package sereno-core");
        assert_eq!(words(&doctests(&[]).unwrap()).join(" "), "test --doc --quiet --workspace");
    }
}
