//! The record of a service as it is followed, through whatever may end a watch.

use std::pin::Pin;
use std::time::Duration;

use sereno_core::{Client, Error, Key, Result, View, Watcher, pace};

use crate::desk::FOREVER;

/// A watch that ended is begun again no faster.
const CALM: Duration = Duration::from_secs(1);

type Opening = Pin<Box<dyn Future<Output = Result<Watcher>> + Send>>;

/// Follows the record. It begins when etcd is there, and orders need not wait for that.
pub(crate) struct Follower {
    client: Client,
    key: Key,
    state: State,
}

enum State {
    Opening(Opening),
    Open(Watcher),
}

impl Follower {
    pub(crate) fn new(client: &Client, key: &Key) -> Self {
        let state = State::Opening(open(client.clone(), key.clone(), Duration::ZERO));
        Self { client: client.clone(), key: key.clone(), state }
    }

    /// The record, once it is followed.
    pub(crate) fn view(&self) -> Option<&View> {
        match &self.state {
            State::Opening(_) => None,
            State::Open(watcher) => Some(watcher.view()),
        }
    }

    /// Waits for a change of [`Follower::view`]; an error is one for good. Nothing is lost when the future is dropped.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        loop {
            match &mut self.state {
                State::Opening(opening) => {
                    self.state = State::Open(opening.await?);
                    return Ok(());
                }
                State::Open(watcher) => match watcher.next().await {
                    Some(Ok(_)) => return Ok(()),
                    Some(Err(error)) => tracing::debug!(%error, key = %self.key, "following a service"),
                    None => self.state = State::Opening(open(self.client.clone(), self.key.clone(), CALM)),
                },
            }
        }
    }
}

fn open(client: Client, key: Key, wait: Duration) -> Opening {
    Box::pin(async move {
        pace::until(pace::now() + wait).await;
        let round = async || match client.watch(&key).await {
            Err(error) if !matches!(error, Error::StoreRolledBack { .. }) => {
                tracing::debug!(%error, %key, "beginning to follow a service");
                None
            }
            watched => Some(watched),
        };
        client.patiently(FOREVER, round).await.unwrap_or(Err(Error::Stopped))
    })
}
