//! `manifest`: complete as for publishing.

use toml::{Table, Value};

use super::tree::Tree;
use super::{Finding, line_of};

/// As many keywords as the registry takes, and how long each may be.
const MOST_KEYWORDS: usize = 5;
const LONGEST_KEYWORD: usize = 20;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let folders = tree.crates.iter().map(|name| (format!("crates/{name}"), format!("sereno-{name}")));
    let others = [("examples", "sereno-examples"), ("xtask", "xtask")];
    let others = others.into_iter().map(|(folder, name)| (folder.to_owned(), name.to_owned()));
    let mut findings = workspace(tree);
    for (folder, name) in folders.chain(others) {
        let path = format!("{folder}/Cargo.toml");
        match tree.file(&path) {
            None => findings.push(Finding::new(path, 1, "manifest", "is missing")),
            Some(file) => {
                let broken = package(&tree.manifest(&path), &name);
                let found = broken
                    .into_iter()
                    .map(|(word, what)| Finding::new(&path, line_of(&file.text, word), "manifest", what));
                findings.extend(found);
            }
        }
    }
    findings
}

/// What is wrong with one manifest, each with the word whose line is meant.
fn package(manifest: &Table, name: &str) -> Vec<(&'static str, String)> {
    let empty = Table::new();
    let package = manifest.get("package").and_then(Value::as_table).unwrap_or(&empty);
    let mut broken = Vec::new();
    if package.get("name").and_then(Value::as_str) != Some(name) {
        broken.push(("name", format!("the package in this folder is called {name}")));
    }
    if package.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
        broken.push(("[package]", "has no description".to_owned()));
    }
    for field in ["license", "rust-version"] {
        if !is_inherited(package.get(field)) {
            broken.push(("[package]", format!("lacks `{field}.workspace = true`")));
        }
    }
    if !is_inherited(manifest.get("lints")) {
        broken.push(("[package]", "lacks `[lints] workspace = true`".to_owned()));
    }
    if package.get("publish").and_then(Value::as_bool) != Some(false) {
        broken.extend(published(package));
    }
    broken
}

/// What only a published package needs.
fn published(package: &Table) -> Vec<(&'static str, String)> {
    let list = |field: &str| -> Vec<&str> {
        let values = package.get(field).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).collect()
    };
    let mut broken = Vec::new();
    let keywords = list("keywords");
    if keywords.is_empty() || keywords.len() > MOST_KEYWORDS {
        broken.push(("keywords", format!("has {} keywords, not one to {MOST_KEYWORDS}", keywords.len())));
    }
    if let Some(long) = keywords.iter().find(|keyword| keyword.len() > LONGEST_KEYWORD) {
        broken.push(("keywords", format!("`{long}` is longer than {LONGEST_KEYWORD} letters")));
    }
    if list("categories").is_empty() {
        broken.push(("categories", "has no categories".to_owned()));
    }
    if package.get("readme").and_then(Value::as_str) != Some("README.md") {
        broken.push(("readme", "lacks `readme = \"README.md\"`".to_owned()));
    }
    broken
}

/// The root: what others inherit, and versions on what gets published.
fn workspace(tree: &Tree) -> Vec<Finding> {
    const PATH: &str = "Cargo.toml";
    let manifest = tree.manifest(PATH);
    let table = |key: &str| manifest.get("workspace")?.get(key)?.as_table();
    let text = tree.file(PATH).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for field in ["license", "rust-version"] {
        if table("package").and_then(|package| package.get(field)).and_then(Value::as_str).is_none() {
            let line = line_of(text, "[workspace.package]");
            findings.push(Finding::new(
                PATH,
                line,
                "manifest",
                format!("states no {field} for the workspace"),
            ));
        }
    }
    for (name, value) in table("dependencies").into_iter().flatten() {
        // A path without a version is dropped from what is published: right for testkit, wrong for the others.
        let (is_ours, has_version) = (value.get("path").is_some(), value.get("version").is_some());
        if is_ours && has_version == (name == "sereno-testkit") {
            let what =
                if has_version { "a test harness has no version" } else { "needs a version to be published" };
            findings.push(Finding::new(PATH, line_of(text, name), "manifest", format!("{name}: {what}")));
        }
    }
    findings
}

fn is_inherited(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}
