//! The client: answers surveys with its name.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sereno_sp::Respondent;

use crate::board::PeersStream;
use crate::error::{Error, Result};
use crate::name;
use crate::options::ClientOptions;
use crate::peers::Peers;
use crate::subscriber::Subscriber;
use crate::task::Task;
use crate::urls::Urls;

/// Answers the surveys of one server or several with its name, for as long as it lives, and may follow who else is there.
///
/// Dropping it ends it, in the background; [`Client::cancel`] does so in order. It descends from gopherdiscovery's `Client` and
/// `ClientWithSub`.
#[must_use = "dropping a client takes it away"]
pub struct Client {
    name: String,
    respondent: Respondent,
    task: Task,
    subscriber: Option<Subscriber>,
}

impl Client {
    /// Answers the surveys of the servers at this address or these, and follows nobody. Returns at once: servers may come
    /// and go, it keeps connecting to them all.
    ///
    /// # Errors
    /// [`Error::BadName`] for a name that is empty, longer than [`MAX_NAME`](crate::MAX_NAME) or has a `|` in it;
    /// [`Error::InvalidOption`], [`Error::NoAddress`]; [`Error::Socket`] for an address that cannot be read and outside of a
    /// tokio runtime.
    pub fn connect(
        survey_urls: impl Into<Urls>,
        name: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self> {
        Self::open(&survey_urls.into(), None, name.into(), &options)
    }

    /// As [`Client::connect`], and follows what the servers at the second address or addresses publish, see
    /// [`Client::peers`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn with_subscription(
        survey_urls: impl Into<Urls>,
        pubsub_urls: impl Into<Urls>,
        name: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self> {
        Self::open(&survey_urls.into(), Some(pubsub_urls.into()), name.into(), &options)
    }

    fn open(
        surveys: &Urls,
        publications: Option<Urls>,
        name: String,
        options: &ClientOptions,
    ) -> Result<Self> {
        name::check(&name)?;
        options.check()?;
        let surveys = surveys.addresses()?;
        // Before it is seen, so that one who cannot follow is not seen either.
        let subscriber = match publications {
            Some(publications) => Some(Subscriber::connect_with(publications, options.clone())?),
            None => None,
        };
        let respondent = Respondent::with_options(options.respondent());
        for address in &surveys {
            respondent.dial(address)?;
        }
        let task = Task::spawn(answer(respondent.clone(), name.clone().into()))?;
        Ok(Self { name, respondent, task, subscriber })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To how many servers it is connected now, to be seen by them.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.respondent.peers().len()
    }

    /// Who is there, this client included once it is seen. Independent of other streams.
    ///
    /// # Errors
    /// [`Error::NoSubscription`] for one made with [`Client::connect`].
    pub fn peers(&self) -> Result<PeersStream> {
        self.subscriber().map(Subscriber::changes)
    }

    /// Its subscription.
    ///
    /// # Errors
    /// [`Error::NoSubscription`] for one made with [`Client::connect`].
    pub fn subscriber(&self) -> Result<&Subscriber> {
        self.subscriber.as_ref().ok_or(Error::NoSubscription)
    }

    /// Ends it: it answers no more, its connections are closed, its tasks have ended, its streams end. Servers see the
    /// connection go and take the name off their list as [`ServerOptions::missed`](crate::ServerOptions::missed) says. Takes 0.2 s
    /// more when a server does not read. May be called again.
    ///
    /// # Cancel safety
    /// Cancelled: it has ended or will; call it again to wait for it.
    pub async fn cancel(&self) {
        self.task.stop().await;
        self.respondent.close().await;
        if let Some(subscriber) = &self.subscriber {
            subscriber.cancel().await;
        }
    }
}

/// Answers until the socket is closed.
async fn answer(respondent: Respondent, name: Bytes) {
    while let Ok(survey) = respondent.recv().await {
        // Who is gone needs no answer.
        if let Err(error) = survey.reply(name.clone()) {
            tracing::debug!(%error, "a survey stays unanswered");
        }
    }
}

#[async_trait]
impl Peers for Client {
    fn name(&self) -> &str {
        self.name()
    }

    fn peers(&self) -> Result<PeersStream> {
        self.peers()
    }

    async fn cancel(&self) -> Result<()> {
        self.cancel().await;
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("servers", &self.servers())
            .field("subscriber", &self.subscriber)
            .finish_non_exhaustive()
    }
}
