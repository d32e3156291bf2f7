//! One of our own client processes, to be stopped and killed.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::process::Process;
use crate::{engine, fresh_namespace};

const ROLE: &str = "SERENO_TESTKIT_ROLE";
const ARGUMENT: &str = "SERENO_TESTKIT_ARGUMENT_";
/// Separates what the role says from what the test runner prints around it.
const SAYS: &str = "@sereno-testkit@ ";

/// Runs the current test binary again as a child process, in a role.
///
/// The test file has one more test, the entry of its children:
///
/// ```no_run
/// use sereno_testkit::{ChildHost, child};
///
/// #[tokio::test(flavor = "multi_thread")]
/// #[ignore = "entry of child processes"]
/// async fn child_entry() {
///     match child::role().as_deref() {
///         Some("holder") => child::say(&format!("holding on {}", child::argument(0))),
///         _ => {} // Run by hand: nobody asked for a role.
///     }
/// }
///
/// # async fn test() {
/// let mut holder = ChildHost::new("child_entry", "holder").argument("http://127.0.0.1:2379").spawn();
/// assert_eq!(holder.line().await, "holding on http://127.0.0.1:2379");
/// holder.kill();
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChildHost {
    entry: String,
    role: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl ChildHost {
    /// `entry` is the full path of the entry test (`module::child_entry`), `role` what it shall do.
    #[must_use]
    pub fn new(entry: impl Into<String>, role: impl Into<String>) -> Self {
        Self { entry: entry.into(), role: role.into(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// One more argument; the child reads it with [`argument`].
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// An environment variable of the child.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts it. What it prints beside [`say`] goes to our standard error, so a panic of the child is seen.
    #[must_use]
    pub fn spawn(self) -> ChildProcess {
        let mark = fresh_namespace("sereno-testkit-child");
        let program = env::current_exe().expect("a running program has a path");
        let mut command = engine::bound_to_us(&program);
        // The mark is a filter that matches nothing: its use is to be seen in the command line.
        command.args(["--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
        command.args([&self.entry, &mark]);
        command.env(ROLE, &self.role).envs(self.variables);
        for (index, argument) in self.arguments.iter().enumerate() {
            command.env(format!("{ARGUMENT}{index}"), argument);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = engine::spawn(command).expect("the test binary must start again");
        let stdin = child.stdin.take().expect("the standard input was asked for");
        let stdout = child.stdout.take().expect("the standard output was asked for");
        let (send, lines) = mpsc::channel(4096);
        // A thread, because it must go on while the test blocks its runtime. It ends with the child's output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match line.split_once(SAYS) {
                    Some((_, said)) if send.blocking_send(said.to_owned()).is_err() => break,
                    Some(_) => {}
                    None => eprintln!("[child] {line}"),
                }
            }
        });
        ChildProcess { process: Process::adopt(child, &mark), stdin, lines, role: self.role }
    }
}

/// A child started by [`ChildHost::spawn`]. Killed when dropped.
#[derive(Debug)]
pub struct ChildProcess {
    process: Process,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    role: String,
}

impl ChildProcess {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line it says. 30 s at most.
    ///
    /// # Panics
    /// When it says nothing, or has ended.
    pub async fn line(&mut self) -> String {
        match self.next_line(Duration::from_secs(30)).await {
            Some(line) => line,
            None => panic!("child `{}` said nothing for 30 s, or has ended", self.role),
        }
    }

    /// The next line it says within `limit`. `None` when the limit passes, or at its end. Cancel safe.
    pub async fn next_line(&mut self, limit: Duration) -> Option<String> {
        tokio::time::timeout(limit, self.lines.recv()).await.ok().flatten()
    }

    /// Reads lines until one starts with `start`, and returns the rest of that one.
    ///
    /// # Panics
    /// When none comes within `limit`.
    pub async fn wait_for(&mut self, start: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.next_line(left).await {
                Some(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return rest.trim_start().to_owned();
                    }
                }
                None => break,
            }
        }
        panic!("child `{}` did not say `{start}` within {limit:?}", self.role);
    }

    /// Lines it has said and nobody has read yet.
    pub fn pending_lines(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.try_recv().ok()).collect()
    }

    /// Writes a line to its standard input.
    pub fn send(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the child must listen");
    }

    /// SIGSTOP, and waits until it has stopped.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGKILL, and waits until it is gone. Works on a paused child.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end; true when it ended with success.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> bool {
        assert!(self.process.ended_within(limit).await, "child `{}` did not end within {limit:?}", self.role);
        self.process.exit_status().is_some_and(|status| status.success())
    }
}

/// In a child: its role. `None` when the entry test was run by hand.
#[must_use]
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// In a child: its argument of that index.
///
/// # Panics
/// When the parent gave fewer.
#[must_use]
pub fn argument(index: usize) -> String {
    env::var(format!("{ARGUMENT}{index}")).unwrap_or_else(|_| panic!("this role needs argument {index}"))
}

/// In a child: says a line to the parent. Blocks for as long as nobody reads.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that no longer reads is a parent that no longer cares.
    writeln!(out, "{SAYS}{line}").and_then(|()| out.flush()).ok();
}

/// In a child: the next line of the parent's [`ChildProcess::send`]; `None` when the parent is gone. Blocks.
#[must_use]
pub fn hear() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(size) if size > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}
