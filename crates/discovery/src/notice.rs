//! What the follower of a service tells its streams.

use std::sync::Arc;

use sereno_core::Key;

use crate::host::Host;
use crate::service::Service;

/// One step of what is known.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// A host is there, or is different.
    Put {
        key: Key,
        host: Arc<Host>,
    },
    /// A host is not there any more.
    Gone {
        key: Key,
    },
    Record(Arc<Service>),
    Malformed {
        key: String,
        reason: String,
    },
    /// What follows is a difference, not history.
    Resync,
    Guarded {
        held: usize,
    },
    Released,
}

impl Notice {
    pub(crate) fn malformed(key: &Key, reason: String) -> Self {
        let key = key.to_string();
        tracing::warn!(key, reason, "passed over an entry of a service");
        Self::Malformed { key, reason }
    }
}
