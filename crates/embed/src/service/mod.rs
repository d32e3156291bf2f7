//! etcd's gRPC services, one file each.

mod absent;
mod cluster;
mod kv;
mod lease;
mod maintenance;
mod watch;

pub(crate) use absent::absent;
pub(crate) use cluster::Cluster;
pub(crate) use kv::Kv;
pub(crate) use lease::Lease;
pub(crate) use maintenance::Maintenance;
pub(crate) use watch::Watch;
