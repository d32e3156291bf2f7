//! A host that was chosen.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sereno_core::pace;

use crate::balancer::News;
use crate::health::Ticket;
use crate::host::Host;
use crate::seat::Seat;

/// A host that was chosen for one request: see [`Balancer::pick`](crate::Balancer::pick).
///
/// Say how the request went with [`Picked::succeeded`] or [`Picked::failed`]. Dropping it without a word ends the request
/// and says nothing of the host, as is right for one that was given up.
#[must_use = "counts as a request in flight until it is dropped"]
pub struct Picked {
    seat: Arc<Seat>,
    ticket: Ticket,
    news: Arc<News>,
    /// None: nothing was said.
    has_succeeded: Option<bool>,
}

impl Picked {
    pub(crate) fn new(seat: Arc<Seat>, ticket: Ticket, news: Arc<News>) -> Self {
        Self { seat, ticket, news, has_succeeded: None }
    }

    /// The host, to be kept.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.seat.entry.host
    }

    /// Whether the host is ejected and this request is to find out whether it is well again.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe
    }

    /// The request was answered. What counts as an answer is the caller's matter: a refusal may well be one.
    pub fn succeeded(mut self) {
        self.has_succeeded = Some(true);
    }

    /// The request was not answered, or in a way that says that the host is ill.
    pub fn failed(mut self) {
        self.has_succeeded = Some(false);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let (health, rules) = (&self.seat.health, &self.news.rules);
        health.in_flight.fetch_sub(1, Ordering::Relaxed);
        let is_news = match self.has_succeeded {
            Some(true) => health.succeeded(self.ticket),
            Some(false) => health.failed(self.ticket, pace::now(), rules),
            None if self.ticket.is_probe => health.told_nothing(self.ticket, pace::now()),
            None => false,
        };
        if is_news {
            self.news.tell();
        }
    }
}

impl Deref for Picked {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.seat.entry.host
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked")
            .field("host", self.host())
            .field("is_probe", &self.is_probe())
            .finish_non_exhaustive()
    }
}
