//! Temporary folders and free ports.

use std::net::TcpListener;
use std::path::Path;

use rand::Rng;
use tempfile::TempDir;

use crate::reaper;

/// A new temporary folder: in memory where the system has `/dev/shm`, because etcd's start and its writes are then not
/// at the mercy of a busy disk.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix(reaper::FOLDER_PREFIX);
    let folder = match builder.tempdir_in(memory) {
        Ok(folder) => folder,
        // No such place, or not for us: the ordinary temporary folder does too, a little slower.
        Err(_) => builder.tempdir().expect("the system must grant a temporary folder"),
    };
    reaper::folder(folder.path());
    folder
}

/// A port that nobody listens on right now.
///
/// Below the range the kernel hands out for outgoing connections and for port 0, so that a stopped member finds its
/// port still free when it comes back.
pub(crate) fn port() -> u16 {
    for _ in 0..200 {
        let port = rand::rng().random_range(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("200 ports tried between 15000 and 32000, none is free");
}
