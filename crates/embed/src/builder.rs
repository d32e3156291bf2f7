//! What a server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Result;
use crate::server::Server;
use crate::version::Version;

/// Options of a server. Finish with [`Builder::start`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) any_address: bool,
    pub(crate) clock: Option<Clock>,
    pub(crate) min_lease_ttl: Duration,
    pub(crate) progress_interval: Duration,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) version: Version,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            any_address: false,
            clock: None,
            min_lease_ttl: Duration::from_secs(1),
            progress_interval: Duration::from_secs(600),
            quota_bytes: None,
            version: Version::default(),
        }
    }
}

impl Builder {
    /// The address to listen on. Port 0 is any free one. Default: `127.0.0.1:0`.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Listens on no port at all: the server is reached by [`Server::channel`] and [`Server::dial`] only.
    pub fn in_process(mut self) -> Self {
        self.listen = None;
        self
    }

    /// Allows an address that others than this machine can reach, as in a container of its own. They can read and write
    /// everything. Default: false, and such an address is refused.
    pub fn any_address(mut self, allow: bool) -> Self {
        self.any_address = allow;
        self
    }

    /// The clock by which leases run out. Default: [`Clock::real`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The shortest time to live that a lease is granted, in whole seconds. Default: 1 s.
    pub fn min_lease_ttl(mut self, ttl: Duration) -> Self {
        self.min_lease_ttl = ttl;
        self
    }

    /// How often a silent watch that asked for progress notices gets one. Default: 10 min, as in etcd; at least 1 ms.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How much may be stored, keys, values and 256 bytes for each version counted. What would exceed it is refused, and
    /// so is everything else that writes until the alarm is disarmed. Default: no limit.
    pub fn quota_bytes(mut self, bytes: u64) -> Self {
        self.quota_bytes = Some(bytes);
        self
    }

    /// The etcd release whose behaviour the server shows where releases differ, and that it reports. Default: the newest,
    /// [`Version::V3_5_30`].
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Starts the server on the runtime this is called on.
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen) when the address is taken or not ours,
    /// [`Error::NotLoopback`](crate::Error::NotLoopback).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(self) -> Result<Server> {
        Server::launch(self).await
    }
}
