//! What a registration and its task know of each other: orders in one direction, news in the other.
//!
//! Both are states, not queues: nobody ever waits for a reader, and what was ordered meanwhile is never forgotten.

use sereno_core::CancellationToken;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::news::{Credentials, ServiceNews, Told};
use crate::service::Service;
use crate::status::{RegistrationState, RegistrationStatus};

/// What the host shall be.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// As it was ordered, with the credentials that were taken over from the service since.
    pub(crate) host: Host,
    /// Counts what was ordered.
    pub(crate) number: u64,
    /// The last order that has something to say of the service.
    pub(crate) publish: u64,
}

/// What has been done of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Both keys have been written.
    pub(crate) ready: bool,
    /// The last order that has been carried out.
    pub(crate) done: u64,
    /// The last order whose part about the service etcd refused.
    pub(crate) refused: Option<(u64, sereno_core::Error)>,
    pub(crate) ended: Option<Ended>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// What is said to calls that come later.
    pub(crate) error: Error,
    /// What is said to those who asked for the end.
    pub(crate) stopped: Result<()>,
}

#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) orders: watch::Sender<Orders>,
    pub(crate) status: watch::Sender<RegistrationStatus>,
    pub(crate) told: watch::Sender<Told>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stop: CancellationToken,
}

impl Board {
    pub(crate) fn new(host: Host) -> Self {
        let status =
            RegistrationStatus { state: RegistrationState::Starting, epoch: 0, revision: 0, restored: 0 };
        Self {
            orders: watch::Sender::new(Orders { host, number: 1, publish: 1 }),
            status: watch::Sender::new(status),
            told: watch::Sender::default(),
            progress: watch::Sender::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Changes what the host shall be, and gives the number of that order. What `change` refuses changes nothing.
    pub(crate) fn order(&self, change: impl FnOnce(&Host) -> Result<Host>) -> Result<u64> {
        let mut ordered = Ok(0);
        self.orders.send_if_modified(|orders| match change(&orders.host) {
            Ok(host) => {
                orders.number += 1;
                if Service::of(&host) != Service::of(&orders.host) {
                    orders.publish = orders.number;
                }
                orders.host = host;
                ordered = Ok(orders.number);
                true
            }
            Err(error) => {
                ordered = Err(error);
                false
            }
        });
        ordered
    }

    /// Lets the host take over the service's credentials, unless something was ordered since `number`.
    pub(crate) fn take_over(&self, number: u64, credentials: Option<Credentials>) -> Option<Host> {
        let mut host = None;
        self.orders.send_if_modified(|orders| {
            if orders.number == number {
                if let Some(Credentials { user, password }) = credentials {
                    (orders.host.user, orders.host.password) = (user, password);
                }
                host = Some(orders.host.clone());
            }
            // The task itself is whom this would wake.
            false
        });
        host
    }

    /// Tells the news, if they are any.
    pub(crate) fn tell(&self, news: ServiceNews) {
        self.told.send_if_modified(|told| {
            let new = told.news() != Some(&news);
            if new {
                told.tell(news);
            }
            new
        });
    }

    /// Tells how it ended; the first word counts.
    pub(crate) fn end(&self, state: RegistrationState, ended: Ended) {
        if self.progress.borrow().ended.is_some() {
            return;
        }
        self.status.send_modify(|status| status.state = state);
        self.told.send_modify(|told| told.end(ended.error.clone()));
        self.progress.send_modify(|progress| progress.ended = Some(ended));
    }
}
