#![doc = include_str!("../README.md")]

mod board;
mod delivery;
mod destination;
mod error;
mod follower;
mod group;
mod groups;
mod keys;
mod line;
mod loss;
mod member;
mod mode;
mod options;
mod owner;
mod patience;
mod pipe;
mod place;
mod record;
mod registration;
mod stats;
mod worker;

pub use delivery::Delivery;
pub use destination::Destination;
pub use error::{Error, Result};
pub use group::Group;
pub use groups::{GroupChange, GroupChanges, GroupInfo};
pub use member::{Member, MemberState, MemberStatus};
pub use mode::Mode;
pub use options::{DestinationOptions, GroupOptions, WhenFull};
pub use registration::{Registration, RegistrationState, RegistrationStatus};
pub use sereno_core as core;
pub use sereno_sp as sp;
pub use stats::{GroupStats, Stats};
