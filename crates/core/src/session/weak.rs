//! A session seen from its own tasks.

use std::fmt;
use std::sync::Arc;

use super::Shared;
use crate::client::Client;
use crate::epoch::Epoch;
use crate::error::Result;

/// A [`Session`](crate::Session) for its own tasks: does not keep it open.
#[derive(Clone)]
pub struct WeakSession {
    shared: Arc<Shared>,
}

impl WeakSession {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// As [`Session::client`](crate::Session::client).
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// As [`Session::serial`](crate::Session::serial).
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.shared.serial()
    }

    /// As [`Session::epoch`](crate::Session::epoch).
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epochs.borrow().clone()
    }

    /// As [`Session::next_epoch`](crate::Session::next_epoch).
    ///
    /// # Errors
    /// As [`Session::next_epoch`](crate::Session::next_epoch).
    pub async fn next_epoch(&self, after: u64) -> Result<Epoch> {
        self.shared.next_epoch(after).await
    }

    /// As [`Session::live_epoch`](crate::Session::live_epoch).
    ///
    /// # Errors
    /// As [`Session::live_epoch`](crate::Session::live_epoch).
    pub async fn live_epoch(&self) -> Result<Epoch> {
        self.shared.live_epoch().await
    }
}

impl WeakSession {
    /// As [`Session::within_time_to_close`](crate::Session::within_time_to_close).
    ///
    /// # Errors
    /// As [`Session::within_time_to_close`](crate::Session::within_time_to_close).
    pub async fn within_time_to_close<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.shared.within_time_to_close(work).await
    }
}

impl fmt::Debug for WeakSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSession").finish_non_exhaustive()
    }
}
