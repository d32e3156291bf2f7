#![doc = include_str!("../README.md")]

mod backlog;
mod cursor;
mod envelope;
mod error;
mod keys;
mod mark;
mod message;
mod options;
mod position;
mod publisher;
mod queue;
mod removal;
mod retention;
mod subscription;
mod topic;
mod worker;

pub use cursor::Acker;
pub use error::{Error, Result};
pub use message::{Delivery, Draft, Headers, Message};
pub use options::{From, MAX_HEADERS, MAX_PAYLOAD, NewCursor, Retention, SubscribeOptions, TopicOptions};
pub use position::{InvalidPosition, Position};
pub use publisher::{Publisher, Receipt};
pub use sereno_core as core;
pub use subscription::Subscription;
pub use topic::Topic;
