//! The handle of one node.

use std::fmt;

use bytes::Bytes;
use sereno_core::Session;

use crate::announcement::Announcement;
use crate::error::{Error, Result};
use crate::keys;
use crate::options::KeepAliveOptions;

/// A node of a group, to be announced.
///
/// Making one does nothing; clones are the same node. Names may have any characters, and 1 to 255 bytes.
#[derive(Clone)]
pub struct KeepAlive {
    session: Session,
    group: String,
    node: String,
    options: KeepAliveOptions,
}

impl KeepAlive {
    /// A node called `node` in `group`, with default options. No I/O.
    pub fn new(session: &Session, group: impl Into<String>, node: impl Into<String>) -> Self {
        Self::with_options(session, group, node, KeepAliveOptions::default())
    }

    /// As [`KeepAlive::new`], with options. No I/O.
    pub fn with_options(
        session: &Session,
        group: impl Into<String>,
        node: impl Into<String>,
        options: KeepAliveOptions,
    ) -> Self {
        Self { session: session.clone(), group: group.into(), node: node.into(), options }
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Announces the node with any bytes as its value, and keeps it announced until it leaves, is displaced, or the
    /// session is closed. When this returns, others see it. One RPC, two when another session's is taken over.
    ///
    /// Announcing the same node twice on one session makes two announcements of one key: the last value wins, and the
    /// first one to leave takes the key away until the other restores it. Keep one.
    ///
    /// # Errors
    /// [`Error::NameTaken`] under [`Conflict::Refuse`](sereno_core::Conflict::Refuse); names that are empty or too long;
    /// as any call of the core.
    ///
    /// # Cancel safety
    /// When the future is dropped the key is deleted again if it was written.
    pub async fn announce(&self, value: impl Into<Bytes>) -> Result<Announcement> {
        let key = keys::node(self.session.client(), &self.group, &self.node)?;
        let kept = self.session.keep(&key, value, self.options.conflict).await;
        let presence = kept.map_err(|error| self.name_taken(error))?;
        Ok(Announcement::new(presence, self.clone()))
    }

    pub(crate) fn name_taken(&self, error: sereno_core::Error) -> Error {
        match error {
            sereno_core::Error::NameTaken => {
                Error::NameTaken { group: self.group.clone(), node: self.node.clone() }
            }
            error => Error::Core(error),
        }
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive")
            .field("group", &self.group)
            .field("node", &self.node)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
