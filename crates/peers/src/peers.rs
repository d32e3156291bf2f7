//! What both modes have in common.

use std::fmt;

use async_trait::async_trait;

use crate::board::PeersStream;
use crate::error::Result;

/// A peer that is seen by others and sees them: by survey ([`Client`](crate::Client)) or on etcd
/// ([`etcd::Client`](crate::etcd::Client)). A service that holds a `Box<dyn Peers>` need not know which.
#[async_trait]
pub trait Peers: fmt::Debug + Send + Sync {
    /// The name by which it is seen.
    fn name(&self) -> &str;

    /// Who is there, itself included: the list as it is, then again after each change. Independent of other streams.
    ///
    /// # Errors
    /// [`Error::NoSubscription`](crate::Error::NoSubscription) in survey mode, when made without one.
    fn peers(&self) -> Result<PeersStream>;

    /// Is not there any more, and ends its streams. May be called again. Bounded in time, also with all servers gone.
    ///
    /// # Errors
    /// On etcd, when the key could not be deleted within the client's deadline: it goes with the session. Never in survey
    /// mode.
    ///
    /// # Cancel safety
    /// Cancelled: it ends all the same.
    async fn cancel(&self) -> Result<()>;
}
