//! Where destinations and groups are kept.
//!
//! ```text
//! sereno/pipes/<destination>/owner                        who has registered it; leased by its session
//! sereno/pipes/<destination>/group/<group>/address        {"url":"tcp://...","mode":"push"}; leased by the destination's session
//! sereno/pipes/<destination>/group/<group>/member/<id>    the group's mode; leased by the member's session
//! ```
//! A destination is there when its owner's key is. Members write below their group alone.

use sereno_core::{Client, Key, KeyError, Prefix};

/// The keys of one destination.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// Everything of the destination.
    pub(crate) all: Prefix,
    pub(crate) owner: Key,
    groups: Prefix,
}

/// The keys of one group.
#[derive(Debug, Clone)]
pub(crate) struct GroupKeys {
    /// Everything of the group.
    pub(crate) all: Prefix,
    pub(crate) address: Key,
    members: Prefix,
}

/// What a key below a destination's group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Address,
    Member,
}

impl Keys {
    pub(crate) fn new(client: &Client, destination: &str) -> Result<Self, KeyError> {
        let all = client.namespace().prefix("pipes")?.join(destination)?;
        let owner = all.key("owner")?;
        let groups = all.join("group")?;
        Ok(Self { all, owner, groups })
    }

    pub(crate) fn group(&self, group: &str) -> Result<GroupKeys, KeyError> {
        let all = self.groups.join(group)?;
        let address = all.key("address")?;
        let members = all.join("member")?;
        Ok(GroupKeys { all, address, members })
    }

    /// The group a key belongs to and what it is there; `None` for what none of us writes.
    pub(crate) fn parse(&self, key: &Key) -> Option<(String, Entry)> {
        let mut names = self.groups.parse(key)?.into_iter();
        let group = String::from_utf8(names.next()?).ok()?;
        let entry = match (names.next()?.as_slice(), names.next(), names.next()) {
            (b"address", None, None) => Entry::Address,
            (b"member", Some(_), None) => Entry::Member,
            _ => return None,
        };
        Some((group, entry))
    }
}

impl GroupKeys {
    pub(crate) fn member(&self, id: &str) -> Result<Key, KeyError> {
        self.members.key(id)
    }

    pub(crate) fn is_member(&self, key: &Key) -> bool {
        self.members.child(key).is_some()
    }
}
