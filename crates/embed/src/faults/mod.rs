//! Faults on command.

mod call;
mod chaos;
mod fault;
mod gate;
mod handle;
mod plan;

pub use call::Call;
pub use chaos::Chaos;
pub use fault::{Event, Fault, Injected};
pub(crate) use gate::Passage;
pub use handle::Faults;
pub(crate) use plan::Plan;
