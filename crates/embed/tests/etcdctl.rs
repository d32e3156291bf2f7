//! The program, as etcd's own command line client sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

/// The program under test. Ends with this value, or with the process: it watches its standard input.
struct Program {
    child: Child,
    endpoint: String,
    _input: ChildStdin,
}

impl Program {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sereno-embed"))
            .args(["--listen", "127.0.0.1:0", "--until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        // `endpoint status` would send a URL as the host's name, which HTTP/2 forbids and only etcd lets pass.
        let endpoint = endpoint.trim_start_matches("http://").to_owned();
        let input = child.stdin.take().unwrap();
        Self { child, endpoint, _input: input }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.endpoint).args(words);
        command
    }

    /// Runs etcdctl to its end and gives what it printed.
    fn ctl(&self, words: &[&str]) -> String {
        text(self.command(words).output().expect("etcdctl is installed with etcd"))
    }

    fn ctl_with(&self, words: &[&str], input: &str) -> String {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        text(child.wait_with_output().unwrap())
    }

    /// The first lines of what etcdctl prints while it runs.
    fn watching(&self, words: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
        let mut child = self.command(words).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        (child, lines)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn text(output: Output) -> String {
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{err}");
    out
}

#[test]
#[ignore = "needs a real etcd: its etcdctl"]
fn etcdctl_puts_gets_watches_and_compacts() {
    let program = Program::start();
    for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b", "z")] {
        assert_eq!(program.ctl(&["put", key, value]), "OK\n");
    }
    assert_eq!(program.ctl(&["get", "--prefix", "a/"]), "a/1\nx\na/2\ny\n");
    assert_eq!(program.ctl(&["get", "--prefix", "--keys-only", "--limit=1", "a/"]), "a/1\n\n");
    let (mut watch, lines) = program.watching(&["watch", "--prefix", "a/", "--rev=2"]);
    assert_eq!(program.ctl(&["del", "a/1"]), "1\n");
    let seen: Vec<String> = lines.take(9).collect();
    assert_eq!(seen, ["PUT", "a/1", "x", "PUT", "a/2", "y", "DELETE", "a/1", ""]);
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(program.ctl(&["compaction", "4"]), "compacted revision 4\n");
    let gone = program.command(&["get", "--rev=3", "b"]).output().unwrap();
    assert!(String::from_utf8(gone.stderr).unwrap().contains("required revision has been compacted"));
}

#[test]
#[ignore = "needs a real etcd: its etcdctl"]
fn etcdctl_grants_keeps_and_revokes_leases() {
    let program = Program::start();
    let granted = program.ctl(&["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).unwrap();
    assert!(granted.contains("granted with TTL(60s)"), "{granted}");
    assert_eq!(program.ctl(&["put", "leased", "v", "--lease", lease]), "OK\n");
    let alive = program.ctl(&["lease", "keep-alive", "--once", lease]);
    assert!(alive.contains("keepalived with TTL(60)"), "{alive}");
    let left = program.ctl(&["lease", "timetolive", "--keys", lease]);
    assert!(left.contains("granted with TTL(60s)") && left.contains("attached keys([leased])"), "{left}");
    assert!(program.ctl(&["lease", "list"]).contains(lease));
    assert!(program.ctl(&["lease", "revoke", lease]).contains("revoked"));
    assert_eq!(program.ctl(&["get", "leased"]), "");
}

#[test]
#[ignore = "needs a real etcd: its etcdctl"]
fn etcdctl_runs_transactions_and_asks_how_it_is() {
    let program = Program::start();
    program.ctl(&["put", "a", "1"]);
    let script = "value(\"a\") = \"1\"\n\nput a 2\nget a\n\nput a 3\n\n";
    assert!(program.ctl_with(&["txn", "-i"], script).contains("SUCCESS\n\nOK\n\na\n2\n"));
    assert!(program.ctl_with(&["txn", "-i"], script).contains("FAILURE\n\nOK\n"));
    assert_eq!(program.ctl(&["get", "--print-value-only", "a"]), "3\n");
    assert!(program.ctl(&["endpoint", "status"]).contains("3.5.30"));
    assert!(program.ctl(&["member", "list"]).contains(&program.endpoint));
    let health = program.command(&["endpoint", "health"]).output().unwrap();
    assert!(health.status.success());
}
