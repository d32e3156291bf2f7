//! etcd as a child process.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::server::{ATTEMPTS, Ports, Server, port_was_taken, tail};
use super::{START_LIMIT, http};
use crate::program;
use crate::undertaker::Undertaker;

/// A running `etcd` and its folder. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    folder: TempDir,
    undertaker: Option<Undertaker>,
}

/// The program to run: the one that was named, else the first on PATH.
pub(super) fn find(named: Option<String>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        let path = PathBuf::from(named);
        return if program::is_executable(&path) {
            Ok(fs::canonicalize(path)?)
        } else {
            bail!("SERENO_ETCD_BIN names {}, which is not a program", path.display())
        };
    }
    program::on_path("etcd").context("there is no `etcd` on PATH")
}

/// Starts `program` on ports of its own and returns it with its client URL once it answers.
pub(super) fn start(program: &Path) -> anyhow::Result<(Server, String)> {
    let mut attempt = 1;
    loop {
        let ports = Ports::free()?;
        let mut process = Process::spawn(program, ports)?;
        let endpoint = ports.endpoint();
        let ready = http::wait_until_ready(&endpoint, START_LIMIT, || match process.child.try_wait()? {
            Some(status) => bail!("it ended with {status}"),
            None => Ok(()),
        });
        let Err(error) = ready else {
            return Ok((Server::Process(process), endpoint));
        };
        let log = fs::read_to_string(process.log()).unwrap_or_default();
        if attempt < ATTEMPTS && port_was_taken(&log) {
            attempt += 1;
            continue;
        }
        return Err(error).with_context(|| format!("{} does not start:{}\n ", program.display(), tail(&log)));
    }
}

impl Process {
    fn spawn(program: &Path, ports: Ports) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sereno-etcd-").tempdir()?;
        let data = folder.path().join("data");
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        // etcd reads flags from ETCD_* as well, and stops at one that contradicts its arguments.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        let child = command
            .args(ports.arguments(&data.to_string_lossy()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C must not end it before those who use it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut process = Self { child, folder, undertaker: None };
        let pid = process.child.id().to_string();
        let folder = process.folder.path().to_string_lossy().into_owned();
        process.undertaker = Some(Undertaker::hire("kill -KILL \"$1\"; rm -rf \"$2\"", &[&pid, &folder])?);
        Ok(process)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its data goes with it: there is nothing that a gentler end would save.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.undertaker = None;
    }
}
