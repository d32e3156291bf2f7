#![doc = include_str!("../README.md")]

mod builder;
mod clock;
mod ending;
mod engine;
mod error;
mod faults;
mod http;
mod server;
mod service;
mod status;
mod store;
mod version;
mod wire;

pub use builder::Builder;
pub use clock::Clock;
pub use error::{Error, Result};
pub use faults::{Call, Chaos, Event, Fault, Faults, Injected};
pub use server::Server;
pub use status::Status;
pub use store::RollBack;
pub use version::Version;
