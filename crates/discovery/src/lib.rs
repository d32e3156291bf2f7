#![doc = include_str!("../README.md")]

mod balancer;
mod balancer_options;
mod entry;
mod error;
mod fields;
mod health;
mod host;
mod hosts;
mod keys;
mod lot;
mod picked;
mod roster;
mod seat;
mod secret;
mod service;
mod source;
mod table;
mod url;

pub use balancer::{Balancer, HostStatus};
pub use balancer_options::{BalancerOptions, Strategy};
pub use error::{Error, Result};
pub use host::{Host, Ports};
pub use hosts::Hosts;
pub use picked::Picked;
pub use secret::Secret;
pub use sereno_core as core;
pub use service::Service;
