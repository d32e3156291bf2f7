#![doc = include_str!("../README.md")]

mod backoff;
mod classify;
mod client;
mod clock;
mod commit;
mod epoch;
mod error;
mod heart;
mod key;
mod kv;
mod lease;
mod marker;
mod options;
pub mod pace;
mod picker;
mod presence;
mod read;
mod session;
mod txn;
mod watch;

pub use backoff::Step;
pub use client::{Client, Range};
pub use commit::Settled;
pub use epoch::Epoch;
pub use error::{Cause, Error, LostReason, Result};
pub use key::{Key, KeyError, MAX_KEY, MAX_SEGMENT, Namespace, Prefix};
pub use kv::{KeyValue, Snapshot};
pub use lease::Timer;
pub use marker::Once;
pub use options::{ConnectOptions, Credentials, Tls};
pub use presence::{Conflict, Presence, PresenceState, PresenceStatus};
pub use session::{Session, SessionEvents, SessionOptions, SessionState, SessionStatus, WeakSession};
pub use tokio_util::sync::CancellationToken;
pub use txn::{Compare, MAX_OPS, MAX_REQUEST, Op, Outcome, Reply, Txn};
pub use watch::{Change, Changes, Event, EventKind, Overflow, Tail, TailItem, Update, View, Watcher};
