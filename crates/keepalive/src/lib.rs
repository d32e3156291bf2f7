#![doc = include_str!("../README.md")]

mod announcement;
mod error;
mod group;
mod keepalive;
mod keys;
mod members;
mod options;

pub use announcement::Announcement;
pub use error::{Error, Result};
pub use group::{Group, Node};
pub use keepalive::KeepAlive;
pub use members::{Event, Members};
pub use options::KeepAliveOptions;
pub use sereno_core as core;
pub use sereno_core::{Conflict, PresenceState, PresenceStatus};
