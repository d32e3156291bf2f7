//! What servers and subscribers have done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::PublicationFault;
use crate::roster::AnswerFault;

/// A picture of a server's counts: [`Server::stats`](crate::Server::stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Surveys made.
    pub surveys: u64,
    /// How often its task had something to do. It does nothing in between.
    pub turns: u64,
    /// Answers that counted.
    pub answers: u64,
    /// Answers that came after the next survey was made, and were ignored.
    pub late_answers: u64,
    /// Answers ignored because they are no name: empty, too long, not UTF-8, or with a `|` in them.
    pub bad_names: u64,
    /// Answers ignored because there were as many names, or as many bytes of them, as there may be.
    pub too_many: u64,
    /// Answers ignored because their connection had given as many as it may.
    pub surplus: u64,
    /// Publications made.
    pub publications: u64,
    /// Connections of clients up now.
    pub clients: u64,
    /// Connections of subscribers up now.
    pub subscribers: u64,
    /// Connections that were turned away or shown out because they did not speak the protocol.
    pub refused: u64,
}

/// A picture of a subscriber's counts: [`Subscriber::stats`](crate::Subscriber::stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStats {
    /// Servers connected now.
    pub servers: u64,
    /// Publications that counted.
    pub publications: u64,
    /// Publications ignored because they are not UTF-8.
    pub not_utf8: u64,
    /// Publications ignored because they have more names than allowed.
    pub too_many_names: u64,
    /// Publications refused because they are larger than allowed.
    pub too_large: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ServerCounts {
    pub(crate) surveys: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) answers: AtomicU64,
    pub(crate) publications: AtomicU64,
    bad_names: AtomicU64,
    too_many: AtomicU64,
    surplus: AtomicU64,
}

impl ServerCounts {
    pub(crate) fn ignore(&self, fault: AnswerFault) {
        count(match fault {
            AnswerFault::Name(_) => &self.bad_names,
            AnswerFault::Full => &self.too_many,
            AnswerFault::Surplus => &self.surplus,
        });
    }

    /// What this crate counts; the rest is the sockets'.
    pub(crate) fn picture(&self) -> ServerStats {
        ServerStats {
            surveys: read(&self.surveys),
            turns: read(&self.turns),
            answers: read(&self.answers),
            bad_names: read(&self.bad_names),
            too_many: read(&self.too_many),
            surplus: read(&self.surplus),
            publications: read(&self.publications),
            ..ServerStats::default()
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct SubscriberCounts {
    pub(crate) publications: AtomicU64,
    not_utf8: AtomicU64,
    too_many_names: AtomicU64,
    too_large: AtomicU64,
}

impl SubscriberCounts {
    pub(crate) fn refuse(&self, fault: PublicationFault) {
        count(match fault {
            PublicationFault::NotUtf8 => &self.not_utf8,
            PublicationFault::TooManyNames => &self.too_many_names,
            PublicationFault::TooLarge => &self.too_large,
        });
    }

    pub(crate) fn picture(&self, servers: u64) -> SubscriberStats {
        SubscriberStats {
            servers,
            publications: read(&self.publications),
            not_utf8: read(&self.not_utf8),
            too_many_names: read(&self.too_many_names),
            too_large: read(&self.too_large),
        }
    }
}

pub(crate) fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
