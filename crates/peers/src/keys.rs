//! Where peers are kept, of the mode that stands on etcd.
//!
//! ```text
//! sereno/peers/<group>/<name>/<owner>     value: empty; leased by the client's session
//! ```
//!
//! The owner is the epoch in which the client was made and a number within its session, so that clients of one name do not
//! share a key.

use std::collections::BTreeSet;

use sereno_core::{Client, Error, Key, Prefix, Session, View};

/// The subtree of one group.
pub(crate) fn group(client: &Client, group: &str) -> Result<Prefix, Error> {
    Ok(client.namespace().prefix("peers")?.join(group)?)
}

/// A key of that name which nobody else has.
pub(crate) fn peer(session: &Session, group: &Prefix, name: &str) -> Result<Key, Error> {
    let owner = format!("{}-{}", session.epoch().id(), session.serial());
    Ok(group.join(name)?.key(owner)?)
}

/// The names of a group, in order, each once. Keys that no client wrote are left out.
pub(crate) fn names(group: &Prefix, view: &View) -> Vec<String> {
    let names: BTreeSet<String> = view.iter().filter_map(|kv| name(group, &kv.key)).collect();
    names.into_iter().collect()
}

fn name(group: &Prefix, key: &Key) -> Option<String> {
    let mut segments = group.parse(key)?.into_iter();
    let (name, _owner) = (segments.next()?, segments.next()?);
    if segments.next().is_some() { None } else { String::from_utf8(name).ok() }
}
