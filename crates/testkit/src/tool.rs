//! Programs of other implementations of the scalability protocols, to talk to.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::eventually;

const REQUIRED: &str = "SERENO_REQUIRE_INTEROP";
const LONG: Duration = Duration::from_secs(120);

/// `nngcat` or `nanocat`, running, and what it has printed. Killed when dropped.
#[derive(Debug)]
pub struct Tool {
    process: Child,
    printed: Arc<Mutex<String>>,
}

impl Tool {
    /// NNG's tool and nanomsg's.
    pub const NAMES: [&str; 2] = ["nngcat", "nanocat"];

    /// Those that are on the `PATH`; prints which are not, for their cases are left out.
    ///
    /// # Panics
    /// When one is missing and `SERENO_REQUIRE_INTEROP=1` says that none may be.
    #[must_use]
    pub fn installed() -> Vec<&'static str> {
        let (there, missing): (Vec<_>, Vec<_>) = Self::NAMES.into_iter().partition(|tool| is_installed(tool));
        let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
        assert!(!required || missing.is_empty(), "{missing:?} must be installed, because {REQUIRED}=1");
        println!("interop: with {there:?}, skipped {missing:?}");
        there
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(tool: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(tool)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (mut stdout, text) = (process.stdout.take().unwrap(), Arc::clone(&printed));
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { process, printed }
    }

    /// Its flag for connecting to an address.
    #[must_use]
    pub fn dial_flag(tool: &str) -> &'static str {
        if tool == "nngcat" { "--dial" } else { "--connect" }
    }

    /// Its flag for listening at an address.
    #[must_use]
    pub fn listen_flag(tool: &str) -> &'static str {
        if tool == "nngcat" { "--listen" } else { "--bind" }
    }

    /// What it has printed so far.
    ///
    /// # Panics
    /// Never in practice: nobody panics while holding it.
    #[must_use]
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Waits until it has printed a text.
    ///
    /// # Panics
    /// When it does not within 20 s.
    pub async fn prints(&self, text: &str) {
        eventually(LONG, text, async || self.printed().contains(text).then_some(())).await;
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Panics
    /// When the system does not let it be killed.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}
