//! One etcd member: a container, a process, or a server inside this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::cluster::Builder;
use crate::container::Container;
use crate::embedded::Embedded;
use crate::metrics::{self, Metrics};
use crate::oracle::Oracle;
use crate::process::Process;
use crate::source::Source;
use crate::spec::{Seat, Spec};
use crate::{engine, place};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// One etcd member. Dropping it kills it and deletes its data (unless the data directory was given).
///
/// Every verb may be called at any time from any task; verbs on one member run one after the other, and run to their
/// end even when the caller's future is dropped. They panic when the member does not do as told.
#[derive(Debug)]
pub struct Member {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // First, so that it is dropped before the folder it works in.
    body: Mutex<Body>,
    source: Source,
    spec: Spec,
    seat: Seat,
    root: TempDir,
}

#[derive(Debug)]
enum Body {
    None,
    Process { process: Process, paused: bool },
    Container { container: Box<Container>, paused: bool },
    Embedded(Box<Embedded>),
}

impl Member {
    /// Options for a single member: finish with [`Builder::start_one`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a single member with the defaults and waits until it takes writes.
    pub async fn single() -> Self {
        Self::builder().start_one().await
    }

    pub(crate) fn new(source: Source, spec: Spec, mut seat: Seat) -> Self {
        let root = place::folder();
        seat.data_dir = match &spec.data_dir {
            Some(folder) => folder.join(&seat.name),
            None => root.path().join("data"),
        };
        if source == Source::Embed {
            // It answers everything on one port.
            seat.metrics_port = seat.client_port;
        }
        fs::create_dir_all(&seat.data_dir).expect("the data directory must be creatable");
        Self { inner: Arc::new(Inner { body: Mutex::new(Body::None), source, spec, seat, root }) }
    }

    /// The client URL: `http://127.0.0.1:port`, or `https` with TLS. The same for the life of this value.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.inner.seat.endpoint(&self.inner.spec)
    }

    /// The member's name within its cluster: `m0`, `m1`, …
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.seat.name
    }

    /// Where its data is. An embedded server has it in memory and leaves this folder empty.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.inner.seat.data_dir
    }

    /// The version it says it is, such as `3.5.1`.
    pub async fn version(&self) -> String {
        let metrics = self.metrics().await;
        let version = metrics.label("etcd_server_version", "server_version");
        version.expect("every etcd counts its version").to_owned()
    }

    /// Scrapes `/metrics`, with TLS on the client port too (metrics have a plain port of their own).
    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(&self.inner.seat.metrics_address()).await
    }

    /// Options that let a raw client in: TLS where the member has it.
    ///
    /// # Panics
    /// When the member's certificate is wrong on purpose.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        self.inner.spec.access().expect("no client can trust a certificate that is wrong on purpose")
    }

    /// A raw client for this member alone.
    pub async fn oracle(&self) -> Oracle {
        Oracle::connect_with(&[self.endpoint()], self.connect_options()).await
    }

    /// Starts it (with the data and the address it had) and waits until it takes writes. Nothing if it runs.
    pub async fn start(&self) {
        self.spawn().await;
        self.wait_ready().await;
    }

    /// As [`Member::start`], without waiting: for members that get their quorum only together.
    pub async fn spawn(&self) {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.spawn().await }).await;
    }

    /// Waits until it takes writes: 30 s at most.
    pub async fn wait_ready(&self) {
        if let Err(why) = self.ready().await {
            panic!("member {} at {} {why}", self.name(), self.endpoint());
        }
    }

    pub(crate) async fn ready(&self) -> Result<(), String> {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.ready().await }).await
    }

    /// SIGTERM, and waits until it has ended. Nothing if it does not run.
    pub async fn stop(&self) {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.stop().await }).await;
    }

    /// SIGKILL, and waits until it has ended. Works on a paused member. Nothing if it does not run.
    pub async fn kill(&self) {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.kill().await }).await;
    }

    /// Stops it gracefully and starts it with its data and its address.
    pub async fn restart(&self) {
        self.stop().await;
        self.start().await;
    }

    /// Freezes it: connections stay open, nobody answers (SIGSTOP, or the container's freezer).
    pub async fn pause(&self) {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.set_paused(true).await }).await;
    }

    /// Ends [`Member::pause`].
    pub async fn resume(&self) {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.set_paused(false).await }).await;
    }

    /// Kills it if it runs and deletes its data: the next start makes a new, empty store behind the old address.
    ///
    /// Only for a single member; a member of three would not be let in again.
    pub async fn wipe(&self) {
        assert!(!self.inner.seat.roll.contains(','), "a member of a larger cluster cannot come back empty");
        self.kill().await;
        let inner = Arc::clone(&self.inner);
        engine::run(async move {
            if let Body::Embedded(server) = &*inner.body.lock().await {
                server.wipe();
            }
        })
        .await;
        for entry in fs::read_dir(self.data_dir()).expect("the data directory can be read") {
            let path = entry.expect("the data directory can be read").path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("the data is ours to delete");
        }
    }

    /// True while it runs, paused or not.
    pub async fn is_running(&self) -> bool {
        let inner = Arc::clone(&self.inner);
        engine::run(async move { inner.body.lock().await.is_running().await }).await
    }

    /// What it wrote to its log, for a failure message.
    pub async fn log(&self) -> String {
        let inner = Arc::clone(&self.inner);
        engine::run(async move {
            let body = inner.body.lock().await;
            inner.log(&body).await
        })
        .await
    }
}

