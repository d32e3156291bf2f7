#![doc = include_str!("../README.md")]

mod address;
mod conn;

mod endpoint;
mod engine;
mod error;
mod event;
mod frame;
mod hello;
mod inbox;
mod options;
mod outbox;
mod pull;
mod push;
mod slots;
mod socket;
mod stats;
mod sync;
mod tags;
mod tls;
mod transport;

pub use address::Address;
pub use error::{Error, Result};
pub use event::{Events, Peer, PeerEvent};
pub use options::{Dialect, Queue, SocketOptions, WhenFull};
pub use pull::Pull;
pub use push::Push;
pub use socket::Closed;
pub use stats::{Refusal, Stats};
pub use tls::TlsOptions;
