//! How to send and how to receive.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use sereno_sp::{Queue, SocketOptions};

use crate::error::{Error, Result};
use crate::mode::Mode;

/// What [`Registration::send`](crate::Registration::send) does when a group's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Waits until there is room, however long that takes: nothing is dropped, and the sender goes at the pace of the
    /// slowest such group, the messages of the other groups with it.
    Wait,
    /// Waits until there is room, at most so long; then drops the message for this group. A group that let the time pass
    /// is not waited for again before it has taken something. Dropped messages are counted.
    WaitUpTo(Duration),
    /// Drops the oldest message that waits in the queue, and never waits. What is with a member and not acknowledged yet
    /// is not dropped; when that fills the whole queue, the new message is dropped. Dropped messages are counted.
    DropOldest,
}

impl Default for WhenFull {
    /// [`WhenFull::WaitUpTo`] one second.
    fn default() -> Self {
        Self::WaitUpTo(Duration::from_secs(1))
    }
}

/// Options of [`Destination::with_options`](crate::Destination::with_options).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DestinationOptions {
    /// Where to listen; each group has a listening socket of its own. `tcp://host:0` lets the system choose the ports;
    /// `ipc://path` is the beginning of the sockets' paths, and `inproc://name` of their names. Default:
    /// `tcp://127.0.0.1:0`.
    pub listen: String,
    /// The host that members dial, a name or an address; the port is the real one. Needed to listen on all interfaces
    /// (`tcp://0.0.0.0:0`). Default: the address listened on.
    pub advertise: Option<String>,
    /// The ports to choose from, one for each group. Default: any.
    pub ports: Option<RangeInclusive<u16>>,
    /// How long `register` waits for another registration of the destination to end; zero fails at once. Default: 30 s,
    /// twice the time to live of a session that crashed.
    pub wait: Duration,
    /// Whether to register again when the registration is deleted underneath, or the session's lease was lost. Otherwise it
    /// ends then, and says so. Default: `false`.
    pub reregister: bool,
    /// What to do when a group's queue is full. Default: [`WhenFull::WaitUpTo`] one second.
    pub when_full: WhenFull,
    /// The same for single groups. Default: none.
    pub when_full_for: BTreeMap<String, WhenFull>,
    /// Groups that are there whether or not they have members: for peers that know nothing of etcd, and for messages
    /// that shall wait for members. Default: none.
    pub standing: BTreeMap<String, Mode>,
    /// How long a group is kept after its last member has gone, with all that waits for it: longer than a member that
    /// lost its lease takes to come back. Default: 2 s.
    pub grace: Duration,
    /// What each group's queue holds; at least once: what is not acknowledged yet counts. Default: 1,024 messages, 4 MiB.
    pub queue: Queue,
    /// At least once: how many messages a connection may have that are not acknowledged. Default: 256.
    pub window: usize,
    /// At least once: after how long without an acknowledgement a message is sent once more. `None`: only when its
    /// connection is lost. Default: 60 s.
    pub resend: Option<Duration>,
    /// How long the end of a group, or of the registration, waits for what is queued to be sent and, at least once,
    /// acknowledged. Default: 1 s.
    pub linger: Duration,
    /// Everything else of the sockets: the largest message, buffers, keepalive, certificates. `send_queue`, `window`,
    /// `resend`, `linger` and `requeue` in it do not count. Default: the defaults of `sereno-sp`.
    pub socket: SocketOptions,
}

impl Default for DestinationOptions {
    fn default() -> Self {
        Self {
            listen: "tcp://127.0.0.1:0".into(),
            advertise: None,
            ports: None,
            wait: Duration::from_secs(30),
            reregister: false,
            when_full: WhenFull::default(),
            when_full_for: BTreeMap::new(),
            standing: BTreeMap::new(),
            grace: Duration::from_secs(2),
            queue: Queue::default(),
            window: 256,
            resend: Some(Duration::from_secs(60)),
            linger: Duration::from_secs(1),
            socket: SocketOptions::default(),
        }
    }
}

