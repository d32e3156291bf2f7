//! `cargo xtask test`: every test, those that need an etcd included, against one.

use std::collections::BTreeMap;
use std::process::Command;

use crate::etcd::{self, Members};
use crate::flags::Test;
use crate::ignored::{self, LeftOut};
use crate::outcome::Outcome;
use crate::program::{self, Profile};
use crate::{runner, workspace};

/// The test binaries that are driven by seeds, and what tells them to try one seed alone.
const SEEDED: &str = "seeded";
const SEED: &str = "SERENO_SEED";
/// The need of tests that run the program `etcdctl`.
const ETCDCTL: &str = "its etcdctl";

/// Runs the tests and returns the runner's exit code. Its summary is the last thing printed, but for what was skipped.
pub(crate) fn run(flags: &Test) -> Outcome {
    if let Some(seed) = flags.seed {
        return runner::run(&mut replay(flags, seed));
    }
    let etcd = etcd::provide(&flags.etcd, Profile::Dev)?;
    let has_nextest = workspace::has_subcommand("nextest");
    // Doctests first: nextest does not run them, and its summary shall come last.
    if has_nextest
        && flags.rest.is_empty()
        && let Some(mut doctests) = doctests(&flags.packages)
    {
        etcd.export(&mut doctests);
        let code = runner::run(&mut doctests)?;
        if code != 0 {
            return Ok(code);
        }
    }
    let left_out = match etcd.members {
        Members::Docker { .. } | Members::Binary { .. } => without_etcdctl(left_out(&flags.packages)?),
        Members::Embed => left_out(&flags.packages)?,
    };
    let mut tests = if has_nextest {
        nextest(flags, &left_out)
    } else {
        eprintln!("cargo-nextest is not installed: running `cargo test`, which stops no test that hangs");
        libtest(flags, &left_out)
    };
    etcd.export(&mut tests);
    let code = runner::run(&mut tests)?;
    if !left_out.is_empty() {
        eprintln!("{}", skipped(&left_out));
    }
    Ok(code)
}

/// The tests of the wanted packages that the embedded server cannot serve.
fn left_out(packages: &[String]) -> anyhow::Result<Vec<LeftOut>> {
    let mut wanted = workspace::packages()?;
    wanted.retain(|package| packages.is_empty() || packages.contains(&package.name));
    ignored::need_a_real_etcd(&wanted)
}

/// Of these tests, those that a real etcd does not suffice for either: a container of etcd brings no `etcdctl`, and some systems
/// install it apart.
fn without_etcdctl(mut tests: Vec<LeftOut>) -> Vec<LeftOut> {
    let is_there = program::on_path("etcdctl").is_some();
    tests.retain(|test| test.why == ETCDCTL && !is_there);
    tests
}

/// How many were not run, and for want of what, the most frequent first.
fn skipped(left_out: &[LeftOut]) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for test in left_out {
        *reasons.entry(&test.why).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<String> = reasons.iter().map(|(why, count)| format!("{why} {count}")).collect();
    let need = match left_out.iter().all(|test| test.why == ETCDCTL) {
        true => "`etcdctl` on PATH",
        false => "a real etcd (install etcd or start Docker)",
    };
    format!("skipped: {} tests that need {need}: {}", left_out.len(), reasons.join(", "))
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

fn nextest(flags: &Test, left_out: &[LeftOut]) -> Command {
    let mut command = workspace::cargo();
    command.args(["nextest", "run", "--run-ignored", "all"]).args(selection(&flags.packages));
    if !left_out.is_empty() {
        // Its summary counts what the expression leaves out as skipped.
        command.args(["-E", &all_but(left_out)]);
    }
    command.arg("--").args(&flags.rest);
    command
}

/// A nextest expression, one term per test binary.
fn all_but(left_out: &[LeftOut]) -> String {
    let mut binaries: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for test in left_out {
        let names = binaries.entry((&test.package, &test.binary)).or_default();
        names.push(format!("test(={})", test.name));
    }
    let terms: Vec<String> = binaries
        .iter()
        .map(|((package, binary), names)| {
            format!("(package(={package}) & binary(={binary}) & ({}))", names.join(" | "))
        })
        .collect();
    format!("not ({})", terms.join(" | "))
}

fn libtest(flags: &Test, left_out: &[LeftOut]) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(selection(&flags.packages));
    // No word of targets: with one, cargo would not build the examples that tests start. Doctests are among the default ones.
    command.args(["--", "--include-ignored", "--test-threads=2"]);
    for test in left_out {
        command.args(["--skip", &test.name]);
    }
    if !left_out.is_empty() && flags.rest.is_empty() {
        // It is about filters as well, and those are for the user to shorten.
        command.arg("--exact");
    }
    command.args(&flags.rest);
    command
}

