//! The session that registrations stand on: the caller's, or one that is opened when it is first needed.

use std::fmt;
use std::time::Duration;

use sereno_core::{CancellationToken, Client, LostReason, Session, SessionOptions};
use tokio::sync::OnceCell;

/// A session, or a place for one.
pub(crate) struct Home {
    client: Client,
    options: SessionOptions,
    session: OnceCell<Session>,
    /// Whether it is ours to close.
    own: bool,
    closed: CancellationToken,
}

impl Home {
    /// The caller's session.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            client: session.client().clone(),
            options: SessionOptions::default(),
            session: OnceCell::new_with(Some(session.clone())),
            own: false,
            closed: CancellationToken::new(),
        }
    }

    /// One to be opened. No I/O.
    pub(crate) fn later(client: &Client, options: SessionOptions) -> Self {
        Self {
            client: client.clone(),
            options,
            session: OnceCell::new(),
            own: true,
            closed: CancellationToken::new(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The session, if it is open.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    /// The session, opened however long etcd is away, but no longer than `within`. Many callers open one.
    pub(crate) async fn open(&self, within: Duration) -> sereno_core::Result<Session> {
        let open = || Session::open_within(&self.client, self.options.clone(), within);
        let opened = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(self.over()),
            opened = self.session.get_or_try_init(open) => opened?.clone(),
        };
        if self.closed.is_cancelled() {
            // Closed in the moment in which it opened.
            opened.close().await?;
            return Err(self.over());
        }
        Ok(opened)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.session().is_some_and(Session::is_closed)
    }

    /// What is said to whoever comes after the end.
    pub(crate) fn over(&self) -> sereno_core::Error {
        let epoch = self.session().map_or(0, |session| session.epoch().number());
        sereno_core::Error::SessionLost { epoch, reason: LostReason::Closed }
    }

    /// Closes the session if it is ours.
    pub(crate) async fn close(&self) -> sereno_core::Result<()> {
        if !self.own {
            return Ok(());
        }
        self.closed.cancel();
        match self.session() {
            Some(session) => session.close().await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home")
            .field("client", &self.client)
            .field("session", &self.session.get())
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}
