#![doc = include_str!("../README.md")]

mod door;
mod error;
mod gate;
mod group;
mod keys;
mod options;
mod roster;
mod state;
mod wait_group;
mod worker;

pub use error::{Error, Result};
pub use options::{CrashPolicy, EmptyWait, WaitGroupOptions};
pub use roster::{Died, Member};
pub use sereno_core as core;
pub use wait_group::WaitGroup;
pub use worker::Worker;