fn selection(packages: &[String]) -> Vec<String> {
    if packages.is_empty() {
        return vec!["--workspace".to_owned()];
    }
    packages.iter().flat_map(|name| ["--package".to_owned(), name.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn left_out(list: [[&str; 4]; 3]) -> Vec<LeftOut> {
        let owned = list.map(|words| words.map(str::to_owned));
        owned.map(|[package, binary, name, why]| LeftOut { package, binary, name, why }).into()
    }

    fn three() -> Vec<LeftOut> {
        left_out([
            ["a", "faults", "x", "TLS"],
            ["a", "faults", "y", "three members"],
            ["b", "once", "z", "TLS"],
        ])
    }

    #[test]
    fn everything_is_run_unless_packages_are_named() {
        let all = words(&nextest(&flags(&[], &[]), &[]));
        assert_eq!(all, ["nextest", "run", "--run-ignored", "all", "--workspace", "--"]);
        let some = nextest(&flags(&["a", "b"], &["some_test"]), &three());
        let expected = "nextest run --run-ignored all --package a --package b \
            -E not ((package(=a) & binary(=faults) & (test(=x) | test(=y))) | \
            (package(=b) & binary(=once) & (test(=z)))) -- some_test";
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
        let command = libtest(&flags(&["a"], &["some_test"]), &[]);
        let expected = "test --no-fail-fast --package a -- --include-ignored --test-threads=2 some_test";
        assert_eq!(words(&command).join(" "), expected);
    }

    #[test]
    fn cargo_test_leaves_tests_out_by_name_exactly_unless_a_filter_is_given() {
        let start = "test --no-fail-fast --workspace -- --include-ignored --test-threads=2";
        let all = words(&libtest(&flags(&[], &[]), &three())).join(" ");
        assert_eq!(all, format!("{start} --skip x --skip y --skip z --exact"));
        let some = words(&libtest(&flags(&[], &["lease"]), &three())).join(" ");
        assert_eq!(some, format!("{start} --skip x --skip y --skip z lease"));
    }

    #[test]
    fn what_is_skipped_is_counted_by_reason() {
        let text = skipped(&three());
        assert!(text.starts_with("skipped: 3 tests that need a real etcd"), "{text}");
        assert!(text.ends_with(": TLS 2, three members 1"), "{text}");
        let [tls, _, members] = three().try_into().unwrap();
        let text = skipped(&[LeftOut { why: ETCDCTL.to_owned(), ..tls }]);
        assert_eq!(text, "skipped: 1 tests that need `etcdctl` on PATH: its etcdctl 1");
        assert_eq!(without_etcdctl(vec![members]), []);
    }

    #[test]
    fn a_package_without_a_library_has_no_doctests() {
        assert!(doctests(&["xtask".to_owned()]).is_none());
        let both = doctests(&["xtask".to_owned(), "sereno-core".to_owned()]).unwrap();
        assert_eq!(words(&both).join(" "), "test --doc --quiet --package sereno-core");
        assert_eq!(words(&doctests(&[]).unwrap()).join(" "), "test --doc --quiet --workspace");
    }
}
