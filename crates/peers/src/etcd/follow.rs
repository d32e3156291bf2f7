//! Following a group.

use std::sync::Arc;

use sereno_core::{Prefix, Watcher};

use crate::board::Board;
use crate::error::Error;
use crate::keys;

/// Puts up every list of names until the watch ends.
pub(super) async fn follow(mut watcher: Watcher, group: Prefix, board: Arc<Board>) {
    board.post(keys::names(&group, watcher.view()));
    while let Some(update) = watcher.next().await {
        match update {
            Ok(_) => board.post(keys::names(&group, watcher.view())),
            Err(error) => board.fault(Error::Core(error)),
        }
    }
    board.end();
}
