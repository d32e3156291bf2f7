//! Positions handed to a callback, as etcdseq (Go) does it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::position::Standing;
use crate::positions::Positions;

/// Is told of a member's positions: see [`Sequence::join_with`](crate::Sequence::join_with).
///
/// One call at a time, in order, on a task of its own: one that takes long misses positions in between, never the last one,
/// and one that panics is called again with the next. Neither holds up the member, its leaving or its session.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The position has changed, or has become invalid.
    async fn on_change(&self, standing: Standing);
}

/// Positions go into the channel; while it is full the newest one waits. A receiver that was dropped is no error.
#[async_trait]
impl Handler for mpsc::Sender<Standing> {
    async fn on_change(&self, standing: Standing) {
        let _ = self.send(standing).await;
    }
}

/// Calls the handler until the last position was told.
pub(crate) async fn deliver(mut positions: Positions, handler: Arc<dyn Handler>) {
    while let Some(standing) = positions.next().await {
        let handler = handler.clone();
        // A task of its own, so that a panic ends nothing else.
        let call = tokio::spawn(async move { handler.on_change(standing).await });
        if let Err(error) = call.await {
            tracing::warn!(%error, "a handler of positions failed");
        }
    }
}
