//! Under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common_directory/mod.rs"]
mod common_directory;
mod directory;
mod register;
