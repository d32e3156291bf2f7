//! `layers` and `client`: who may name whom.

use toml::{Table, Value};

use super::tree::{Tree, room};
use super::{Finding, line_of};
use crate::code;

/// Rooms that may name the etcd client and what it is made of.
const CLIENT_ROOMS: [&str; 3] = ["core", "embed", "testkit"];
/// And the part of xtask that measures it.
const BENCH: [&str; 2] = ["xtask/Cargo.toml", "xtask/src/bench/"];
/// What gives users a channel of tonic's, for services of their own: tonic alone, and only to who asks for it.
const CHANNEL: [&str; 2] = ["crates/discovery/src/channel.rs", "crates/discovery/tests/tonic.rs"];
const CHANNEL_MANIFEST: &str = "crates/discovery/Cargo.toml";
const TESTKIT: &str = "sereno-testkit";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.files("", "toml").filter(|(path, _)| *path != "Cargo.toml") {
        for Dependency { name, is_dev, is_optional } in dependencies(&tree.manifest(path)) {
            let is_channel = path == CHANNEL_MANIFEST && name == "tonic" && is_optional;
            let what = if is_client(&name) && !may_name_client(path) && !is_channel {
                Some(("client", format!("{name} is named by core, embed, testkit and the bench alone")))
            } else if !may_depend(tree, room(path), &name, is_dev) {
                Some(("layers", format!("must not depend on {name}")))
            } else {
                None
            };
            findings
                .extend(what.map(|(rule, what)| Finding::new(path, line_of(&file.text, &name), rule, what)));
        }
    }
    for (path, file) in tree.files("", "rs") {
        for (line, name, _) in code::names(&file.code) {
            let is_channel = CHANNEL.contains(&path) && name == "tonic";
            if is_client(name) && !may_name_client(path) && !is_channel {
                let what = format!("`{name}` is named by core, embed, testkit and the bench alone");
                findings.push(Finding::new(path, line, "client", what));
            }
            if names_another(tree, room(path), name) {
                findings.push(Finding::new(path, line, "layers", format!("must not name `{name}`")));
            }
        }
    }
    findings
}

fn is_client(name: &str) -> bool {
    let name = name.replace('_', "-");
    name == "etcd-client" || name == "tonic" || name.starts_with("tonic-")
}

fn may_name_client(path: &str) -> bool {
    CLIENT_ROOMS.contains(&room(path)) || BENCH.iter().any(|start| path.starts_with(start))
}

/// The folder of a package of ours: `sereno-counter` gives `counter`.
fn ours<'a>(tree: &Tree, package: &'a str) -> Option<&'a str> {
    package.strip_prefix("sereno-").filter(|folder| tree.crates.iter().any(|name| name == folder))
}

fn may_depend(tree: &Tree, room: &str, package: &str, is_dev: bool) -> bool {
    let Some(target) = ours(tree, package) else { return true };
    let is_recipe = tree.recipes().any(|recipe| recipe == room);
    match room {
        // Nobody publishes these.
        "examples" | "xtask" => true,
        _ if package == TESTKIT => is_dev,
        // For its own tests, with its features.
        _ if target == room => is_dev,
        "pipes" | "peers" => ["core", "sp"].contains(&target),
        _ if is_recipe => target == "core",
        "core" | "sp" => false,
        // What it shows its users is a service under test.
        "embed" if is_dev => true,
        _ => !tree.recipes().any(|recipe| recipe == target),
    }
}

/// Whether a recipe's code names another recipe's library.
fn names_another(tree: &Tree, room: &str, name: &str) -> bool {
    let Some(other) = name.strip_prefix("sereno_") else { return false };
    other != room
        && tree.recipes().any(|recipe| recipe == room)
        && tree.recipes().any(|recipe| recipe == other)
}

/// What a manifest depends on: a package, under its true name.
struct Dependency {
    name: String,
    /// For tests only.
    is_dev: bool,
    /// For those only who turn a feature on.
    is_optional: bool,
}

/// Every package a manifest depends on.
fn dependencies(manifest: &Table) -> Vec<Dependency> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = targets.filter_map(Value::as_table).chain([manifest]);
    tables
        .flat_map(|table| {
            ["dependencies", "build-dependencies", "dev-dependencies"].map(|kind| (table.get(kind), kind))
        })
        .filter_map(|(table, kind)| Some((table?.as_table()?, kind == "dev-dependencies")))
        .flat_map(|(table, is_dev)| {
            table.iter().map(move |(key, value)| Dependency {
                name: value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned(),
                is_dev,
                is_optional: value.get("optional").and_then(Value::as_bool).unwrap_or(false),
            })
        })
        .collect()
}
