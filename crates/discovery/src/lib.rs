#![doc = include_str!("../README.md")]

mod board;
mod defaults;
mod desk;
mod entry;
mod error;
mod fields;
mod follow;
#[cfg(test)]
mod golden;
mod home;
mod host;
mod keys;
mod news;
mod options;
mod record;
mod registration;
mod registry;
mod roster;
mod secret;
mod service;
mod status;
mod worker;

pub use error::{Error, Result};
pub use host::{Host, Ports};
pub use news::{Changes, Credentials, RecordState, ServiceNews};
pub use options::RegistryOptions;
pub use registration::Registration;
pub use registry::Registry;
pub use secret::Secret;
pub use sereno_core as core;
pub use service::Service;
pub use status::{RegistrationState, RegistrationStatus};
