//! Unix domain sockets in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use socket2::SockRef;
use tokio::net::{UnixListener, UnixStream};

use crate::options::SocketOptions;

/// The file of a listener. Dropping it deletes the file, unless another has been put in its place.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for File {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // It is gone already, or it may not be deleted: the next listener finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

pub(crate) async fn listen(path: &Path) -> io::Result<(UnixListener, File)> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path).await?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    Ok((bound?, File { path: path.to_owned(), identity: identity(path) }))
}

/// Deletes the socket file of a process that is gone. Only a refused connection proves that.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::debug!(path = %path.display(), "deleting the file of a socket that nobody listens on");
            fs::remove_file(path)
        }
        _ => Err(in_use()),
    }
}

/// Sets the sizes of buffers, without which the connection works as well.
pub(crate) fn prepare(stream: &UnixStream, options: &SocketOptions) {
    let socket = SockRef::from(stream);
    let mut set = Ok(());
    if let Some(size) = options.send_buffer {
        set = set.and(socket.set_send_buffer_size(size));
    }
    if let Some(size) = options.recv_buffer {
        set = set.and(socket.set_recv_buffer_size(size));
    }
    if let Err(error) = set {
        tracing::debug!(%error, "an option of a Unix socket was not set");
    }
}
