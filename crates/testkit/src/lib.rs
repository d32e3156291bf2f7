//! The harness of all tests that need an etcd: members to start, pause and kill, proxies that break wires, certificates
//! good and bad, a raw client that sees what really happened. Unpublished; never a dependency of published code.
//!
//! ```no_run
//! use sereno_testkit::{Cluster, Proxy, fresh_namespace, shared};
//!
//! # async fn test() {
//! let endpoints = shared().await;                      // merely an etcd: shared with other tests
//! let namespace = fresh_namespace("adds_are_counted"); // so every test works in a place of its own
//!
//! let cluster = Cluster::start(3).await;               // one to break
//! let proxy = Proxy::to(cluster.member(0).endpoint()).await;
//! proxy.drop_responses().await;                        // etcd hears us, we do not hear etcd
//! cluster.kill_leader().await;
//! # }
//! ```
//!
//! # Where etcd comes from
//! | variable | meaning |
//! |---|---|
//! | `ETCD_ENDPOINTS` | comma-separated URLs of an etcd that runs already: [`shared`] uses it. [`Member`] and [`Cluster`] never do, because they break what they use |
//! | `SERENO_ETCD_KIND` | `docker`: containers of `SERENO_ETCD_IMAGE`; `binary`: child processes of `SERENO_ETCD_BIN`; `embed`: embedded servers (`sereno-embed`) inside the test process. Anything missing is an error, never a silent second choice |
//! | `SERENO_ETCD_IMAGE` | name and tag of an image whose entry point is etcd. Nothing is pulled |
//! | `SERENO_ETCD_BIN` | path of an `etcd` executable |
//!
//! Without a kind: containers when the image is there, else the executable if one is named, else `etcd` on `PATH`, else
//! embedded servers, and that is said. `cargo xtask test` sets these variables.
//!
//! An embedded server is one member in memory. It is killed, frozen, wiped and started again like any other, but knows no TLS,
//! no authentication, no flags and no disk: to ask for one of these is a panic, and a test that does says so in its attribute
//! (`#[ignore = "needs a real etcd: TLS"]`), so that `cargo xtask test` leaves it out and counts it.
//!
//! Containers run through testcontainers, on the host's network and with their data in a mounted folder, so that a
//! container and a process listen on the same kind of address with the same flags. That needs a Docker daemon on this machine.
//!
//! # Seeds
//! What needs no real etcd runs against one in the process, by seeds: see [`Seeds`] and [`Stage`]. `SERENO_SEED=n` plays
//! one seed of every seeded test again and tells what happened, as `cargo xtask test --seed n` does; `SERENO_SEEDS=n`
//! plays n of them.
//!
//! # Other implementations
//! [`Tool`] runs `nngcat` and `nanocat`. What they are needed for is left out, with a word, where they are missing;
//! `SERENO_REQUIRE_INTEROP=1` makes that a failure.
//!
//! # What is left behind
//! Nothing. Dropping a [`Member`], [`Cluster`] or [`ChildProcess`] kills it and deletes its data. When the test process
//! itself dies, however it dies, a waiting shell removes what it had, and where `setpriv` exists the kernel kills its
//! children at once.

// A harness is read through its failures: a panic with a clear message is its way to fail a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod blackhole;
pub mod child;
mod cluster;
mod container;
mod embedded;
mod engine;
mod eventually;
mod member;
mod metrics;
mod oracle;
mod place;
mod process;
mod proxy;
mod reaper;
mod seeds;
mod shared;
mod source;
mod spec;
mod stage;
mod tls;
mod tool;
mod wire;

pub use blackhole::BlackHole;
pub use child::{ChildHost, ChildProcess};
pub use cluster::{Builder, Cluster};
pub use eventually::eventually;
pub use member::Member;
pub use metrics::{Metrics, metrics};
pub use oracle::{Oracle, enable_auth, raw, raw_with};
pub use proxy::{Flaky, Mode, Proxy, ProxyStats};
/// The server of seeded runs, for the names of its faults.
pub use sereno_embed as embed;

pub use seeds::{Seeds, Trace};
pub use shared::{fresh_namespace, shared};
pub use source::Source;
pub use stage::Stage;
pub use tls::{Authority, Identity, TlsMaterial};
pub use tool::Tool;
