//! `cargo xtask tidy`: the rules that keep the workspace in shape, each with its name.
//!
//! | rule | what it says |
//! |---|---|
//! | `layout` | The visible top level is exactly `Cargo.toml Cargo.lock crates examples xtask README.md LICENSE`. |
//! | `layers` | A recipe stands on core alone (pipes and peers: core and sp) and names no other recipe; core and sp stand on nothing of ours; testkit is for tests. |
//! | `client` | Only core, embed, testkit and xtask's bench name `etcd-client` or `tonic`, in a manifest or in code; discovery's channel and its test may name `tonic`, as an optional dependency. |
//! | `time` | A recipe's `src` has no `sleep` and no `interval`, no `SystemTime` (save in a file that says `// tidy: payload timestamp`), and no retry loop: no `loop`, `while` or `for` in which a name speaks of retries, backoff or attempts. |
//! | `queues` | No channel is unbounded. |
//! | `skeleton` | Every recipe has the same files, a `lib.rs` that is a title page, a README with the same headings that is also its documentation, and a row in the table of the README at the root. |
//! | `length` | A source file over 400 lines is a warning, over 500 an error. |
//! | `manifest` | Manifests are complete as for publishing and take the workspace's lints. |
//! | `honesty` | An ignored test says what it needs, in one of three ways, and one that needs a real etcd can be left out by its name; nothing is left undone in code; every documentation example is compiled. |
//! | `rust-version` | No locked dependency needs a newer Rust than the workspace declares (save what only the bench measures beside), and the README states that version. |
//!
//! Words are looked for in code only: comments and strings do not count, unless a rule is about them. A recipe is
//! every crate but core, sp, embed and testkit.

mod layers;
mod layout;
mod manifest;
mod source;
mod tree;
mod versions;

use std::fmt;
use std::path::Path;

use crate::flags::Tidy;
use crate::outcome::Outcome;
use crate::workspace;
use tree::Tree;

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
    /// Told, but no reason to fail.
    warning: bool,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, rule, what: what.into(), warning: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.warning { " (warning)" } else { "" };
        write!(f, "{}:{}: {}{warning}: {}", self.path, self.line, self.rule, self.what)
    }
}

/// Checks a folder, the repository's root unless another is named. Exit code 1 when a rule is broken.
pub(crate) fn run(flags: &Tidy) -> Outcome {
    let root = flags.folder.clone().unwrap_or_else(workspace::root);
    let tree = Tree::read(&root)?;
    let mut findings = text(&tree);
    findings.extend(versions::locked(&root)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let warnings = findings.iter().filter(|finding| finding.warning).count();
    let errors = findings.len() - warnings;
    println!("tidy: {} files checked, {errors} findings, {warnings} warnings", tree.len());
    Ok(u8::from(errors > 0))
}

/// Every check that reads files and nothing else.
fn text(tree: &Tree) -> Vec<Finding> {
    let checks = [layout::check, layers::check, manifest::check, source::check, versions::stated];
    checks.iter().flat_map(|check| check(tree)).collect()
}

/// The line of `text` that starts with `word`, counted from one; the first when none does.
fn line_of(text: &str, word: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(word)).map_or(1, |index| index + 1)
}

fn display(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
