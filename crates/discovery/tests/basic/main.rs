//! Registering, looking up, following, choosing: nothing breaks.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod choose;
mod choosing;
#[path = "../common_directory/mod.rs"]
mod common_directory;
#[path = "../common_register/mod.rs"]
mod common_register;
mod cost;
mod directory;
mod eject;
mod fake;
mod follow;
mod register;
mod secrets;
mod traits;
mod url;
