//! What happened to a key.

use crate::kv::KeyValue;

/// What kind of change an [`Event`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "etcd has no other, and unknown kinds are dropped at the door")]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was deleted, or its lease ended.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is now; for a deletion only the key and `mod_revision`, the revision of the deletion, are set.
    pub kv: KeyValue,
}

impl Event {
    /// `None` for what this version does not know: remote data is never trusted to be complete.
    pub(crate) fn from_proto(event: etcd_client::proto::PbEvent) -> Option<Self> {
        let kind = match event.r#type {
            0 => EventKind::Put,
            1 => EventKind::Delete,
            _ => return None,
        };
        Some(Self { kind, kv: KeyValue::from_proto(event.kv?) })
    }

    pub(crate) fn size(&self) -> usize {
        self.kv.key.as_bytes().len() + self.kv.value.len() + 96
    }
}

/// Everything one transaction changed in a watched range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The transaction's revision.
    pub revision: i64,
    /// What it changed, in etcd's order.
    pub events: Vec<Event>,
}

impl Changes {
    pub(crate) fn size(&self) -> usize {
        self.events.iter().map(Event::size).sum()
    }
}
