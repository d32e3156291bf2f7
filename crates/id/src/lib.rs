#![doc = include_str!("../README.md")]

mod clock;
mod error;
mod generator;
mod keys;
mod layout;
mod options;
mod slots;
mod worker;

pub use clock::Clock;
pub use error::{Error, Result};
pub use generator::IdGenerator;
pub use layout::{Parts, decompose};
pub use options::{IdOptions, MAX_WORKERS};
pub use sereno_core as core;