impl DestinationOptions {
    /// Sets [`DestinationOptions::listen`].
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Sets [`DestinationOptions::advertise`].
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// Sets [`DestinationOptions::ports`].
    #[must_use]
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Sets [`DestinationOptions::wait`].
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets [`DestinationOptions::reregister`].
    #[must_use]
    pub fn reregister(mut self, reregister: bool) -> Self {
        self.reregister = reregister;
        self
    }

    /// Sets [`DestinationOptions::when_full`].
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Adds to [`DestinationOptions::when_full_for`].
    #[must_use]
    pub fn when_full_for(mut self, group: impl Into<String>, when_full: WhenFull) -> Self {
        self.when_full_for.insert(group.into(), when_full);
        self
    }

    /// Adds to [`DestinationOptions::standing`].
    #[must_use]
    pub fn standing(mut self, group: impl Into<String>, mode: Mode) -> Self {
        self.standing.insert(group.into(), mode);
        self
    }

    /// Sets [`DestinationOptions::grace`].
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets [`DestinationOptions::queue`].
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`DestinationOptions::window`].
    #[must_use]
    pub fn window(mut self, window: usize) -> Self {
        self.window = window;
        self
    }

    /// Sets [`DestinationOptions::resend`].
    #[must_use]
    pub fn resend(mut self, resend: Option<Duration>) -> Self {
        self.resend = resend;
        self
    }

    /// Sets [`DestinationOptions::linger`].
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets [`DestinationOptions::socket`].
    #[must_use]
    pub fn socket(mut self, socket: SocketOptions) -> Self {
        self.socket = socket;
        self
    }

    /// What a group's queue does when it is full.
    pub(crate) fn full(&self, group: &str) -> WhenFull {
        self.when_full_for.get(group).copied().unwrap_or(self.when_full)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.window == 0 || self.queue.messages == 0 {
            return Err(Error::option("window", "windows and queues hold at least one message"));
        }
        if self.ports.as_ref().is_some_and(|ports| ports.is_empty() || *ports.start() == 0) {
            return Err(Error::option("ports", "a range of ports from 1 to 65535"));
        }
        Ok(())
    }
}

/// Options of [`Group::with_options`](crate::Group::with_options).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupOptions {
    /// How messages shall reach the group. The first member decides; who wants another mode cannot join. Default:
    /// [`Mode::AtMostOnce`].
    pub mode: Mode,
    /// How long `join` waits for somebody to register the destination. Default: `None`, for ever.
    pub wait: Option<Duration>,
    /// Whether to go on by itself when the lease is lost, when the member's key is deleted underneath, and when the
    /// destination goes, to come again. Otherwise the membership ends then, and says so. Default: `true`.
    pub rejoin: bool,
    /// How much of what came waits to be received, in this member. As much again may wait in buffers before it, so a
    /// slow member holds up no more than this. Default: 256 messages, 1 MiB.
    pub queue: Queue,
    /// How long a connection to an address that is gone from etcd may go on, to bring what the destination still sends
    /// while it ends. Default: 2 s.
    pub linger: Duration,
    /// Everything else of the socket: the largest message, buffers, keepalive, certificates. `recv_queue` and
    /// `unanswered` in it do not count. Default: the defaults of `sereno-sp`.
    pub socket: SocketOptions,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            wait: None,
            rejoin: true,
            queue: Queue::of(256),
            linger: Duration::from_secs(2),
            socket: SocketOptions::default(),
        }
    }
}

impl GroupOptions {
    /// Sets [`GroupOptions::mode`].
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets [`GroupOptions::wait`].
    #[must_use]
    pub fn wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Sets [`GroupOptions::rejoin`].
    #[must_use]
    pub fn rejoin(mut self, rejoin: bool) -> Self {
        self.rejoin = rejoin;
        self
    }

    /// Sets [`GroupOptions::queue`].
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`GroupOptions::linger`].
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets [`GroupOptions::socket`].
    #[must_use]
    pub fn socket(mut self, socket: SocketOptions) -> Self {
        self.socket = socket;
        self
    }
}
