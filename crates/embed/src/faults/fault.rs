//! Faults of single requests, and the record of what was injected.

use std::fmt;
use std::time::Duration;

use super::call::Call;

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is not applied. The connection is reset, which breaks everything else on it too.
    LoseRequest,
    /// The request is applied. The connection is reset before the answer is sent, which breaks everything else on it too.
    LoseReply,
    /// The request is neither applied nor answered. The connection stays open.
    HangRequest,
    /// The request is applied but never answered. The connection stays open.
    HangReply,
    /// The request is applied, and answered, after this time.
    Delay(Duration),
    /// The request is applied at once and answered after this time.
    DelayReply(Duration),
    /// The request is refused with `Unavailable`, `etcdserver: server stopped`.
    Refuse,
    /// The request is refused with `Unavailable`, `etcdserver: no leader`.
    NoLeader,
    /// The request is refused with `ResourceExhausted`, `etcdserver: mvcc: database space exceeded`.
    OutOfSpace,
}

/// A random change of the server itself, made by [`Chaos`](crate::Chaos) before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// All watch and keepalive streams were ended.
    CutStreams,
    /// The lease with this id was expired.
    ExpireLease(i64),
    /// The history was compacted up to this revision.
    Compact(i64),
}

/// One entry of [`Faults::injected`](crate::Faults::injected).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The number of the request since the server started, from 1.
    pub number: u64,
    /// The kind of the request.
    pub call: Call,
    /// The fault of the request, if it had one.
    pub fault: Option<Fault>,
    /// The change of the server just before the request, if there was one.
    pub event: Option<Event>,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} ({}):", self.number, self.call)?;
        if let Some(event) = &self.event {
            write!(f, " {event:?}")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, " {fault:?}")?;
        }
        Ok(())
    }
}
