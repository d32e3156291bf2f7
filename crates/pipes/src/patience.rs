//! Waiting that ends when nobody wants the outcome any more.
//!
//! What is written is always seen through to its answer: a transaction that is dropped half-way may still be applied later,
//! after everything was taken back.

use sereno_core::{CancellationToken, WeakSession};

use crate::error::Error;

/// Why a task gives up.
#[derive(Debug)]
pub(crate) enum End {
    /// Whoever had asked for it does not want it any more.
    Stopped,
    /// The session closes: its lease takes the keys along.
    Closing,
    /// It cannot go on.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl End {
    /// The reason, unless it was asked for.
    pub(crate) fn reason(&self, session: &WeakSession) -> Option<Error> {
        match self {
            Self::Stopped => None,
            Self::Closing => Some(session.epoch().lost_error().into()),
            Self::Failed(error) => Some(error.clone()),
        }
    }
}

/// What ends a task's waiting.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// It is not wanted any more.
    pub(crate) stop: CancellationToken,
    /// The session closes.
    pub(crate) closing: CancellationToken,
}

impl Patience {
    /// Waits, unless nobody wants the outcome. What is waited for must not write.
    pub(crate) async fn wait<T>(&self, waiting: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopped),
            () = self.closing.cancelled() => Err(End::Closing),
            waited = waiting => Ok(waited),
        }
    }

    /// Whether the outcome is still wanted.
    pub(crate) fn check(&self) -> Result<(), End> {
        match (self.stop.is_cancelled(), self.closing.is_cancelled()) {
            (true, _) => Err(End::Stopped),
            (false, true) => Err(End::Closing),
            (false, false) => Ok(()),
        }
    }
}
