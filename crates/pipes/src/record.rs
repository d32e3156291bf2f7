//! What is stored: the address of a group.

use serde::{Deserialize, Serialize};
use sereno_core::KeyValue;
use sereno_sp::Address;

use crate::mode::Mode;

/// The longest stored value that is looked at, in bytes.
const MOST: usize = 4096;

/// Where a group's members connect to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) url: Address,
    pub(crate) mode: Mode,
    /// The group is there whether or not it has members.
    pub(crate) standing: bool,
}

/// As it is stored. Fields of later versions are passed over.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    mode: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    standing: bool,
}

impl Record {
    pub(crate) fn write(&self) -> Vec<u8> {
        let stored =
            Stored { url: self.url.to_string(), mode: self.mode.name().into(), standing: self.standing };
        // Strings and a bool cannot fail to be JSON.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// `None` for what no destination wrote.
    pub(crate) fn read(kv: &KeyValue) -> Option<Self> {
        if kv.value.len() > MOST {
            return None;
        }
        let stored: Stored = serde_json::from_slice(&kv.value).ok()?;
        Some(Self {
            url: stored.url.parse().ok()?,
            mode: stored.mode.parse().ok()?,
            standing: stored.standing,
        })
    }
}

/// The mode a member's key says; `None` for what no member wrote.
pub(crate) fn member_mode(kv: &KeyValue) -> Option<Mode> {
    std::str::from_utf8(&kv.value).ok()?.parse().ok()
}
