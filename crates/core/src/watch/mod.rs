//! Watching: many logical watches on one stream, resumed without gap or duplicate.
//!
//! ```text
//! Watcher   a view: state at a revision, then every change to it; a lost history becomes a Resync with the difference
//!    |
//! Tail      the log: every change of a range from a revision on, whole revisions; a lost history is reported
//!    |
//! Hub       one task per client: one etcd watch stream for all of them; finds silence, changes member, resumes
//! ```

mod event;
mod hub;
mod pump;
mod queue;
mod silence;
mod tail;
mod view;
mod watcher;

pub use event::{Changes, Event, EventKind};
pub(crate) use hub::Hub;
pub use queue::Overflow;
pub use tail::{Tail, TailItem};
pub use view::View;
pub use watcher::{Change, Update, Watcher};
