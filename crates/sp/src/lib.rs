#![doc = include_str!("../README.md")]

mod address;
mod answering;
mod conn;

mod endpoint;
mod engine;
mod error;
mod event;
mod filter;
mod frame;
mod hello;
mod inbox;
mod options;
mod outbox;
mod publish;
mod pull;
mod push;
mod rep;
mod req;
mod requests;
mod respondent;
mod slots;
mod socket;
mod stats;
mod subscribe;
mod surveyor;
mod sync;
mod tags;
mod tls;
mod transport;

pub use address::Address;
pub use error::{Error, Result};
pub use event::{Events, Peer, PeerEvent};
pub use options::{Dialect, Queue, SocketOptions, WhenFull};
pub use publish::Pub;
pub use pull::Pull;
pub use push::Push;
pub use rep::{Rep, Request};
pub use req::{Req, Ticket};
pub use respondent::{Question, Respondent};
pub use socket::Closed;
pub use stats::{Refusal, Stats};
pub use subscribe::Sub;
pub use surveyor::{Answer, Survey, Surveyor};
pub use tls::TlsOptions;
