//! Who is there.

use std::fmt;

use bytes::Bytes;
use sereno_core::{Client, KeyValue, Prefix, View};

use crate::error::Result;
use crate::keys;
use crate::members::Members;

/// One announced node.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Bytes,
    /// The revision at which it joined. Later joins have higher ones, so the lowest is the oldest node.
    pub since: i64,
    /// The revision at which it was last announced or updated.
    pub revision: i64,
}

impl Node {
    /// `None` for what no announcement wrote.
    pub(crate) fn from_entry(group: &Prefix, kv: &KeyValue) -> Option<Self> {
        let name = keys::name(group, &kv.key)?;
        Some(Self { name, value: kv.value.clone(), since: kv.create_revision, revision: kv.mod_revision })
    }
}

/// Shows the value's size only: it may hold credentials.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("since", &self.since)
            .field("revision", &self.revision)
            .finish()
    }
}

/// The view of a group: needs no session, and takes no part in it.
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    name: String,
}

impl Group {
    /// The group of that name, empty or not. No I/O.
    pub fn new(client: &Client, name: impl Into<String>) -> Self {
        Self { client: client.clone(), name: name.into() }
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who is there, by name, as of one moment: a linearizable read. One RPC per 1,000 nodes.
    ///
    /// # Errors
    /// As any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn alive(&self) -> Result<Vec<Node>> {
        let prefix = self.prefix()?;
        let read = self.client.range(&prefix).await?;
        Ok(by_name(read.entries.iter().filter_map(|kv| Node::from_entry(&prefix, kv))))
    }

    /// One node, if it is there: a linearizable read. One RPC.
    ///
    /// # Errors
    /// As any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn get(&self, node: &str) -> Result<Option<Node>> {
        let prefix = self.prefix()?;
        let read = self.client.get(&keys::node(&self.client, &self.name, node)?).await?;
        Ok(read.and_then(|kv| Node::from_entry(&prefix, &kv)))
    }

    /// Reads who is there and follows it. When this returns, every later change will be seen. One RPC per 1,000 nodes;
    /// all watches of a client share a stream.
    ///
    /// # Errors
    /// As any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self) -> Result<Members> {
        let prefix = self.prefix()?;
        Ok(Members::new(self.client.watch(&prefix).await?, prefix))
    }

    /// Waits until at least `count` nodes are there at the same time, and gives them, by name.
    ///
    /// # Errors
    /// As any read of the core at first; then it waits through outages, without a deadline of its own.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn wait_for(&self, count: usize) -> Result<Vec<Node>> {
        let prefix = self.prefix()?;
        let enough = |view: &View| {
            let nodes = nodes(&prefix, view);
            (nodes.len() >= count).then_some(nodes)
        };
        Ok(self.client.watch(&prefix).await?.wait(enough).await?)
    }

    fn prefix(&self) -> Result<Prefix> {
        Ok(keys::group(&self.client, &self.name)?)
    }
}

/// The nodes of a view, by name.
pub(crate) fn nodes(group: &Prefix, view: &View) -> Vec<Node> {
    by_name(view.iter().filter_map(|kv| Node::from_entry(group, kv)))
}

/// Keys are sorted as they are escaped, which is not quite the order of the names.
fn by_name(nodes: impl Iterator<Item = Node>) -> Vec<Node> {
    let mut nodes: Vec<Node> = nodes.collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}
