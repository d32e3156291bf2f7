#![doc = include_str!("../README.md")]

mod board;
mod client;
mod error;
pub mod etcd;
mod keys;
mod name;
mod options;
mod peers;
mod roster;
mod server;
mod stats;
mod subscriber;
mod task;
mod urls;
mod worker;

pub use board::PeersStream;
pub use client::Client;
pub use error::{Error, PublicationFault, Result};
pub use name::{MAX_NAME, NameFault};
pub use options::{ClientOptions, ServerOptions};
pub use peers::Peers;
pub use sereno_core as core;
pub use sereno_sp as sp;
pub use sereno_sp::{Address, Dialect};
pub use server::Server;
pub use stats::{ServerStats, SubscriberStats};
pub use subscriber::Subscriber;
pub use urls::Urls;
