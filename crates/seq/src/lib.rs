#![doc = include_str!("../README.md")]

pub use sereno_core as core;
