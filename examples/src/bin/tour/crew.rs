//! The worker processes.

use std::env;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use tokio::process::{Child, ChildStdin, Command};

/// What a worker process is told by its first argument.
pub(crate) const WORKER: &str = "--work-for";

/// Worker processes. None outlives this: dropping it kills them, and when this process dies without having the time for
/// that, the pipes to their standard inputs end, and so do they.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    name: String,
    process: Child,
    /// Held, because it ends the worker to drop it. Apart from the process, which drops its own when it is waited for.
    pipe: Option<ChildStdin>,
}

impl Crew {
    /// Starts `count` workers for a job: `w1`, `w2` and so on.
    pub(crate) fn hire(&mut self, count: usize, job: &str) -> anyhow::Result<()> {
        let program = env::current_exe().context("cannot find this program")?;
        for number in 1..=count {
            let name = format!("w{number}");
            let mut process = Command::new(&program)
                .args([WORKER, job, &name])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                // A group of its own: Ctrl-C is for the leader, who knows what to do about it.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("cannot start worker {name}"))?;
            let pipe = process.stdin.take();
            self.workers.push(Worker { name, process, pipe });
        }
        Ok(())
    }

    /// Kills a worker with SIGKILL, if it is not dead already, and waits until it is gone. Its process id.
    pub(crate) async fn kill(&mut self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.name == name) else {
            bail!("there is no worker {name}");
        };
        let id = worker.process.id();
        worker.process.kill().await.with_context(|| format!("cannot kill worker {name}"))?;
        Ok(id)
    }

    /// Waits until any worker ends, and says how. Never returns when there is none.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<(String, ExitStatus)> {
        let ends = self.workers.iter_mut().map(|Worker { name, process, .. }| {
            Box::pin(async move { (name.clone(), process.wait().await) })
        });
        let ends: Vec<_> = ends.collect();
        if ends.is_empty() {
            std::future::pending::<()>().await;
        }
        let ((name, status), ..) = futures_util::future::select_all(ends).await;
        Ok((name, status?))
    }

    /// Waits until all workers have ended, and names those that were not well.
    pub(crate) async fn dismiss(&mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        let mut unwell = Vec::new();
        for Worker { name, process, pipe } in &mut self.workers {
            drop(pipe.take());
            let status = process.wait().await.with_context(|| format!("cannot wait for worker {name}"))?;
            if !status.success() {
                unwell.push((name.clone(), status));
            }
        }
        Ok(unwell)
    }

    /// Kills whoever is left and waits until they are gone.
    pub(crate) async fn end(&mut self) {
        for Worker { name, process, .. } in &mut self.workers {
            if let Err(error) = process.kill().await {
                eprintln!("cannot kill worker {name}: {error}");
            }
        }
    }
}
