//! Cleans up when this process can no longer do it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context;

/// Runs a shell script when this process dies, however it dies, and never when it is dismissed first.
///
/// A shell of its own process group, so that Ctrl-C does not reach it, reads from a pipe that only this process
/// holds. A line means that the work has been done here; the end of the pipe without one, that nobody did it.
#[derive(Debug)]
pub(crate) struct Undertaker {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Undertaker {
    /// `script` sees `arguments` as `$1`, `$2` and so on.
    pub(crate) fn hire(script: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read -r _ && exit 0\n{script}"), "undertaker"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A shell that is gone already needs no word, and there is nobody left to tell.
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_when_the_pipe_ends_and_not_after_a_dismissal() {
        let folder = tempfile::tempdir().unwrap();
        for (name, dismissed) in [("died", false), ("dismissed", true)] {
            let file = folder.path().join(name);
            let mut undertaker = Undertaker::hire("touch \"$1\"", &[file.to_str().unwrap()]).unwrap();
            if !dismissed {
                drop(undertaker.pipe.take());
            }
            drop(undertaker);
            assert_eq!(file.exists(), !dismissed, "{name}");
        }
    }
}
