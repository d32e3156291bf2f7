#![doc = include_str!("../README.md")]

mod claim;
mod error;
mod group;
mod handler;
mod keys;
mod ledger;
mod member;
mod options;
mod place;
mod position;
mod positions;
mod release;
mod roster;
mod seat;
mod sequence;
mod share;
mod slot;
mod worker;

pub use claim::{Claim, ClaimLost};
pub use error::{Error, Result};
pub use handler::Handler;
pub use member::Member;
pub use options::{Assignment, OnLoss, SequenceOptions};
pub use position::{Invalid, Position, Standing};
pub use positions::Positions;
pub use sequence::Sequence;
pub use sereno_core as core;
pub use share::Moves;
