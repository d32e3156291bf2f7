//! What can go wrong with one request.

use std::fmt;
use std::time::Duration;

use super::call::Call;

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Not applied; the connection is reset, and with it everything else on it.
    LoseRequest,
    /// Applied; the connection is reset before the answer is on it.
    LoseReply,
    /// Not applied and never answered. The connection stays.
    HangRequest,
    /// Applied and never answered. The connection stays.
    HangReply,
    /// Applied so much later.
    Delay(Duration),
    /// Applied at once, answered so much later.
    DelayReply(Duration),
    /// Not applied: `Unavailable`, `etcdserver: server stopped`.
    Refuse,
    /// Not applied: `Unavailable`, `etcdserver: no leader`.
    NoLeader,
    /// Not applied: `ResourceExhausted`, `etcdserver: mvcc: database space exceeded`.
    OutOfSpace,
}

/// What was done to the server beside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// All watch and keepalive streams were ended.
    CutStreams,
    /// This lease was ended, as if its time were up.
    ExpireLease(i64),
    /// The history was compacted up to this revision.
    Compact(i64),
}

/// One fault that has been injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The number of the request since the server was started, from 1.
    pub number: u64,
    /// What kind of request it was.
    pub call: Call,
    /// What was done to it.
    pub fault: Option<Fault>,
    /// What was done to the server just before it.
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
