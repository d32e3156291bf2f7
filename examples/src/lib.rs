//! One short program per recipe, in `examples/`: `cargo run --example counter`, and so on. And the tour, a program that
//! uses them all at once: `cargo xtask demo`.

/// The workspace's README, so that its examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
