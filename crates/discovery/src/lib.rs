#![doc = include_str!("../README.md")]

mod balancer;
mod balancer_options;
mod board;
mod cache;
mod changes;
#[cfg(feature = "tonic")]
mod channel;
mod defaults;
mod desk;
mod directory;
mod directory_options;
mod entry;
mod error;
mod fake;
mod fields;
mod follow;
mod followed;
mod follower;
mod freshness;
#[cfg(test)]
mod golden;
mod guard;
mod health;
mod home;
mod host;
#[cfg(feature = "tower")]
mod host_discover;
mod hosts;
mod intake;
mod keys;
mod lookup;
mod lot;
mod mailbox;
mod news;
mod notice;
mod options;
mod picked;
mod query;
#[cfg(feature = "tower")]
mod reachable;
mod record;
mod registration;
mod registry;
mod roster;
mod seat;
mod secret;
mod service;
mod source;
mod state;
mod status;
mod subscription;
mod table;
mod telling;
mod traits;
mod url;
mod view;
mod view_status;
mod worker;

pub use balancer::{Balancer, HostStatus};
pub use balancer_options::{BalancerOptions, Strategy};
pub use changes::{Change, Changes};
#[cfg(feature = "tonic")]
pub use channel::{ChannelOptions, balanced_channel};
pub use directory::Directory;
pub use directory_options::{DirectoryOptions, GuardOptions};
pub use error::{Error, Result};
pub use fake::{FakeDirectory, FakeRegistry, FakeWorld};
pub use host::{Host, Ports};
#[cfg(feature = "tower")]
pub use host_discover::HostDiscover;
pub use hosts::Hosts;
pub use lookup::Lookup;
pub use news::{Credentials, RecordState, RegistrationChanges, ServiceNews};
pub use options::RegistryOptions;
pub use picked::Picked;
#[cfg(feature = "tower")]
pub use reachable::HostKey;
pub use registration::Registration;
pub use registry::Registry;
pub use secret::Secret;
pub use sereno_core as core;
pub use service::Service;
pub use status::{RegistrationState, RegistrationStatus};
pub use subscription::Subscription;
pub use traits::{ChangeStream, ServiceDirectory, ServiceRegistration, ServiceRegistry};
pub use view::View;
pub use view_status::{Malformed, Source, ViewStatus};
