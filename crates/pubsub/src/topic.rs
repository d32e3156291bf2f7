//! The handle.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use sereno_core::Session;

use crate::cursor;
use crate::error::Result;
use crate::keys::Keys;
use crate::message::Draft;
use crate::options::{From, SubscribeOptions, TopicOptions};
use crate::position::Position;
use crate::publisher::Publisher;
use crate::removal;
use crate::subscription::{self, Subscription};
use crate::worker::Lane;

/// A topic: messages in one order that all subscribers see.
///
/// Clones are the same handle. Any number of handles, sessions and processes may publish to and subscribe to a topic of
/// the same name.
#[derive(Clone)]
pub struct Topic {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    name: String,
    keys: sereno_core::Result<Keys>,
    options: TopicOptions,
    lane: OnceLock<Arc<Lane>>,
}

impl Topic {
    /// The topic of that name. Any text that is not empty and has at most 255 bytes is a name; another one is an error of
    /// every verb. No RPC.
    #[must_use]
    pub fn new(session: &Session, name: impl Into<String>) -> Self {
        Self::with_options(session, name, TopicOptions::default())
    }

    /// As [`Topic::new`], with options. Those that make no sense are an error of every verb that publishes.
    #[must_use]
    pub fn with_options(session: &Session, name: impl Into<String>, options: TopicOptions) -> Self {
        let name = name.into();
        let keys = Keys::new(session.client().namespace(), &name);
        let inner = Inner { session: session.clone(), name, keys, options, lane: OnceLock::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Publishes a message and waits until it is committed, exactly once. Concurrent calls share a transaction. One RPC.
    ///
    /// ```no_run
    /// # async fn f(topic: &sereno_pubsub::Topic) -> sereno_pubsub::Result<()> {
    /// let position = topic.publish("hello").await?;
    /// println!("committed at {position}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`](crate::Error::PayloadTooLarge) and
    /// [`HeadersTooLarge`](crate::Error::HeadersTooLarge);
    /// [`QueueFull`](crate::Error::QueueFull); [`Closed`](crate::Error::Closed); as any write of the core. Whether the
    /// message may have been published nevertheless says
    /// [`Error::is_outcome_unknown`](crate::Error::is_outcome_unknown); otherwise it has not been.
    ///
    /// # Cancel safety
    /// Once the message is queued it is published even when the future is dropped.
    pub async fn publish(&self, message: impl Into<Draft>) -> Result<Position> {
        let ticket = self.lane()?.queue.push(&message.into(), None).await?;
        ticket.position().await
    }

    /// As [`Topic::publish`], with a value as JSON.
    ///
    /// # Errors
    /// As [`Topic::publish`]; [`Error::Json`](crate::Error::Json).
    ///
    /// # Cancel safety
    /// As [`Topic::publish`].
    pub async fn publish_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Position> {
        self.publish(Draft::json(value)?).await
    }

    /// A publisher, which does not wait for each message. No RPC.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    /// Subscribes with default options: see [`Topic::subscribe_with`].
    ///
    /// # Errors
    /// As [`Topic::subscribe_with`].
    pub async fn subscribe(&self, from: From) -> Result<Subscription> {
        self.subscribe_with(from, SubscribeOptions::default()).await
    }

    /// Subscribes. When this returns the subscription is ready: everything committed from then on will be seen, in
    /// commit order. One RPC; for [`From::Cursor`] two more; one per 1,000 batches where history has to be listed.
    ///
    /// The subscription does not need the session: it goes on when that is lost or closed.
    ///
    /// # Errors
    /// [`Error::PositionAhead`](crate::Error::PositionAhead) for a position of another store; as any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind, except that a cursor may have been created or taken over.
    pub async fn subscribe_with(&self, from: From, options: SubscribeOptions) -> Result<Subscription> {
        // Boxed, as below: what is asked of etcd makes large futures, and callers hold several of these.
        let opening: Pin<Box<dyn Future<Output = Result<Subscription>> + Send + '_>> =
            Box::pin(subscription::open(&self.inner.session, self.keys()?, from, options));
        opening.await
    }

    /// Removes the topic: its messages, cursors and count of publishes. Refused while another session that has published lives,
    /// or the session of another subscription to a cursor. `false` when there was no such topic. Three RPCs, one more per
    /// hundred batches and per hundred cursors.
    ///
    /// Subscriptions without a cursor leave no trace in etcd and do not hinder it: they go on with what is published next. Those
    /// with a cursor end with [`Error::CursorGone`](crate::Error::CursorGone). What is published after is a new topic of that
    /// name; what is published at the same time is of the one or of the other.
    ///
    /// ```no_run
    /// # async fn f(nightly: &sereno_pubsub::Topic) -> sereno_pubsub::Result<()> {
    /// if !nightly.remove().await? {
    ///     println!("there was no such topic");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`](crate::Error::InUse), then nothing was removed; as any write of the core, then some of it may have been,
    /// and calling it again removes the rest.
    ///
    /// # Cancel safety
    /// Dropping the future may leave some of it removed.
    pub async fn remove(&self) -> Result<bool> {
        Box::pin(removal::remove(&self.inner.session, self.keys()?, false)).await
    }

    /// As [`Topic::remove`], whoever uses the topic. A publish of others whose answer is lost at that moment may end with
    /// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown).
    ///
    /// # Errors
    /// As [`Topic::remove`], without [`Error::InUse`](crate::Error::InUse).
    ///
    /// # Cancel safety
    /// As [`Topic::remove`].
    pub async fn remove_forced(&self) -> Result<bool> {
        Box::pin(removal::remove(&self.inner.session, self.keys()?, true)).await
    }

    /// Removes a named cursor; its subscription can acknowledge no more. `false` when there was none. One RPC.
    ///
    /// # Errors
    /// As any write of the core.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the cursor removed or not.
    pub async fn remove_cursor(&self, name: &str) -> Result<bool> {
        Box::pin(cursor::remove(self.inner.session.client(), &self.keys()?.cursor(name)?)).await
    }

    /// Where a named cursor is, if there is one. One RPC.
    ///
    /// # Errors
    /// As any read of the core.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn cursor(&self, name: &str) -> Result<Option<Position>> {
        Box::pin(cursor::position(self.inner.session.client(), &self.keys()?.cursor(name)?)).await
    }

    pub(crate) fn keys(&self) -> Result<&Keys> {
        self.inner.keys.as_ref().map_err(|error| error.clone().into())
    }

    pub(crate) fn lane(&self) -> Result<&Arc<Lane>> {
        if let Some(lane) = self.inner.lane.get() {
            return Ok(lane);
        }
        self.inner.options.check()?;
        if self.inner.session.is_closed() {
            return Err(crate::Error::Closed);
        }
        let lane = Lane::of(&self.inner.session, self.keys()?, &self.inner.options);
        Ok(self.inner.lane.get_or_init(|| lane))
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_subscribes_reads_and_acknowledges_can_be_spawned() {
        fn sent<T: Send>(task: T) -> T {
            task
        }
        // Only the compiler looks at it: nothing is ever called.
        let _never_called = |topic: Topic| {
            sent(async move {
                let mut subscription = topic.subscribe(From::cursor("name")).await?;
                while let Some(message) = subscription.next_message().await {
                    subscription.ack(&message?.position).await?;
                }
                Ok::<_, crate::error::Error>(())
            })
        };
    }
}
