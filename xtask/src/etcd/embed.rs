//! `sereno-embed`, this workspace's own server, as a child process.
//!
//! Built by cargo when it is needed, and no dependency: this program is the first thing a newcomer builds.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, bail};

use super::server::Server;
use super::{START_LIMIT, http};

/// The program's name.
pub(super) const NAME: &str = "sereno-embed";
/// What it says first, before its URL.
const LISTENING: &str = "listening on ";

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Embedded {
    child: Child,
}

/// Starts `program` on a port of its own and returns it with its URL once it answers.
pub(super) fn start(program: &Path) -> anyhow::Result<(Server, String)> {
    let mut server = Embedded::spawn(program)?;
    let endpoint = server.endpoint().with_context(|| format!("{} does not start", program.display()))?;
    http::wait_until_ready(&endpoint, START_LIMIT, || match server.child.try_wait()? {
        Some(status) => bail!("it ended with {status}"),
        None => Ok(()),
    })?;
    Ok((Server::Embedded(server), endpoint))
}

impl Embedded {
    fn spawn(program: &Path) -> anyhow::Result<Self> {
        let child = Command::new(program)
            // Its standard input is a pipe that only this process holds: it ends when we do, however we do.
            .args(["--listen", "127.0.0.1:0", "--until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C must not end it before those who use it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Its URL, by its own word.
    fn endpoint(&mut self) -> anyhow::Result<String> {
        let output = self.child.stdout.take().context("its output is read already")?;
        let (send, receive) = sync_channel(1);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            let read = output.read_line(&mut line).map(|_| line);
            // When nobody waits any more, the server is about to end too.
            let _ = send.send(read);
            // It may write more, and must not find a closed pipe.
            let _ = io::copy(&mut output, &mut io::sink());
        });
        let line = match receive.recv_timeout(START_LIMIT) {
            Ok(line) => line.context("cannot read what it says")?,
            Err(_) => bail!("it says nothing for {START_LIMIT:?}"),
        };
        if line.is_empty() {
            bail!("it ended with {}", self.child.wait()?);
        }
        match line.trim_end().strip_prefix(LISTENING) {
            Some(endpoint) => Ok(endpoint.to_owned()),
            None => bail!("it says `{}`, not where it listens", line.trim_end()),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Everything it has is in memory: there is nothing that a gentler end would save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A shell script in place of the server.
    fn started(script: &str) -> anyhow::Result<(Server, String)> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(NAME);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        start(&program)
    }

    #[test]
    fn a_server_that_does_not_say_where_it_listens_is_an_error_that_tells_why() {
        for (script, word) in [("exit 3", "exit status: 3"), ("echo hello; cat", "`hello`")] {
            let error = format!("{:#}", started(script).unwrap_err());
            assert!(error.contains(word) && error.contains("does not start"), "{error}");
        }
    }

    #[test]
    fn a_server_that_ends_after_its_first_word_is_not_waited_for() {
        let error = format!("{:#}", started("echo listening on http://127.0.0.1:1").unwrap_err());
        assert!(error.contains("it ended with"), "{error}");
    }
}
