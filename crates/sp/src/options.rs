//! How a socket behaves.

use std::time::Duration;

use bytes::Bytes;

use crate::tls::TlsOptions;

/// Options of every socket. What concerns one kind of socket alone says so.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SocketOptions {
    /// How much waits to be sent. For PUSH: of the socket. For PUB: of each subscriber's connection. For REQ: how many
    /// requests may be unanswered or waiting, over all connections. Default: 1,024 messages, 4 MiB.
    pub send_queue: Queue,
    /// How much of what came waits to be received. As much again may be in the hands of the receiver, see [`Queue`].
    /// Default: 1,024 messages, 4 MiB.
    pub recv_queue: Queue,
    /// The largest message in bytes, in either direction. A peer that announces a larger one is disconnected before any
    /// room is made for it. Default: 1 MiB, as in nanomsg and mangos.
    pub max_message: usize,
    /// `SO_SNDBUF` of each connection in bytes; `None` leaves it to the system, which lets it grow to megabytes that
    /// are lost with the connection. Default: 64 KiB.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` of each connection in bytes, and how far a connection reads ahead (at most 64 KiB); `None` leaves it
    /// to the system. Default: 64 KiB.
    pub recv_buffer: Option<usize>,
    /// After how long without traffic TCP asks whether the peer is there; it asks every third of that, three times.
    /// `None`: never. Default: 30 s.
    pub keepalive: Option<Duration>,
    /// How long connecting and the first exchange may take, TLS included. Default: 10 s.
    pub handshake: Duration,
    /// How long a message may take from its first byte to its last. Time in which this side does not read does not
    /// count. `None`: for ever. Default: 60 s.
    pub frame_time: Option<Duration>,
    /// The wait before the first attempt to connect again; it doubles with every attempt that fails. Each wait is drawn
    /// from its half to the whole. Default: 100 ms.
    pub reconnect_first: Duration,
    /// The longest wait between attempts to connect. Default: 5 s.
    pub reconnect_max: Duration,
    /// How many connections, those in their handshake included, the socket holds before it turns away those who come.
    /// Default: 1,024.
    pub max_connections: usize,
    /// How long `close` tries to send what was accepted. Default: 1 s.
    pub linger: Duration,
    /// PUSH: whether what a lost connection had taken and not written to its end is sent again elsewhere. The peer may
    /// have got it, so that duplicates are possible. Default: `false`.
    pub requeue: bool,
    /// PUB: what happens to a subscriber whose queue is full. Default: [`WhenFull::DropOldest`].
    pub when_full: WhenFull,
    /// SURVEYOR and RESPONDENT: which numbers they speak. Default: [`Dialect::Current`].
    pub dialect: Dialect,
    /// SURVEYOR: how long a survey is open, unless it is told. Default: 1 s.
    pub survey_deadline: Duration,
    /// REQ: how many requests a connection may have unanswered. 16 keeps work with whoever is free; 256 is for
    /// throughput. Default: 16.
    pub window: usize,
    /// REQ: after how long without an answer a request is sent once more; it takes up to a quarter longer. `None`:
    /// never, only when its connection is lost. Default: 60 s, as in nanomsg and NNG.
    pub resend: Option<Duration>,
    /// REQ: whether a request that was handed to a connection before carries [`RESENT`](crate::RESENT) in its number, for
    /// receivers that want to know. Others do not notice: they send the number back as it came. Default: `false`.
    pub mark_resent: bool,
    /// REQ: an answer that is none: whoever sends exactly this has not done what was asked, and it is sent once more, at
    /// once, to another peer if one has room. Default: `None`.
    pub again: Option<Bytes>,
    /// REP and RESPONDENT: how many unanswered questions of one connection are taken before it is no longer read from.
    /// Answers not written yet count. Default: 1,024.
    pub unanswered: usize,
    /// Certificates, for addresses `tls+tcp://`. Default: none.
    pub tls: TlsOptions,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            send_queue: Queue::default(),
            recv_queue: Queue::default(),
            max_message: 1024 * 1024,
            send_buffer: Some(64 * 1024),
            recv_buffer: Some(64 * 1024),
            keepalive: Some(Duration::from_secs(30)),
            handshake: Duration::from_secs(10),
            frame_time: Some(Duration::from_secs(60)),
            reconnect_first: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(5),
            max_connections: 1024,
            linger: Duration::from_secs(1),
            requeue: false,
            when_full: WhenFull::default(),
            dialect: Dialect::default(),
            survey_deadline: Duration::from_secs(1),
            window: 16,
            resend: Some(Duration::from_secs(60)),
            mark_resent: false,
            again: None,
            unanswered: 1024,
            tls: TlsOptions::default(),
        }
    }
}

macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        impl SocketOptions {
            $(
                #[doc = concat!("Sets [`SocketOptions::", stringify!($name), "`].")]
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
    send_queue: Queue,
    recv_queue: Queue,
    max_message: usize,
    send_buffer: Option<usize>,
    recv_buffer: Option<usize>,
    keepalive: Option<Duration>,
    handshake: Duration,
    frame_time: Option<Duration>,
    reconnect_first: Duration,
    reconnect_max: Duration,
    max_connections: usize,
    linger: Duration,
    requeue: bool,
    when_full: WhenFull,
    dialect: Dialect,
    survey_deadline: Duration,
    window: usize,
    resend: Option<Duration>,
    mark_resent: bool,
    again: Option<Bytes>,
    unanswered: usize,
    tls: TlsOptions,
}

/// How much a queue holds.
///
/// It has as many slots as it may hold messages, and a message takes one slot for each `bytes / messages` bytes of it
/// begun: so both bounds hold. A message that would take more slots than there are takes all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// At most this many messages, at least 1. Default: 1,024.
    pub messages: usize,
    /// At most this many bytes, a single larger message apart. Default: 4 MiB.
    pub bytes: usize,
}

impl Queue {
    /// A queue of at most `messages` messages, with 4 KiB for each.
    #[must_use]
    pub fn of(messages: usize) -> Self {
        Self { messages, bytes: messages.saturating_mul(4096) }
    }

    /// Sets [`Queue::messages`].
    #[must_use]
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// Sets [`Queue::bytes`].
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::of(1024)
    }
}

/// What PUB does with a subscriber that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Drops its oldest message, and counts it.
    #[default]
    DropOldest,
    /// Disconnects it, so that it notices. What its queue held is dropped, and counted.
    Disconnect,
}

/// Which numbers SURVEYOR and RESPONDENT speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// 0x62 and 0x63: nanomsg, NNG and mangos of today.
    #[default]
    Current,
    /// 0x60 and 0x61: mangos of 2015. Surveys are numbered from 0 without the top bit, and have exactly that one word
    /// before their payload, so that they pass no devices.
    Mangos2015,
}
