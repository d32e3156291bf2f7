//! `time`, `queues`, `length` and `honesty`: what source files say.

use super::Finding;
use super::tree::{File, Tree};
use crate::code;
use crate::ignored::{self, Need};

const WARN_ABOVE: usize = 400;
const FAIL_ABOVE: usize = 500;
/// In a comment of a file that stamps payloads, or whose ids are times.
const TIMESTAMP: &str = "// tidy: payload timestamp";
const WAITS: [&str; 4] = ["sleep", "sleep_until", "interval", "interval_at"];
const RETRIES: [&str; 9] =
    ["retry", "retries", "retried", "retrying", "retryable", "backoff", "backoffs", "attempt", "attempts"];
const UNEXPLAINED: &str = "an ignored test says one of `needs etcd: cargo xtask test`, `needs a real etcd: <why>` \
    and `entry of child processes`";
// In two halves, for this file is checked as well.
const UNFINISHED: &str = concat!("FIX", "ME");

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.files("", "rs") {
        findings.extend(length(path, file));
        findings.extend(queues(path, file));
        findings.extend(honesty(tree, path, file));
    }
    for (path, file) in tree.files("", "md") {
        findings.extend(fences(path, file.text.lines().enumerate().map(|(index, line)| (index + 1, line))));
    }
    for recipe in tree.recipes() {
        for (path, file) in tree.files(&format!("crates/{recipe}/src"), "rs") {
            findings.extend(time(path, file));
        }
    }
    findings
}

fn length(path: &str, file: &File) -> Option<Finding> {
    let lines = file.text.lines().count();
    let what = format!("has {lines} lines; more than one noun may live here");
    let warning = lines <= FAIL_ABOVE;
    (lines > WARN_ABOVE).then(|| Finding { warning, ..Finding::new(path, lines, "length", what) })
}

fn queues(path: &str, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, name, after) in code::names(&file.code) {
        // A range of keys may have no end: `Bound::Unbounded`.
        let is_unbounded = (name.to_ascii_lowercase().starts_with("unbounded") && name != "Unbounded")
            // The standard library's: the only `mpsc::channel` that takes no capacity.
            || (name == "mpsc" && takes_no_capacity(after));
        if is_unbounded {
            findings.push(Finding::new(path, line, "queues", "every channel has a bound"));
        }
    }
    findings
}

fn takes_no_capacity(after_mpsc: &str) -> bool {
    let Some(after) = after_mpsc.strip_prefix("::channel") else { return false };
    let arguments = match after.strip_prefix("::<") {
        Some(turbofish) => turbofish.split_once(">(").map(|(_, arguments)| arguments),
        None => after.strip_prefix('('),
    };
    arguments.is_some_and(|arguments| arguments.trim_start().starts_with(')'))
}

fn honesty(tree: &Tree, path: &str, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, what: &str| findings.push(Finding::new(path, line, "honesty", what));
    for (line, name, after) in code::names(&file.code) {
        if ["todo", "unimplemented"].contains(&name) && after.starts_with('!') {
            find(line, &format!("`{name}!` is unfinished"));
        }
    }
    for test in ignored::ignored(&file.text, &file.code) {
        match test.need {
            None => find(test.line, UNEXPLAINED),
            // Names and binaries are all that test runners have to leave one out by.
            Some(Need::RealEtcd(_)) if !(test.at_top && is_of_a_test_binary(tree, path)) => {
                find(
                    test.line,
                    "a test that needs a real etcd stands at the top of a file of its crate's `tests`",
                );
            }
            Some(_) => {}
        }
    }
    for (index, line) in file.text.lines().enumerate() {
        if line.contains(UNFINISHED) {
            find(index + 1, &format!("{UNFINISHED} is unfinished"));
        }
    }
    let docs = file.text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_start();
        Some((index + 1, line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?))
    });
    findings.extend(fences(path, docs));
    findings
}

/// Whether a path is a source file of one test binary and no other: `tests/faults.rs`, or beside `tests/faults/main.rs`.
fn is_of_a_test_binary(tree: &Tree, path: &str) -> bool {
    let Some((start, rest)) = path.split_once("/tests/") else { return false };
    match rest.split_once('/') {
        None => true,
        Some((folder, _)) => tree.file(&format!("{start}/tests/{folder}/main.rs")).is_some(),
    }
}

/// Code blocks that are not even compiled.
fn fences<'a>(path: &str, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Finding> {
    lines
        .filter(|(_, line)| {
            let info = line.trim_start().strip_prefix("```").unwrap_or_default();
            info.split([',', ' ']).any(|word| word.trim().starts_with("ignore"))
        })
        .map(|(line, _)| {
            Finding::new(path, line, "honesty", "a code block is compiled, with `no_run` if need be")
        })
        .collect()
}

fn time(path: &str, file: &File) -> Vec<Finding> {
    let may_read_the_clock = file.text.lines().any(|line| line.trim() == TIMESTAMP);
    let mut findings = Vec::new();
    for (line, name, after) in code::names(&file.code) {
        let is_call = after.trim_start().starts_with('(');
        if WAITS.contains(&name) && is_call {
            findings.push(Finding::new(path, line, "time", format!("`{name}` is core's to call")));
        }
        if name == "SystemTime" && !may_read_the_clock {
            let what = format!("the wall clock is for payloads, in a file that says `{TIMESTAMP}`");
            findings.push(Finding::new(path, line, "time", what));
        }
    }
    findings.extend(retry_loops(path, &file.code));
    findings
}

/// Loops in which a name speaks of retries: core is where an operation is tried again.
fn retry_loops(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // One entry per open brace: whether it opened a loop.
    let mut open: Vec<bool> = Vec::new();
    // Since the last `{`, `}` or `;`: whether a loop began, and whether `for` is one or part of an `impl`.
    let (mut begins, mut maybe) = (false, false);
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(letter) = rest.chars().next() {
            if code::is_name(letter) {
                let end = rest.find(|letter| !code::is_name(letter)).unwrap_or(rest.len());
                let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                rest = after;
                match name {
                    "loop" | "while" => begins = true,
                    "for" => maybe = true,
                    "in" => begins |= maybe,
                    _ if (begins || open.contains(&true)) && speaks_of_retries(name) => {
                        let what = format!("`{name}` in a loop: core is where something is tried again");
                        findings.push(Finding::new(path, index + 1, "time", what));
                    }
                    _ => {}
                }
                continue;
            }
            match letter {
                '{' => open.push(begins),
                '}' => drop(open.pop()),
                _ => {}
            }
            if matches!(letter, '{' | '}' | ';') {
                (begins, maybe) = (false, false);
            }
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
    }
    findings
}

/// Looks at the parts of `snake_case`, `CamelCase` and `CONSTANT_CASE` names.
fn speaks_of_retries(name: &str) -> bool {
    name.split('_').any(|word| {
        let is_one = word.chars().all(char::is_uppercase);
        let parts = if is_one { vec![word] } else { humps(word) };
        parts.iter().any(|part| RETRIES.contains(&part.to_lowercase().as_str()))
    })
}

/// `RetryPolicy` gives `Retry` and `Policy`.
fn humps(word: &str) -> Vec<&str> {
    let starts =
        word.char_indices().skip(1).filter(|(_, letter)| letter.is_uppercase()).map(|(index, _)| index);
    let mut humps = Vec::new();
    let mut from = 0;
    for start in starts.chain([word.len()]) {
        humps.extend(word.get(from..start));
        from = start;
    }
    humps
}
