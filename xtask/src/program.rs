//! Programs: those of this workspace, built when a command needs them, and those that are installed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{runner, workspace};

/// How a program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As everything is in development.
    Dev,
    /// Optimised, to be measured.
    Release,
}

/// Builds the program of that name, for all to see, and returns where cargo says it is.
///
/// As a part of the whole workspace, which is how tests are built: what it depends on has the same features then, and is built
/// once for all.
pub(crate) fn build(name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--workspace", "--bin", name, "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let (code, messages) = runner::read(&mut command)?;
    if code != 0 {
        bail!("{name} cannot be built (cargo ended with {code})");
    }
    executable(name, &messages).with_context(|| format!("cargo has built {name} and does not say where"))
}

/// The first program of that name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

/// True for a file that can be run.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The program among what cargo tells of a build, one JSON object a line.
fn executable(name: &str, messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let target = message.get("target")?.get("name")?.as_str()?;
        let path = message.get("executable")?.as_str()?;
        (target == name).then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_a_program_is() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"tour"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/debug/other"}
            {"reason":"compiler-artifact","target":{"name":"tour"},"executable":"/t/debug/tour"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable("tour", messages), Some("/t/debug/tour".into()));
        assert_eq!(executable("none", messages), None);
    }
}
