//! What a socket has done so far.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Address;

/// Why a peer was not let in, or was shown out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Its first bytes are not those of a scalability protocol.
    NotSp,
    /// It speaks another version of the hello than 0.
    Version,
    /// The reserved bytes of its hello are not zero.
    Reserved,
    /// It is a socket of another kind than this one talks to.
    WrongProtocol,
    /// It did not say its hello in time.
    HandshakeTimeout,
    /// It went away before it had said its hello.
    HandshakeBroken,
    /// TLS with it failed: its certificate, or that it speaks no TLS.
    Tls,
    /// It announced a message larger than the limit.
    TooLarge,
    /// A message did not begin as it must.
    BadFrame,
    /// A message it had begun did not come to its end in time.
    Stalled,
    /// It sent a message where its kind of socket may not.
    Unexpected,
    /// A message had passed more devices than allowed.
    TooManyHops,
    /// A survey, request or answer had no number.
    BadHeader,
    /// The socket had as many connections as it may have.
    TooMany,
    /// A subscriber did not keep up ([`WhenFull::Disconnect`](crate::WhenFull::Disconnect)).
    TooSlow,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::NotSp,
        Self::Version,
        Self::Reserved,
        Self::WrongProtocol,
        Self::HandshakeTimeout,
        Self::HandshakeBroken,
        Self::Tls,
        Self::TooLarge,
        Self::BadFrame,
        Self::Stalled,
        Self::Unexpected,
        Self::TooManyHops,
        Self::BadHeader,
        Self::TooMany,
        Self::TooSlow,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSp => "speaks no scalability protocol",
            Self::Version => "unknown version of the hello",
            Self::Reserved => "reserved bytes are not zero",
            Self::WrongProtocol => "a socket of another kind",
            Self::HandshakeTimeout => "no hello in time",
            Self::HandshakeBroken => "went away before its hello",
            Self::Tls => "TLS failed",
            Self::TooLarge => "message over the limit",
            Self::BadFrame => "message begins wrongly",
            Self::Stalled => "message did not come to its end in time",
            Self::Unexpected => "message where none may come",
            Self::TooManyHops => "message came over too many hops",
            Self::BadHeader => "message without a number",
            Self::TooMany => "too many connections",
            Self::TooSlow => "subscriber did not keep up",
        })
    }
}

/// A picture of a socket's counts. They only grow, save where it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections up now.
    pub connections: u64,
    /// Connections accepted whose handshake succeeded.
    pub accepted: u64,
    /// Connections dialled whose handshake succeeded.
    pub dialled: u64,
    /// Attempts to dial that failed before a handshake: nobody listens there, the name is unknown.
    pub dial_failures: u64,
    /// Messages handed to the system, or to the peer when it is in this process.
    pub messages_out: u64,
    /// Their bytes, with the numbers of requests and surveys, without lengths.
    pub bytes_out: u64,
    /// Messages that came, before subscriptions chose among them.
    pub messages_in: u64,
    /// Their bytes, with the numbers of requests and surveys, without lengths.
    pub bytes_in: u64,
    /// Messages accepted and then dropped: a queue was full (PUB, SURVEYOR), or their connection was lost before they were
    /// written. What a system buffer held when its connection broke is in no count.
    pub dropped: u64,
    /// Messages taken back from a lost connection to be sent elsewhere (PUSH, REQ).
    pub requeued: u64,
    /// Requests sent once more because no answer came in time (REQ).
    pub resent: u64,
    /// Answers to nothing that is open: to an earlier survey, or a second answer to a request. They were ignored.
    pub late: u64,
    /// Accepted and neither handed over nor, for REQ, answered now. Falls again.
    pub pending: u64,
    /// The addresses that are dialled and could not be reached at the last attempt. Empty when all are well.
    pub unreachable: Vec<DialFailure>,
    refused: [u64; Refusal::ALL.len()],
}

/// Why an address cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialFailure {
    /// The address that is dialled.
    pub address: Address,
    /// The system's reason at the last attempt.
    pub reason: String,
}

impl Stats {
    /// How many peers were refused for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or_default()
    }

    /// How many peers were refused.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// The counts themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) dialled: AtomicU64,
    pub(crate) dial_failures: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) requeued: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) late: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counters {
    pub(crate) fn refuse(&self, why: Refusal) {
        if let Some(count) = self.refused.get(why as usize) {
            add(count, 1);
        }
    }

    pub(crate) fn picture(&self, connections: u64, pending: u64, unreachable: Vec<DialFailure>) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            connections,
            accepted: read(&self.accepted),
            dialled: read(&self.dialled),
            dial_failures: read(&self.dial_failures),
            messages_out: read(&self.messages_out),
            bytes_out: read(&self.bytes_out),
            messages_in: read(&self.messages_in),
            bytes_in: read(&self.bytes_in),
            dropped: read(&self.dropped),
            requeued: read(&self.requeued),
            resent: read(&self.resent),
            late: read(&self.late),
            pending,
            unreachable,
            refused: std::array::from_fn(|index| self.refused.get(index).map(read).unwrap_or_default()),
        }
    }
}

/// Adds to a count.
pub(crate) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}
