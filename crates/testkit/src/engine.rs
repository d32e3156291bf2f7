//! What outlives a single test: a runtime and a thread that belong to the harness.
//!
//! Every `#[tokio::test]` has a runtime of its own, often with one thread, and tests block or starve it on purpose. Proxies
//! and container calls run here instead, so that a test cannot freeze the fault it is injecting.

use std::future::Future;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testkit")
            .enable_all()
            .build()
            .expect("the harness runtime must start")
    })
}

/// Runs `work` on the harness runtime, and carries a panic over to the caller.
pub(crate) async fn run<F>(work: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match runtime().spawn(work).await {
        Ok(output) => output,
        Err(failure) => match failure.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(failure) => panic!("the harness runtime dropped a task: {failure}"),
        },
    }
}

/// Runs `work` to its end from a place that cannot await, such as a `Drop`, and gives up after `limit`.
pub(crate) fn block<F>(limit: Duration, work: F) -> Option<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (send, receive) = sync_channel(1);
    runtime().spawn(async move {
        let output = work.await;
        // The receiver is gone when the limit has passed: nobody is left to tell.
        send.send(output).ok();
    });
    receive.recv_timeout(limit).ok()
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Spawns `command` from a thread that lives as long as the process.
///
/// The kernel delivers a parent-death signal when the *thread* that spawned the child ends, and test threads end early.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = sync_channel::<Order>(16);
        std::thread::Builder::new()
            .name("testkit-spawner".to_owned())
            .spawn(move || {
                while let Ok((mut command, reply)) = receive.recv() {
                    reply.send(command.spawn()).ok();
                }
            })
            .expect("the spawner thread must start");
        send
    });
    let (reply, answer) = sync_channel(1);
    spawner.send((command, reply)).expect("the spawner thread never ends");
    answer.recv().expect("the spawner thread answers every order")
}

/// A command for `program` that is killed by the kernel when this process dies, where `setpriv` exists.
pub(crate) fn bound_to_us(program: &std::path::Path) -> Command {
    if on_path("setpriv").is_some() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The first executable file of that name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
