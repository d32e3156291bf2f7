//! What a registration hears of its service.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::service::Service;

/// The user and password that all public hosts of a service share; empty for a private host. The password is in no
/// `Debug`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// How the record of a service was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordState {
    /// It is there and can be read.
    Present,
    /// It was deleted. The registrants make it again, from what they have.
    Deleted,
    /// It cannot be read. It is left alone until a public host registers or is updated.
    Malformed,
}

/// What is known of a service by one of its registrations.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServiceNews {
    /// The record as it could be read last: a deletion or a malformed record takes nothing away.
    pub service: Service,
    /// The credentials of the service, as far as this host has a part in them.
    pub credentials: Credentials,
    /// How the record was found last.
    pub state: RecordState,
    /// The store's revision of that.
    pub revision: i64,
    /// How often the record was found deleted.
    pub deleted: u64,
    /// How often the record was found malformed.
    pub malformed: u64,
}

/// What has been told of a service so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    news: Option<ServiceNews>,
    /// How often there were news.
    number: u64,
    ended: Option<Error>,
}

impl Told {
    pub(crate) fn news(&self) -> Option<&ServiceNews> {
        self.news.as_ref()
    }

    pub(crate) fn tell(&mut self, news: ServiceNews) {
        self.news = Some(news);
        self.number += 1;
    }

    pub(crate) fn end(&mut self, error: Error) {
        self.ended = Some(error);
    }
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The latest news of a service: [`Registration::changes`](crate::Registration::changes).
///
/// Whoever is slow misses states in between, never the last one; `deleted` and `malformed` count them all. Nobody waits for
/// a reader. After the last one comes the error that ended the registration, if one did, and then the end.
#[must_use = "streams do nothing unless polled"]
pub struct RegistrationChanges {
    told: watch::Receiver<Told>,
    number: u64,
    waiting: Option<Waiting>,
    over: bool,
}

impl RegistrationChanges {
    pub(crate) fn new(told: watch::Receiver<Told>) -> Self {
        Self { told, number: 0, waiting: None, over: false }
    }

    /// The next news; the first are what is known already. `None` after the end of the registration.
    ///
    /// # Errors
    /// What ended the registration, other than being stopped: it comes once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<ServiceNews>> {
        std::future::poll_fn(|cx| self.poll_news(cx)).await
    }

    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ServiceNews>>> {
        while !self.over {
            let told = self.told.borrow_and_update();
            if let Some(news) = told.news.as_ref().filter(|_| told.number != self.number) {
                self.number = told.number;
                return Poll::Ready(Some(Ok(news.clone())));
            }
            if let Some(error) = &told.ended {
                self.over = true;
                let stopped = matches!(error, Error::Deregistered);
                return Poll::Ready((!stopped).then(|| Err(error.clone())));
            }
            drop(told);
            let waiting = self.waiting.get_or_insert_with(|| changed(self.told.clone()));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(None)
    }
}

/// Ends as well when nobody can tell anything any more: then [`Told::end`] was called before.
fn changed(mut told: watch::Receiver<Told>) -> Waiting {
    Box::pin(async move {
        let _ = told.changed().await;
    })
}

impl Stream for RegistrationChanges {
    type Item = Result<ServiceNews>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_news(cx)
    }
}

impl fmt::Debug for RegistrationChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationChanges").field("over", &self.over).finish_non_exhaustive()
    }
}
