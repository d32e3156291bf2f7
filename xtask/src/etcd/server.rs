//! What was started, and how it is told to run.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

use super::binary::Process;
use super::docker::Container;
use super::embed::Embedded;

/// A server of ours. Dropping it stops and removes it.
#[derive(Debug)]
pub(super) enum Server {
    /// A container.
    Container(#[expect(dead_code, reason = "held for its Drop")] Box<Container>),
    /// A child process.
    Process(#[expect(dead_code, reason = "held for its Drop")] Process),
    /// Our own server as a child process.
    Embedded(#[expect(dead_code, reason = "held for its Drop")] Embedded),
}

/// The loopback ports of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) client: u16,
    peer: u16,
}

impl Ports {
    /// Two that are free now. Somebody else may take one before the server does: try again then.
    pub(super) fn free() -> anyhow::Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port");
        let (client, peer) = (bind()?, bind()?);
        Ok(Self { client: client.local_addr()?.port(), peer: peer.local_addr()?.port() })
    }

    pub(super) fn endpoint(self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    /// Arguments for an `etcd` of one member that keeps its data in `folder`.
    ///
    /// Its data is thrown away, so nothing is synced to disk; the short election timeout halves the time to start and
    /// makes leases of one second possible. Both are known to 3.4 and later.
    pub(super) fn arguments(self, folder: &str) -> Vec<String> {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let cluster = format!("xtask={peer}");
        [
            ("--name", "xtask"),
            ("--data-dir", folder),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
            ("--heartbeat-interval", "50"),
            ("--election-timeout", "500"),
            ("--logger", "zap"),
            ("--log-level", "error"),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .chain(["--unsafe-no-fsync".to_owned()])
        .collect()
    }
}

/// How often a start is tried when somebody else takes the port in between.
pub(super) const ATTEMPTS: usize = 3;

/// Whether what a server wrote says that its port was taken.
pub(super) fn port_was_taken(log: &str) -> bool {
    log.contains("address already in use")
}

/// The end of what a server wrote, for an error message.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(5)).fold(String::new(), |text, line| text + "\n    " + line)
}
