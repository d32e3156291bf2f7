//! The same operations on sereno-embed and on a real etcd: every answer is compared, field by field.
//!
//! ```text
//! SERENO_ETCD_KIND=binary SERENO_ETCD_BIN=/usr/bin/etcd \
//!     cargo test -p sereno-embed --test differential -- --include-ignored --nocapture
//! ```
//!
//! `SERENO_DIFFERENTIAL_OPS`: how many random operations. `SERENO_DIFFERENTIAL_LEFT=http://...`: a real etcd in embed's
//! place, to see in what two versions differ.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

mod allowed;
mod answer;
mod ask;
mod compaction;
mod compare;
mod control;
mod display;
mod generate;
mod leases;
mod names;
mod op;
mod pair;
mod random;
mod reads;
mod shrink;
mod side;
mod transactions;
mod watch;
mod watches;
mod wire;
