#![doc = include_str!("../README.md")]

mod changes;
mod counter;
mod error;
mod keys;
mod options;

pub use changes::Changes;
pub use counter::Counter;
pub use error::{Error, Result};
pub use options::CounterOptions;
pub use sereno_core as core;
