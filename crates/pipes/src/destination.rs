//! The handle of a destination.

use std::fmt;
use std::sync::Arc;

use sereno_core::{CancellationToken, Session};
use tokio::sync::oneshot;

use crate::board::Board;
use crate::error::Result;
use crate::keys::Keys;
use crate::options::DestinationOptions;
use crate::owner::Owner;
use crate::pipe;
use crate::place::Place;
use crate::registration::Registration;
use crate::worker::Worker;

/// A destination, to be registered: from where messages go to groups.
///
/// Making one does nothing; clones are the same destination. Names may have any characters, and 1 to 255 bytes.
#[derive(Clone)]
pub struct Destination {
    session: Session,
    name: String,
    options: DestinationOptions,
}

impl Destination {
    /// The destination of that name, with default options. No I/O.
    pub fn new(session: &Session, name: impl Into<String>) -> Self {
        Self::with_options(session, name, DestinationOptions::default())
    }

    /// As [`Destination::new`], with options. No I/O.
    pub fn with_options(session: &Session, name: impl Into<String>, options: DestinationOptions) -> Self {
        Self { session: session.clone(), name: name.into(), options }
    }

    /// The destination's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Registers the destination. Only one registration of a destination lives at a time, of this session or another: this
    /// waits until the other one has ended, or its session's lease, within [`DestinationOptions::wait`]. When it returns,
    /// members that wait for the destination join. Two RPCs, three when somebody else has it, and one more for every attempt
    /// after that.
    ///
    /// # Errors
    /// [`Error::Owned`](crate::Error::Owned) when the other registration outlived the time to wait;
    /// [`Error::Socket`](crate::Error::Socket) and `InvalidOption` for addresses that nobody can listen on or dial; names
    /// that are empty or too long; as any call of the core.
    ///
    /// # Cancel safety
    /// When the future is dropped, nothing is registered; a key that was written is deleted again.
    pub async fn register(&self) -> Result<Registration> {
        self.options.check()?;
        let place = Place::new(&self.options)?;
        let client = self.session.client();
        let keys = Keys::new(client, &self.name)?;
        for group in self.options.standing.keys() {
            keys.group(group)?;
        }
        pipe::probe(&place, &self.options).await?;

        let id = format!("{}-{}", self.session.epoch().id(), self.session.serial());
        let board = Arc::new(Board::new(self.name.clone(), self.options.socket.max_message));
        let stop = CancellationToken::new();
        let worker = Worker {
            client: client.clone(),
            session: self.session.downgrade(),
            owner: Owner::new(client, &keys, id),
            keys,
            place,
            options: self.options.clone(),
            board: board.clone(),
            stop: stop.clone(),
        };
        // Made before waiting: when this future is dropped, so is the registration, and the task ends.
        let registration = Registration::new(board, stop, self.session.clone());
        let (first, begun) = oneshot::channel();
        self.session.spawn(|closing| worker.run(closing, first));
        begun.await.map_err(|_| sereno_core::Error::Stopped)??;
        Ok(registration)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
