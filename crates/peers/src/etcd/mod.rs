//! Peers on etcd: without a server of their own, and so without a single point of failure.

mod client;
mod follow;
mod subscriber;

pub use client::Client;
pub use subscriber::Subscriber;
