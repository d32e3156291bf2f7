//! A member as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{engine, reaper};

/// A child that is killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`; `mark` is a text unique to it that appears in its command line.
    pub(crate) fn start(program: &Path, arguments: &[String], mark: &str, log: &PathBuf) -> Self {
        let mut command = engine::bound_to_us(program);
        let log = File::options().create(true).append(true).open(log).expect("the log file must open");
        let errors = log.try_clone().expect("a file handle can be cloned");
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        match engine::spawn(command) {
            Ok(child) => Self::adopt(child, mark),
            Err(error) => panic!("{} does not start: {error}", program.display()),
        }
    }

    pub(crate) fn adopt(child: Child, mark: &str) -> Self {
        reaper::process(child.id(), mark);
        Self { child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has an id")
    }

    /// Sends a signal. The child has not been waited for, so its id cannot belong to somebody else yet.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            kill_process(self.pid(), signal).expect("a child of ours takes our signals");
        }
    }

    /// SIGSTOP, and waits until every thread has stopped: until then one of them may still answer somebody.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
        let end = Instant::now() + Duration::from_secs(5);
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while self.is_running() {
            let status = waitid(WaitId::Pid(self.pid()), stopped).expect("a child of ours can be waited for");
            if status.is_some_and(|status| status.stopped()) {
                return;
            }
            assert!(Instant::now() < end, "a stopped process must stop");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be waited for")
    }

    /// Waits up to `limit` for the end; true when it came.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            if self.exit_status().is_some() {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child of ours can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // No panic in a drop: a child that cannot be killed or waited for has already gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
