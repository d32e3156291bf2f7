//! Publishing without waiting for each message.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Result;
use crate::message::Draft;
use crate::position::Position;
use crate::queue::{Outcome, Ticket};
use crate::topic::Topic;

/// Publishes in order without waiting for each message: [`Topic::publisher`].
///
/// Messages are packed into batches while the batch before is under way. An error is never silent: the messages queued
/// behind a failed batch fail with it, and so does everything sent after it, until [`Publisher::flush`] has told the error.
/// What has been published is therefore always a beginning of what was sent, without a hole.
///
/// Dropping it leaves what is queued to be published in the background.
#[derive(Debug)]
#[must_use]
pub struct Publisher {
    topic: Topic,
    /// The batch that took the last message.
    last: Option<Arc<Outcome>>,
}

impl Publisher {
    pub(crate) fn new(topic: Topic) -> Self {
        Self { topic, last: None }
    }

    /// Queues a message; waits only while the queue is full
    /// ([`TopicOptions::queue_bytes`](crate::TopicOptions::queue_bytes)). The receipt may be dropped.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`](crate::Error::PayloadTooLarge), [`HeadersTooLarge`](crate::Error::HeadersTooLarge);
    /// [`QueueFull`](crate::Error::QueueFull) when there was no room within the client's deadline;
    /// [`Closed`](crate::Error::Closed); and the error of an earlier message of this publisher. Nothing was queued.
    ///
    /// # Cancel safety
    /// Dropping the future queues nothing.
    pub async fn send(&mut self, message: impl Into<Draft>) -> Result<Receipt> {
        let lane = self.topic.lane()?;
        let ticket = lane.queue.push(&message.into(), self.last.as_deref()).await?;
        match &self.last {
            Some(last) if Arc::ptr_eq(last, &ticket.outcome) => {}
            _ => self.last = Some(ticket.outcome.clone()),
        }
        Ok(Receipt { ticket })
    }

    /// As [`Publisher::send`], with a value as JSON.
    ///
    /// # Errors
    /// As [`Publisher::send`]; [`Error::Json`](crate::Error::Json).
    pub async fn send_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<Receipt> {
        self.send(Draft::json(value)?).await
    }

    /// Waits until everything sent through this publisher has been published.
    ///
    /// # Errors
    /// The first error since the last flush; what it means for the message is said at [`Topic::publish`]. After this the
    /// publisher can be used again.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn flush(&mut self) -> Result<()> {
        // Batches end in order, and a failed one takes those behind it along: the last one speaks for all.
        if let Some(last) = &self.last {
            let result = last.wait().await;
            self.last = None;
            result?;
        }
        Ok(())
    }
}

/// Stands for a message on its way: `receipt.await` gives its position. May be dropped.
#[derive(Debug, Clone)]
pub struct Receipt {
    ticket: Ticket,
}

impl Receipt {
    /// Waits until the message has been published. May be asked again.
    ///
    /// # Errors
    /// As [`Topic::publish`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing; the message is published all the same.
    pub async fn position(&self) -> Result<Position> {
        self.ticket.position().await
    }
}

impl IntoFuture for Receipt {
    type Output = Result<Position>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Position>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.position().await })
    }
}
