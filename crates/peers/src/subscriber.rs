//! The subscriber: follows what servers publish.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sereno_sp::{Events, PeerEvent, Refusal, Sub};

use crate::board::{Board, PeersStream};
use crate::error::{Error, PublicationFault, Result};
use crate::name;
use crate::options::ClientOptions;
use crate::stats::{SubscriberCounts, SubscriberStats, count};
use crate::task::Task;
use crate::urls::Urls;

/// Follows who is there without being seen.
///
/// Given several servers it tells the union of what those have published to which it is connected now. A server that is lost
/// counts no more once another has published; while none is connected, what was known last stays.
///
/// Dropping it ends it, in the background; [`Subscriber::cancel`] does so in order. It descends from gopherdiscovery's
/// `Subscriber`.
#[must_use = "dropping a subscriber ends it"]
pub struct Subscriber {
    shared: Arc<Shared>,
    /// A socket for each server, so that it is known who published what.
    servers: Vec<(Sub, Task)>,
}

struct Shared {
    board: Board,
    counts: SubscriberCounts,
    sources: Mutex<Vec<Source>>,
}

/// What one server says.
#[derive(Default)]
struct Source {
    connected: bool,
    /// Since it was connected last. `None`: nothing yet.
    names: Option<Vec<String>>,
}

impl Subscriber {
    /// Follows the server, or servers, at this address, with default options. Returns at once.
    ///
    /// # Errors
    /// As [`Subscriber::connect_with`].
    pub fn connect(pubsub_urls: impl Into<Urls>) -> Result<Self> {
        Self::connect_with(pubsub_urls, ClientOptions::default())
    }

    /// Follows the server, or servers, at this address. Returns at once: servers may come and go, it keeps connecting to them
    /// all.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::NoAddress`]; [`Error::Socket`] for an address that cannot be read and outside of a
    /// tokio runtime.
    pub fn connect_with(pubsub_urls: impl Into<Urls>, options: ClientOptions) -> Result<Self> {
        options.check()?;
        let urls = pubsub_urls.into().addresses()?;
        let shared = Arc::new(Shared {
            board: Board::new(),
            counts: SubscriberCounts::default(),
            sources: Mutex::new(urls.iter().map(|_| Source::default()).collect()),
        });
        let mut servers = Vec::with_capacity(urls.len());
        for (index, url) in urls.iter().enumerate() {
            let sub = Sub::with_options(options.subscriber());
            sub.subscribe(Bytes::new());
            let events = sub.events();
            sub.dial(url)?;
            let follower = Follower {
                index,
                url: url.to_string(),
                sub: sub.clone(),
                events,
                shared: Arc::clone(&shared),
                max_peers: options.max_peers,
            };
            servers.push((sub, Task::spawn(follower.run())?));
        }
        Ok(Self { shared, servers })
    }

    /// Who is there. Independent of other streams.
    pub fn changes(&self) -> PeersStream {
        self.shared.board.stream()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> SubscriberStats {
        let servers = self.servers.iter().map(|(sub, _)| sub.stats().connections).sum();
        self.shared.counts.picture(servers)
    }

    /// Ends it: when this returns its connections are closed, its tasks have ended, and its streams end. May be called again.
    ///
    /// # Cancel safety
    /// Cancelled: it has ended or will; call it again to wait for it.
    pub async fn cancel(&self) {
        self.shared.board.end();
        for (sub, task) in &self.servers {
            task.stop().await;
            sub.close().await;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.board.end();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("servers", &self.servers.len())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Changes what one server says, and puts up what they say together.
    fn update(&self, index: usize, change: impl FnOnce(&mut Source)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get_mut(index) {
            change(source);
        }
        let told: Vec<&Vec<String>> = sources
            .iter()
            .filter(|source| source.connected)
            .filter_map(|source| source.names.as_ref())
            .collect();
        // While nobody can say, what was known stays.
        match told.as_slice() {
            [] => {}
            [one] => self.board.post((*one).clone()),
            several => {
                let union: BTreeSet<&String> = several.iter().copied().flatten().collect();
                self.board.post(union.into_iter().cloned().collect());
            }
        }
    }
}

/// Follows one server.
struct Follower {
    index: usize,
    url: String,
    sub: Sub,
    events: Events,
    shared: Arc<Shared>,
    max_peers: usize,
}

impl Follower {
    async fn run(mut self) {
        loop {
            tokio::select! {
                // A connection is told before what came by it.
                biased;
                event = self.events.next() => match event {
                    Some(Ok(PeerEvent::Connected(_))) => self.connected(true),
                    Some(Ok(PeerEvent::Disconnected { why, .. })) => {
                        if why == Some(Refusal::TooLarge) {
                            self.refuse(PublicationFault::TooLarge);
                        }
                        self.connected(false);
                    }
                    Some(Ok(_)) => {}
                    // Events that were missed: the last of them is how it is now.
                    Some(Err(_)) => self.connected(!self.sub.peers().is_empty()),
                    None => return,
                },
                body = self.sub.recv() => match body {
                    Ok(body) => self.take(&body),
                    Err(_) => return,
                },
            }
        }
    }

    fn connected(&self, connected: bool) {
        tracing::debug!(url = %self.url, connected, "a server");
        // What it said before may be long ago.
        self.shared.update(self.index, |source| *source = Source { connected, names: None });
    }

    fn take(&self, body: &[u8]) {
        match name::split(body, self.max_peers) {
            Ok(names) => {
                count(&self.shared.counts.publications);
                self.shared.update(self.index, |source| source.names = Some(names));
            }
            Err(fault) => self.refuse(fault),
        }
    }

    fn refuse(&self, fault: PublicationFault) {
        tracing::warn!(url = %self.url, %fault, "a publication was refused");
        self.shared.counts.refuse(fault);
        self.shared.board.fault(Error::BadPublication { url: self.url.clone(), fault });
    }
}
