//! A peer on etcd.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sereno_core::{CancellationToken, Conflict, LostReason, Presence, Session};
use tokio::sync::Mutex;

use super::follow::follow;
use crate::board::{Board, PeersStream};
use crate::error::Result;
use crate::keys;
use crate::name;
use crate::peers::Peers;

/// Is there under its name for as long as it lives and its session does, and follows who else is.
///
/// Its key hangs on the session's lease. It is restored when it is deleted underneath, and under the session's next epoch when
/// the lease was lost. Dropping it leaves, in the background; [`Client::cancel`] does so in order.
/// At the end of `main` nothing goes on in the background: see [`Session`](sereno_core::Session#the-end-of-a-process).
#[must_use = "dropping a client takes it away"]
pub struct Client {
    name: String,
    group: String,
    /// Locked while it is being left, so that whoever cancels at the same time waits.
    presence: Mutex<Option<Presence>>,
    board: Arc<Board>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Client {
    /// Joins a group under a name, which may have any characters and 1 to 255 bytes. When this returns, everybody sees it, and
    /// every later change will be told. One write, and one read per 1,000 clients. Clients of one name are one peer, for as
    /// long as one of them is there.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName); as any call of the core; a group's name that is empty or longer than 255 bytes.
    ///
    /// # Cancel safety
    /// When the future is dropped the key is deleted again if it was written.
    pub async fn connect(
        session: &Session,
        group: impl Into<String>,
        name: impl Into<String>,
    ) -> Result<Self> {
        let (group, name) = (group.into(), name.into());
        name::check_length(&name)?;
        let prefix = keys::group(session.client(), &group)?;
        let key = keys::peer(session, &prefix, &name)?;
        let presence = session.keep(&key, "", Conflict::Refuse).await?;
        let watcher = session.client().watch(&prefix).await?;
        let board = Arc::new(Board::new());
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let (asked, end, put_up, epoch) =
            (stop.clone(), stopped.clone().drop_guard(), Arc::clone(&board), session.epoch().number());
        session.spawn(|closing| async move {
            let _end = end;
            tokio::select! {
                biased;
                () = asked.cancelled() => {}
                () = closing.cancelled() => {
                    put_up.fault(sereno_core::Error::SessionLost { epoch, reason: LostReason::Closed }.into());
                }
                () = follow(watcher, prefix, Arc::clone(&put_up)) => {}
            }
            put_up.end();
        });
        Ok(Self { name, group, presence: Mutex::new(Some(presence)), board, stop, stopped })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Who is there, this client included. Independent of other streams.
    pub fn peers(&self) -> PeersStream {
        self.board.stream()
    }

    /// Leaves, at once for everybody, and ends its streams. One RPC. Called again it does nothing more.
    ///
    /// # Errors
    /// As any call, within the client's deadline: then the key goes with the session.
    ///
    /// # Cancel safety
    /// Leaving goes on when the future is dropped.
    pub async fn cancel(&self) -> Result<()> {
        self.board.end();
        self.stop.cancel();
        self.stopped.cancelled().await;
        let mut presence = self.presence.lock().await;
        match presence.take() {
            Some(presence) => Ok(presence.leave().await?),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Peers for Client {
    fn name(&self) -> &str {
        self.name()
    }

    fn peers(&self) -> Result<PeersStream> {
        Ok(self.peers())
    }

    async fn cancel(&self) -> Result<()> {
        self.cancel().await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.board.end();
        self.stop.cancel();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("group", &self.group).field("name", &self.name).finish_non_exhaustive()
    }
}
