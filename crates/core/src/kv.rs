//! What is stored: one key with its value and revisions.

use std::fmt;

use bytes::Bytes;

use crate::key::Key;

/// A key as it was at some revision.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision at which the key was last created.
    pub create_revision: i64,
    /// The revision at which it was last written.
    pub mod_revision: i64,
    /// How often it was written since it was created.
    pub version: i64,
    pub(crate) lease: i64,
}

impl KeyValue {
    pub(crate) fn from_proto(kv: etcd_client::proto::PbKeyValue) -> Self {
        Self {
            key: Key::from_store(kv.key),
            value: kv.value.into(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    /// Whether the key lives only as long as some session does.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lease != 0
    }
}

/// Shows sizes only: values may hold credentials.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// All keys of a range as they were at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The store's revision at which the range was read.
    pub revision: i64,
    /// The keys, in key order.
    pub entries: Vec<KeyValue>,
}
