//! A host together with where and since when it is stored.

use std::sync::Arc;

use sereno_core::{Key, KeyValue, Prefix, spread};

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

    /// As [`Entry::read`], refusing what does not lie directly below its service. How its name is spelled does not matter:
    /// others write names that we would escape.
    pub(crate) fn below(service: &Prefix, kv: &KeyValue) -> Result<Self, String> {
        match name_below(service, &kv.key) {
            Some(_) => Self::read(kv),
            None => Err("not directly below its service".into()),
        }
    }

    /// Whether it takes the same place in every list as another one under the same key.
    pub(crate) fn sits_as(&self, other: &Self) -> bool {
        self.created == other.created
            && self.host.draining == other.host.draining
            && self.host.shard == other.host.shard
    }

    /// Registrations by age; those of one transaction by key.
    pub(crate) fn rank(&self) -> (i64, &Key) {
        (self.created, &self.key)
    }
}

/// The last part of a key that lies directly below its service, as it is stored.
pub(crate) fn name_below<'a>(service: &Prefix, key: &'a Key) -> Option<&'a [u8]> {
    let name = key.as_bytes().strip_prefix(service.as_bytes())?;
    (!name.is_empty() && !name.contains(&b'/')).then_some(name)
}
