//! How servers ask and clients answer.

use std::time::Duration;

use sereno_sp::{Dialect, Queue, SocketOptions, TlsOptions};

use crate::error::{Error, Result};

/// The shortest and the longest time that an option may have.
const TIMES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3600));
/// After how long without traffic TCP asks whether the other side is there: a machine that is gone without a word is
/// noticed a little later, and its address dialled again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Nothing that is sent when a socket is closed is worth a longer wait.
const LINGER: Duration = Duration::from_millis(200);
/// What a survey or an answer may have. Names are far shorter; whoever sends more is disconnected.
const SMALL: usize = 64 * 1024;

/// Options of [`Server::bind`](crate::Server::bind). The first three are those of gopherdiscovery.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How long answers to a survey count, while somebody has not answered. Default: 1 s. 1 ms to 1 h.
    pub survey_time: Duration,
    /// How long after an answer the next is waited for, before those who have not answered have missed the survey. An
    /// answer that comes later and within `survey_time` makes up for it. Default: 1 s. 1 ms to 1 h.
    pub recv_deadline: Duration,
    /// The time from one survey to the next while nothing happens. When a connection comes or is lost the next survey is
    /// made at once, and while somebody has missed surveys they are `poll_time / missed` apart. Default: 2 s. 1 ms to 1 h.
    pub poll_time: Duration,
    /// After how many surveys missed in a row a peer is gone. With 1 each late answer is a departure. Default: 3. At
    /// least 1.
    pub missed: u32,
    /// For how long after its start a server only listens, so that those who come back to a server that was restarted are
    /// not told to be gone. Default: 1 s. Zero is allowed; 1 h at most.
    pub settle: Duration,
    /// How many names, and how many connections of each kind, a server has. Default: 10,000. At least 1.
    pub max_peers: usize,
    /// The largest publication in bytes; names that would make a larger one are refused, and counted. What is over 1 MiB
    /// nanomsg, mangos and this crate's clients refuse by default. Default: 1 MiB. At least 256.
    pub max_message: usize,
    /// How many answers to one survey may come by one connection. Clients need no more than one; a device that forwards
    /// for several does. Default: 1. At least 1.
    pub answers_per_connection: usize,
    /// Which numbers surveys speak. Default: [`Dialect::Current`]; a gopherdiscovery built with mangos of 2015 speaks
    /// [`Dialect::Mangos2015`].
    pub dialect: Dialect,
    /// Certificates, for addresses `tls+tcp://`. Default: none.
    pub tls: TlsOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            survey_time: Duration::from_secs(1),
            recv_deadline: Duration::from_secs(1),
            poll_time: Duration::from_secs(2),
            missed: 3,
            settle: Duration::from_secs(1),
            max_peers: 10_000,
            max_message: 1024 * 1024,
            answers_per_connection: 1,
            dialect: Dialect::default(),
            tls: TlsOptions::default(),
        }
    }
}

/// Options of clients and subscribers in survey mode.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The longest wait between attempts to connect to a server that is away; the first is a fifth of it, and they double.
    /// Default: 500 ms. 1 ms to 1 h.
    pub reconnect: Duration,
    /// How many names a publication may have; one with more is refused, and counted. Default: 10,000. At least 1.
    pub max_peers: usize,
    /// The largest publication in bytes; who sends a larger one is disconnected, and that is counted. Default: 1 MiB. At
    /// least 256.
    pub max_message: usize,
    /// Which numbers surveys speak. Default: [`Dialect::Current`]; a gopherdiscovery built with mangos of 2015 speaks
    /// [`Dialect::Mangos2015`].
    pub dialect: Dialect,
    /// Certificates, for addresses `tls+tcp://`. Default: none.
    pub tls: TlsOptions,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            reconnect: Duration::from_millis(500),
            max_peers: 10_000,
            max_message: 1024 * 1024,
            dialect: Dialect::default(),
            tls: TlsOptions::default(),
        }
    }
}

macro_rules! setters {
    ($options:ident { $($name:ident: $type:ty),* $(,)? }) => {
        impl $options {
            $(
                #[doc = concat!("Sets [`", stringify!($options), "::", stringify!($name), "`].")]
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

setters! {
    ServerOptions {
        survey_time: Duration,
        recv_deadline: Duration,
        poll_time: Duration,
        missed: u32,
        settle: Duration,
        max_peers: usize,
        max_message: usize,
        answers_per_connection: usize,
        dialect: Dialect,
        tls: TlsOptions,
    }
}

setters! {
    ClientOptions {
        reconnect: Duration,
        max_peers: usize,
        max_message: usize,
        dialect: Dialect,
        tls: TlsOptions,
    }
}

impl ServerOptions {
    pub(crate) fn check(&self) -> Result<()> {
        time("survey_time", self.survey_time)?;
        time("recv_deadline", self.recv_deadline)?;
        time("poll_time", self.poll_time)?;
        if self.settle > Duration::ZERO {
            time("settle", self.settle)?;
        }
        at_least("missed", self.missed as usize, 1, "must be at least 1")?;
        at_least("max_peers", self.max_peers, 1, "must be at least 1")?;
        at_least("max_message", self.max_message, 256, "must be at least 256 bytes")?;
        at_least("answers_per_connection", self.answers_per_connection, 1, "must be at least 1")
    }

    /// How long surveys are apart while somebody has missed one: so that all it takes to be gone fit into about one
    /// `poll_time`.
    pub(crate) fn in_doubt(&self) -> Duration {
        (self.poll_time / self.missed.max(1)).max(TIMES.0)
    }

    pub(crate) fn surveyor(&self) -> SocketOptions {
        // There is room for one answer of each connection besides.
        let surplus = if self.answers_per_connection > 1 { self.max_peers } else { 64 };
        socket(&self.tls)
            .dialect(self.dialect)
            .max_message(SMALL)
            .recv_queue(Queue::of(surplus))
            .max_connections(self.max_peers)
    }

    pub(crate) fn publisher(&self) -> SocketOptions {
        // The latest state is all that matters.
        socket(&self.tls)
            .max_message(self.max_message)
            .send_queue(Queue::of(1))
            .max_connections(self.max_peers)
    }
}

impl ClientOptions {
    pub(crate) fn check(&self) -> Result<()> {
        time("reconnect", self.reconnect)?;
        at_least("max_peers", self.max_peers, 1, "must be at least 1")?;
        at_least("max_message", self.max_message, 256, "must be at least 256 bytes")
    }

    pub(crate) fn respondent(&self) -> SocketOptions {
        self.dialling().dialect(self.dialect).max_message(SMALL).unanswered(16).recv_queue(Queue::of(64))
    }

    pub(crate) fn subscriber(&self) -> SocketOptions {
        self.dialling().max_message(self.max_message).recv_queue(Queue::of(4))
    }

    fn dialling(&self) -> SocketOptions {
        socket(&self.tls).reconnect_first(self.reconnect / 5).reconnect_max(self.reconnect)
    }
}

fn socket(tls: &TlsOptions) -> SocketOptions {
    SocketOptions::default().keepalive(Some(KEEPALIVE)).linger(LINGER).tls(tls.clone())
}

fn time(option: &'static str, value: Duration) -> Result<()> {
    if value < TIMES.0 || value > TIMES.1 {
        return Err(Error::InvalidOption { option, reason: "must be from 1 ms to 1 h" });
    }
    Ok(())
}

fn at_least(option: &'static str, value: usize, least: usize, reason: &'static str) -> Result<()> {
    if value < least { Err(Error::InvalidOption { option, reason }) } else { Ok(()) }
}
