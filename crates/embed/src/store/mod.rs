//! The state machine: what etcd's server would have on its disk, and what its answers are. It knows nothing of networks,
//! tasks or time but what it is told.

mod check;
mod checksum;
mod compare;
mod history;
mod index;
mod lease;
#[cfg(test)]
mod model;
mod quota;
mod range;
mod refusal;
mod rollback;
mod span;
mod state;
mod status;
mod txn;
mod watch;
mod write;

pub(crate) use lease::Expiry;
pub(crate) use refusal::Refusal;
pub use rollback::RollBack;
pub(crate) use span::Span;
pub(crate) use state::{Identity, State};
pub(crate) use watch::{StreamId, Wanted};
