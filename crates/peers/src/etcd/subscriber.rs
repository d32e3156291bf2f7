//! Who is there, on etcd.

use std::fmt;
use std::sync::Arc;

use super::follow::follow;
use crate::board::{Board, PeersStream};
use crate::error::Result;
use crate::keys;
use crate::task::Task;

/// Follows a group without being seen. Needs no session.
///
/// Dropping it ends it, in the background.
#[must_use = "dropping a subscriber ends it"]
pub struct Subscriber {
    group: String,
    board: Arc<Board>,
    task: Task,
}

impl Subscriber {
    /// Reads who is there and follows it. When this returns, every later change will be told. One RPC per 1,000 clients; all
    /// watches of an etcd client share a stream.
    ///
    /// # Errors
    /// As any read of the core; a group's name that is empty or longer than 255 bytes.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(client: &sereno_core::Client, group: impl Into<String>) -> Result<Self> {
        let group = group.into();
        let prefix = keys::group(client, &group)?;
        let (watcher, board) = (client.watch(&prefix).await?, Arc::new(Board::new()));
        let task = Task::spawn(follow(watcher, prefix, Arc::clone(&board)))?;
        Ok(Self { group, board, task })
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Who is there. Independent of other streams.
    pub fn changes(&self) -> PeersStream {
        self.board.stream()
    }

    /// Ends it: when this returns its task has ended, and its streams end. May be called again. No RPC.
    ///
    /// # Cancel safety
    /// Cancelled: it has ended or will; call it again to wait for it.
    pub async fn cancel(&self) {
        self.board.end();
        self.task.stop().await;
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.board.end();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("group", &self.group).finish_non_exhaustive()
    }
}
