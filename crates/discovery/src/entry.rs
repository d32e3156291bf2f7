//! A host together with where and since when it is stored.

use std::sync::Arc;

use sereno_core::{Key, KeyValue, spread};

use crate::host::Host;

/// One stored host.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) host: Arc<Host>,
    /// The revision at which its key was created: the age of the registration.
    pub(crate) created: i64,
    /// The revision at which it was last written.
    pub(crate) revision: i64,
    /// A number for its key, the same everywhere, for rendezvous hashing.
    pub(crate) id: u64,
}

impl Entry {
    /// Errors say what is wrong with the stored value and show nothing of it.
    pub(crate) fn read(kv: &KeyValue) -> Result<Self, String> {
        Ok(Self {
            host: Arc::new(Host::from_json(&kv.value)?),
            id: spread::hash(kv.key.as_bytes()),
            key: kv.key.clone(),
            created: kv.create_revision,
            revision: kv.mod_revision,
        })
    }

    /// Registrations by age; those of one transaction by key.
    pub(crate) fn rank(&self) -> (i64, &Key) {
        (self.created, &self.key)
    }
}
