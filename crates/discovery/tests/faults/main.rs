//! What breaks underneath, and what becomes of registrations and views then.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common_directory/mod.rs"]
mod common_directory;
#[path = "../common_register/mod.rs"]
mod common_register;
mod disk;
mod follow;
mod guard;
mod register;
