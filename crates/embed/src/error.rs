//! Why a server does not start.

use std::io;
use std::net::SocketAddr;

/// What can go wrong with a server itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address is not one of this machine alone: anyone who reaches it could read and write everything.
    #[error("{address} is not a loopback address: sereno-embed has neither TLS nor authentication")]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
}

/// A result with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