impl Inner {
    async fn spawn(&self) {
        let mut body = self.body.lock().await;
        if body.is_running().await {
            return;
        }
        let arguments = self.seat.arguments(&self.spec);
        match (&self.source, &mut *body) {
            (_, Body::Container { container, paused }) => {
                container.start_again().await;
                *paused = false;
            }
            (_, Body::Embedded(server)) => server.start_again().await,
            (Source::Embed, slot) => {
                *slot = Body::Embedded(Box::new(Embedded::start(&self.spec, self.seat.client_port).await));
            }
            (Source::Binary { path }, slot) => {
                let mark = self.seat.data_dir.to_str().expect("temporary paths are UTF-8");
                let process = Process::start(path, &arguments, mark, &self.log_file());
                *slot = Body::Process { process, paused: false };
            }
            (Source::Docker { image }, slot) => {
                let mut folders = self.spec.extra_folders();
                folders.push(self.seat.data_dir.clone());
                let container = Container::start(image, &arguments, &self.seat.data_dir, &folders).await;
                *slot = Body::Container { container: Box::new(container), paused: false };
            }
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let end = Instant::now() + READY_LIMIT;
        while Instant::now() < end {
            // Asked before and after: an answer may come from a stranger who took the port while ours gave up.
            let answered = self.answers().await;
            let mut body = self.body.lock().await;
            if !body.is_running().await {
                return Err(format!("ended while starting; its log ends with:\n{}", self.log(&body).await));
            }
            if answered {
                return Ok(());
            }
            drop(body);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let body = self.body.lock().await;
        let log = self.log(&body).await;
        Err(format!("takes no write after {READY_LIMIT:?}; its log ends with:\n{log}"))
    }

    /// True when a write went through the log of the cluster.
    async fn answers(&self) -> bool {
        let Some(options) = self.spec.access() else {
            let health = metrics::get(&self.seat.metrics_address(), "/health").await;
            return health.is_ok_and(|body| body.contains("\"true\""));
        };
        let limit = Duration::from_secs(1);
        let options = options.with_connect_timeout(limit).with_timeout(limit);
        let Ok(mut client) = Client::connect([self.seat.endpoint(&self.spec)], Some(options)).await else {
            return false;
        };
        // Deleting what was never there is a write like any other, and leaves no trace in the store.
        match client.delete("\0sereno-testkit-ready", None).await {
            Ok(_) => true,
            // With authentication on, the refusal comes from the far end of the same log.
            Err(etcd_client::Error::GRpcStatus(status)) => {
                status.message().contains("user name is empty")
                    || status.message().contains("permission denied")
            }
            Err(_) => false,
        }
    }

    async fn stop(&self) {
        let mut body = self.body.lock().await;
        if !body.is_running().await {
            return;
        }
        body.set_paused(false).await;
        match &mut *body {
            Body::None => {}
            Body::Process { process, .. } => {
                process.signal(Signal::TERM);
                if !process.ended_within(Duration::from_secs(10)).await {
                    process.kill();
                }
            }
            Body::Container { container, .. } => container.stop().await,
            // What it has acknowledged it keeps, however it ends.
            Body::Embedded(server) => server.kill().await,
        }
    }

    async fn kill(&self) {
        let mut body = self.body.lock().await;
        if !body.is_running().await {
            return;
        }
        match &mut *body {
            Body::None => {}
            Body::Process { process, paused } => {
                process.kill();
                *paused = false;
            }
            Body::Container { container, paused } => {
                container.kill().await;
                *paused = false;
            }
            Body::Embedded(server) => server.kill().await,
        }
    }

    async fn set_paused(&self, wanted: bool) {
        let mut body = self.body.lock().await;
        assert!(body.is_running().await, "member {} does not run", self.seat.name);
        body.set_paused(wanted).await;
    }

    fn log_file(&self) -> PathBuf {
        self.root.path().join("etcd.log")
    }

    async fn log(&self, body: &Body) -> String {
        let log = match body {
            Body::Container { container, .. } => container.log().await,
            Body::Embedded(server) => server.log(),
            _ => fs::read_to_string(self.log_file()).unwrap_or_default(),
        };
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Body {
    async fn is_running(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::Process { process, .. } => process.is_running(),
            Self::Container { container, .. } => container.is_running().await,
            Self::Embedded(server) => server.is_running(),
        }
    }

    async fn set_paused(&mut self, wanted: bool) {
        match self {
            Self::Process { process, paused } if *paused != wanted => {
                if wanted {
                    process.pause();
                } else {
                    process.resume();
                }
                *paused = wanted;
            }
            Self::Container { container, paused } if *paused != wanted => {
                if wanted {
                    container.pause().await;
                } else {
                    container.resume().await;
                }
                *paused = wanted;
            }
            Self::Embedded(server) => server.set_paused(wanted),
            _ => {}
        }
    }
}
