#![doc = include_str!("../README.md")]

mod entry;
mod error;
mod fields;
mod host;
mod keys;
mod roster;
mod secret;
mod service;

pub use error::{Error, Result};
pub use host::{Host, Ports};
pub use secret::Secret;
pub use sereno_core as core;
pub use service::Service;
