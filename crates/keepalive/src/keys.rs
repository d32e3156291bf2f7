//! Where nodes are kept.
//!
//! ```text
//! sereno/keepalive/<group>/<node>     value: the node's own bytes; leased by the announcing session
//! ```

use sereno_core::{Client, Error, Key, Prefix};

/// The subtree of one group.
pub(crate) fn group(client: &Client, group: &str) -> Result<Prefix, Error> {
    Ok(client.namespace().prefix("keepalive")?.join(group)?)
}

/// The key of one node.
pub(crate) fn node(client: &Client, name: &str, node: &str) -> Result<Key, Error> {
    Ok(group(client, name)?.key(node)?)
}

/// The node's name; `None` for a key that no announcement wrote.
pub(crate) fn name(group: &Prefix, key: &Key) -> Option<String> {
    group.child(key)
}
