//! How a key that was ours came to be missing.

use sereno_core::{Client, Epoch};

/// Why a key is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was deleted underneath.
    Deleted,
    /// The lease was lost, and everything on it.
    Lease,
}

impl Loss {
    /// Why a key on this epoch's lease is missing: a watch may tell that before the epoch is known to have ended. One RPC.
    pub(crate) async fn of(client: &Client, epoch: &Epoch) -> Self {
        if !epoch.is_valid() {
            return Self::Lease;
        }
        match client.get(epoch.key()).await {
            Ok(Some(kv)) if kv.create_revision == epoch.token() => Self::Deleted,
            Ok(_) => {
                epoch.lost().await;
                Self::Lease
            }
            // It will be found out when it is to be written again.
            Err(_) => Self::Deleted,
        }
    }
}
