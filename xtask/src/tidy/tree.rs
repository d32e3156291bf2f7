//! The files that the checks look at, read once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use toml::Table;

use super::display;
use crate::code;

/// Crates that are no recipe.
const FOUNDATIONS: [&str; 4] = ["core", "sp", "embed", "testkit"];
/// Build output, which git ignores too.
const OUTPUT: &str = "target";
const FOLDERS: [&str; 3] = ["crates", "examples", "xtask"];
const KINDS: [&str; 3] = ["rs", "toml", "md"];

/// A text file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: String,
    /// For Rust: the text with comments and the insides of strings blanked, every line in its place.
    pub(super) code: String,
}

/// A workspace as text. Paths are relative to its root, with `/`.
#[derive(Debug)]
pub(super) struct Tree {
    /// Names at the root that do not start with a dot.
    pub(super) top: Vec<String>,
    /// Folders below `crates`.
    pub(super) crates: Vec<String>,
    files: BTreeMap<String, File>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let top = names(root)?.into_iter().filter(|name| name != OUTPUT).collect();
        let mut files = BTreeMap::new();
        for name in ["Cargo.toml", "README.md"] {
            read_file(&root.join(name), name, &mut files)?;
        }
        for folder in FOLDERS {
            read_folder(&root.join(folder), folder, &mut files)?;
        }
        let crates = names(&root.join("crates"))?
            .into_iter()
            .filter(|name| root.join("crates").join(name).is_dir())
            .collect();
        Ok(Self { top, crates, files })
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Files below `folder` (all, when it is empty) whose names end in `.kind`.
    pub(super) fn files<'a>(
        &'a self,
        folder: &'a str,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file)).filter(move |(path, _)| {
            let below =
                folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            below && path.rsplit_once('.').is_some_and(|(_, ending)| ending == kind)
        })
    }

    /// Folders of the recipes, such as `counter`.
    pub(super) fn recipes(&self) -> impl Iterator<Item = &str> {
        self.crates.iter().map(String::as_str).filter(|name| !FOUNDATIONS.contains(name))
    }

    /// The manifest at `path`; an empty table when it is missing or unreadable, which cargo reports better than we.
    pub(super) fn manifest(&self, path: &str) -> Table {
        self.file(path).and_then(|file| file.text.parse().ok()).unwrap_or_default()
    }
}

/// The crate folder that a path lies in: `crates/counter/src/lib.rs` gives `counter`, `xtask/…` gives `xtask`.
pub(super) fn room(path: &str) -> &str {
    let path = path.strip_prefix("crates/").unwrap_or(path);
    path.split('/').next().unwrap_or(path)
}

/// Names in a folder that do not start with a dot, in order; none when there is no such folder.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", display(folder)))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read_folder(folder: &Path, relative: &str, files: &mut BTreeMap<String, File>) -> anyhow::Result<()> {
    for name in names(folder)? {
        let (path, below) = (folder.join(&name), format!("{relative}/{name}"));
        if !path.is_dir() {
            read_file(&path, &below, files)?;
        } else if name != OUTPUT {
            read_folder(&path, &below, files)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, relative: &str, files: &mut BTreeMap<String, File>) -> anyhow::Result<()> {
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    if !path.is_file() || !KINDS.contains(&kind) {
        return Ok(());
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", display(path)))?;
    let code = if kind == "rs" { code::blank(&text) } else { String::new() };
    files.insert(relative.to_owned(), File { text, code });
    Ok(())
}
