//! `layout` and `skeleton`: what lies where.

use super::Finding;
use super::tree::Tree;
use crate::code;

const TOP: [&str; 7] = ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "crates", "examples", "xtask"];
const HEADINGS: [&str; 6] = ["Example", "Guarantees", "Keys", "Options", "Cost", "See also"];
const FILES: [&str; 7] = [
    "README.md",
    "src/lib.rs",
    "src/keys.rs",
    "src/error.rs",
    "tests/basic.rs",
    "tests/contention.rs",
    "tests/faults.rs",
];
/// Files of `src` that are no handle.
const ROOMS: [&str; 5] = ["lib.rs", "keys.rs", "error.rs", "options.rs", "worker.rs"];
const INCLUDE: &str = "#![doc = include_str!(\"../README.md\")]";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = top(tree);
    for recipe in tree.recipes() {
        findings.extend(files(tree, recipe));
        findings.extend(title_page(tree, recipe));
        findings.extend(headings(tree, recipe));
        findings.extend(row(tree, recipe));
    }
    findings
}

fn top(tree: &Tree) -> Vec<Finding> {
    let surplus = tree.top.iter().filter(|name| !TOP.contains(&name.as_str()));
    let missing = TOP.iter().filter(|name| !tree.top.iter().any(|there| there == *name));
    surplus
        .map(|name| Finding::new(name, 1, "layout", "does not belong at the top level"))
        .chain(missing.map(|name| Finding::new(*name, 1, "layout", "is missing at the top level")))
        .collect()
}

fn files(tree: &Tree, recipe: &str) -> Vec<Finding> {
    let folder = format!("crates/{recipe}");
    let is_there = |file: &str| {
        let path = format!("{folder}/{file}");
        // Many tests have a folder of that name instead.
        let main = file.strip_suffix(".rs").filter(|_| file.starts_with("tests/"));
        tree.file(&path).is_some()
            || main.is_some_and(|main| tree.file(&format!("{folder}/{main}/main.rs")).is_some())
    };
    let mut findings: Vec<Finding> = FILES
        .iter()
        .filter(|file| !is_there(file))
        .map(|file| Finding::new(format!("{folder}/{file}"), 1, "skeleton", "is missing"))
        .collect();
    let src = format!("{folder}/src");
    let mut nouns =
        tree.files(&src, "rs").filter(|(path, _)| !ROOMS.iter().any(|room| *path == format!("{src}/{room}")));
    if nouns.next().is_none() {
        findings.push(Finding::new(src.clone(), 1, "skeleton", "has no file for the handle"));
    }
    findings
}

fn title_page(tree: &Tree, recipe: &str) -> Vec<Finding> {
    let path = format!("crates/{recipe}/src/lib.rs");
    let Some(file) = tree.file(&path) else { return Vec::new() };
    let mut findings = Vec::new();
    if !file.text.lines().any(|line| line.trim() == INCLUDE) {
        findings.push(Finding::new(&path, 1, "skeleton", format!("does not contain {INCLUDE}")));
    }
    let items = ["fn", "struct", "enum", "trait", "impl", "const", "static", "type", "macro_rules"];
    if let Some((line, name, _)) = code::names(&file.code).find(|(_, name, _)| items.contains(name)) {
        let what = format!("is a title page: documentation, `mod` and `pub use`, but no `{name}`");
        findings.push(Finding::new(&path, line, "skeleton", what));
    }
    findings
}

fn headings(tree: &Tree, recipe: &str) -> Option<Finding> {
    let path = format!("crates/{recipe}/README.md");
    let file = tree.file(&path)?;
    let mut fenced = false;
    let mut found = Vec::new();
    for line in file.text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && let Some(heading) = line.strip_prefix("## ") {
            found.push(heading.trim());
        }
    }
    (found != HEADINGS).then(|| {
        let what = format!("has the headings {}, not {}", found.join(", "), HEADINGS.join(", "));
        Finding::new(&path, super::line_of(&file.text, "## "), "skeleton", what)
    })
}

fn row(tree: &Tree, recipe: &str) -> Option<Finding> {
    let file = tree.file("README.md")?;
    let package = format!("sereno-{recipe}");
    let is_word = |line: &str| {
        line.split(|letter: char| !code::is_name(letter) && letter != '-').any(|word| word == package)
    };
    let has_row = file.text.lines().any(|line| line.starts_with('|') && is_word(line));
    (!has_row)
        .then(|| Finding::new("README.md", 1, "skeleton", format!("has no row for {package} in a table")))
}
