//! `rust-version`: what is declared is what really builds.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::tree::Tree;
use super::{Finding, line_of};
use crate::workspace;

/// Major, minor, patch; what is left out is zero.
type Version = (u64, u64, u64);

/// What the bench measures beside, and nobody builds who uses these crates or tests them.
const MEASURED: [&str; 1] = ["zeromq"];

/// No locked dependency declares a newer Rust than the workspace does.
pub(super) fn locked(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let declared =
        declared(&Tree::read(root)?).context("Cargo.toml declares no rust-version for the workspace")?;
    let limit = version(&declared);
    let metadata = workspace::metadata(root, &["--locked"])?;
    let mut findings = Vec::new();
    for package in metadata.get("packages").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        let (name, release) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
        if let Some(needed) = text("rust_version")
            && version(needed) > limit
            && !MEASURED.contains(&name)
        {
            let what = format!("{name} {release} needs Rust {needed}, the workspace declares {declared}");
            findings.push(Finding::new("Cargo.lock", 1, "rust-version", what));
        }
    }
    Ok(findings)
}

/// The README at the root states the declared version, and no README states another.
pub(super) fn stated(tree: &Tree) -> Vec<Finding> {
    let Some(declared) = declared(tree) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut is_stated = false;
    for (path, file) in tree.files("", "md") {
        for (index, line) in file.text.lines().enumerate() {
            for stated in versions_in(line) {
                if version(stated) != version(&declared) {
                    let what = format!("says Rust {stated}, the workspace declares {declared}");
                    findings.push(Finding::new(path, index + 1, "rust-version", what));
                }
                is_stated |= path == "README.md";
            }
        }
    }
    if !is_stated && let Some(file) = tree.file("README.md") {
        let what = format!("does not state that Rust {declared} is needed");
        findings.push(Finding::new(
            "README.md",
            line_of(&file.text, "## Requirements"),
            "rust-version",
            what,
        ));
    }
    findings
}

fn declared(tree: &Tree) -> Option<String> {
    let manifest = tree.manifest("Cargo.toml");
    Some(manifest.get("workspace")?.get("package")?.get("rust-version")?.as_str()?.to_owned())
}

/// The version numbers that follow the word `Rust`.
fn versions_in(line: &str) -> impl Iterator<Item = &str> {
    line.split("Rust ").skip(1).filter_map(|after| {
        let end = after.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(after.len());
        let number = after.get(..end)?.trim_end_matches('.');
        number.contains('.').then_some(number)
    })
}

fn version(text: &str) -> Version {
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}
