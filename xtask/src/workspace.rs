//! Where the repository is, and the cargo that works on it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that runs us, at the root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // `cargo run` has described this package in the environment. Build scripts that watch these variables would run
    // again, and everything above them be built again, at each change between `cargo build` and `cargo xtask`.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(name);
        }
    }
    command
}

fn describes_a_package(variable: &str) -> bool {
    variable == "OUT_DIR"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|start| variable.starts_with(start))
}

/// Whether `cargo <subcommand>` is installed.
pub(crate) fn has_subcommand(subcommand: &str) -> bool {
    let asked = cargo().args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// A package of this workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// As in its manifest.
    pub(crate) name: String,
    /// What it builds.
    pub(crate) targets: Vec<Target>,
}

/// Something a package builds.
#[derive(Debug)]
pub(crate) struct Target {
    /// As cargo calls it.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `example` and so on.
    pub(crate) kind: String,
    /// Its first source file.
    pub(crate) source: PathBuf,
}

/// The packages of this workspace, without their dependencies.
pub(crate) fn packages() -> anyhow::Result<Vec<Package>> {
    let metadata = metadata(&root(), &["--no-deps"])?;
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let packages = list(&metadata, "packages").into_iter().map(|package| Package {
        name: text(package.get("name")),
        targets: list(&package, "targets")
            .iter()
            .map(|target| Target {
                name: text(target.get("name")),
                kind: text(list(target, "kind").first()),
                source: text(target.get("src_path")).into(),
            })
            .collect(),
    });
    Ok(packages.collect())
}

/// What `cargo metadata` says of the workspace at `root`.
pub(crate) fn metadata(root: &Path, flags: &[&str]) -> anyhow::Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1"]).args(flags).current_dir(root);
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")
}
