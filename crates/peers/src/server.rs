//! The server: finds out who is there, and tells everybody.

use std::fmt;
use std::sync::Arc;

use sereno_sp::{Address, Pub, Refusal, Surveyor};

use crate::board::{Board, PeersStream};
use crate::error::Result;
use crate::options::ServerOptions;
use crate::stats::{ServerCounts, ServerStats};
use crate::task::Task;
use crate::urls::Urls;
use crate::worker::Worker;

/// Asks all connected clients for their names again and again, and publishes the list when it has changed.
///
/// Dropping it ends it, in the background; [`Server::cancel`] does so in order. It descends from gopherdiscovery's `Server`.
#[must_use = "dropping a server ends it"]
pub struct Server {
    surveyor: Surveyor,
    publisher: Pub,
    surveys: Vec<Address>,
    publications: Vec<Address>,
    board: Arc<Board>,
    counts: Arc<ServerCounts>,
    task: Task,
}

impl Server {
    /// Listens for clients at the first and for subscribers at the second address (or addresses, see [`Urls`]) and begins. Port
    /// 0 lets the system choose, see [`Server::survey_urls`].
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption), [`Error::NoAddress`](crate::Error::NoAddress); an address that
    /// cannot be read or listened on is [`Error::Socket`](crate::Error::Socket). Then it listens nowhere.
    ///
    /// # Cancel safety
    /// Cancelled: it listens nowhere.
    pub async fn bind(
        survey_urls: impl Into<Urls>,
        pubsub_urls: impl Into<Urls>,
        options: ServerOptions,
    ) -> Result<Self> {
        options.check()?;
        let (survey_urls, pubsub_urls) = (survey_urls.into().addresses()?, pubsub_urls.into().addresses()?);
        let surveyor = Surveyor::with_options(options.surveyor());
        let publisher = Pub::with_options(options.publisher());
        let (clients, subscribers) = (surveyor.events(), publisher.events());
        let listening = async {
            let (mut surveys, mut publications) = (Vec::new(), Vec::new());
            for url in &survey_urls {
                surveys.push(surveyor.listen(url).await?);
            }
            for url in &pubsub_urls {
                publications.push(publisher.listen(url).await?);
            }
            Result::Ok((surveys, publications))
        };
        let (surveys, publications) = match listening.await {
            Ok(listening) => listening,
            Err(error) => {
                // What it listened on already is free when this returns.
                surveyor.close().await;
                publisher.close().await;
                return Err(error);
            }
        };
        let (board, counts) = (Arc::new(Board::new()), Arc::new(ServerCounts::default()));
        let worker = Worker {
            surveyor: surveyor.clone(),
            publisher: publisher.clone(),
            clients,
            subscribers,
            options,
            board: Arc::clone(&board),
            counts: Arc::clone(&counts),
        };
        let task = Task::spawn(worker.run())?;
        tracing::debug!(?surveys, ?publications, "asking who is there");
        Ok(Self { surveyor, publisher, surveys, publications, board, counts, task })
    }

    /// Where it listens for clients, with the real ports.
    #[must_use]
    pub fn survey_urls(&self) -> &[Address] {
        &self.surveys
    }

    /// Where it listens for subscribers, with the real ports.
    #[must_use]
    pub fn pubsub_urls(&self) -> &[Address] {
        &self.publications
    }

    /// Who is there, as this server publishes it. Independent of other streams.
    pub fn peers(&self) -> PeersStream {
        self.board.stream()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let (surveyor, publisher) = (self.surveyor.stats(), self.publisher.stats());
        ServerStats {
            late_answers: surveyor.late,
            clients: surveyor.connections,
            subscribers: publisher.connections,
            refused: surveyor.refused_in_all() + publisher.refused_in_all(),
            ..self.counts.picture()
        }
    }

    /// How many connections were turned away or shown out for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.surveyor.stats().refused(why) + self.publisher.stats().refused(why)
    }

    /// Ends it: when this returns its ports are free, its connections closed, its task has ended, and its streams end. Takes
    /// 0.2 s more when subscribers do not read. May be called again.
    ///
    /// # Cancel safety
    /// Cancelled: it has ended or will; call it again to wait for it.
    pub async fn cancel(&self) {
        self.board.end();
        self.task.stop().await;
        self.surveyor.close().await;
        self.publisher.close().await;
    }

    /// Waits until it is cancelled.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn cancelled(&self) {
        self.task.stopped().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.board.end();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("survey_urls", &self.surveys)
            .field("pubsub_urls", &self.publications)
            .finish_non_exhaustive()
    }
}
