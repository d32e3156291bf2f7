//! One short program per recipe, in `examples/`: `cargo run --example counter`, and so on, with an etcd at `ETCD_ENDPOINTS` or
//! `http://127.0.0.1:2379`. Where there is none, `cargo run --package sereno-embed` in another terminal is one. And the tour, a
//! program that uses them all at once: `cargo xtask demo`, which starts an etcd by itself.

/// The workspace's README, so that its examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
