//! What all sockets have in common.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::{Events, Followers, Peer, PeerEvent};
use crate::options::SocketOptions;
use crate::role::Role;
use crate::stats::{Counters, DialFailure, Refusal, Stats, add};
use crate::sync::lock;
use crate::transport::Name;

/// The inside of a socket: shared by its handles and its tasks.
pub(crate) struct Engine<R: Role> {
    pub(crate) role: R,
    pub(crate) options: SocketOptions,
    pub(crate) counters: Counters,
    table: Mutex<Table>,
    tasks: TaskTracker,
    connections: watch::Sender<usize>,
    /// Connections, those in their handshake included.
    seats: AtomicUsize,
    /// Taken from a queue and not handed over yet.
    in_flight: AtomicUsize,
    closing: AtomicBool,
    undelivered: AtomicU64,
    progress: Notify,
}

#[derive(Default)]
struct Table {
    closed: bool,
    background: Option<AbortHandle>,
    endpoints: Vec<Endpoint>,
    peers: HashMap<u64, Peer>,
    next: u64,
    followers: Followers,
}

impl Table {
    fn check_endpoint(&self, address: &Address) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.endpoints.iter().any(|endpoint| endpoint.address == *address) {
            return Err(Error::AlreadyUsed { address: address.to_string() });
        }
        Ok(())
    }
}

struct Endpoint {
    address: Address,
    listens: bool,
    /// Why the last attempt to dial it failed, until one succeeds.
    failure: Option<String>,
    /// The task owns the listener and all connections that came by it, or the dialler and its connection.
    task: AbortHandle,
    _name: Name,
}

impl<R: Role> Engine<R> {
    pub(crate) fn new(role: R, options: SocketOptions) -> Self {
        Self {
            role,
            options,
            counters: Counters::default(),
            table: Mutex::default(),
            tasks: TaskTracker::new(),
            connections: watch::Sender::new(0),
            seats: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            undelivered: AtomicU64::new(0),
            progress: Notify::new(),
        }
    }

    /// The tasks, to follow those that are spawned elsewhere.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    // ---- Endpoints

    /// Fails when a new endpoint at this address is not possible.
    pub(crate) fn check_endpoint(&self, address: &Address) -> Result<()> {
        lock(&self.table).check_endpoint(address)
    }

    pub(crate) fn add_endpoint(
        self: &Arc<Self>,
        address: Address,
        listens: bool,
        name: Name,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let mut table = lock(&self.table);
        table.check_endpoint(&address)?;
        if table.background.is_none()
            && let Some(work) = R::background(self)
        {
            table.background = Some(self.tasks.spawn_on(work, &runtime).abort_handle());
        }
        let task = self.tasks.spawn_on(work, &runtime).abort_handle();
        table.endpoints.push(Endpoint { address, listens, failure: None, task, _name: name });
        Ok(())
    }

    pub(crate) fn remove_endpoint(&self, address: &Address) -> bool {
        let mut table = lock(&self.table);
        let Some(index) = table.endpoints.iter().position(|endpoint| endpoint.address == *address) else {
            return false;
        };
        table.endpoints.swap_remove(index).task.abort();
        true
    }

    /// Counts a failed attempt to dial, and tells why unless the one before failed for the same reason.
    pub(crate) fn dial_failed(&self, address: &Address, reason: String) {
        add(&self.counters.dial_failures, 1);
        let mut table = lock(&self.table);
        let Some(endpoint) = table.endpoints.iter_mut().find(|endpoint| endpoint.address == *address) else {
            return;
        };
        if endpoint.failure.as_ref() == Some(&reason) {
            return;
        }
        tracing::debug!(%address, reason, "cannot connect; it is tried again and again");
        endpoint.failure = Some(reason.clone());
        table.followers.tell(&PeerEvent::DialFailed { address: address.clone(), reason });
    }

    /// A dialled address has answered.
    pub(crate) fn dial_succeeded(&self, address: &Address) {
        let mut table = lock(&self.table);
        let dialled = table.endpoints.iter_mut().filter(|endpoint| endpoint.address == *address);
        dialled.for_each(|endpoint| endpoint.failure = None);
    }

    pub(crate) fn listening(&self) -> Vec<Address> {
        let table = lock(&self.table);
        table
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.listens)
            .map(|endpoint| endpoint.address.clone())
            .collect()
    }

    // ---- Connections

    /// A seat for one more connection, unless there are as many as may be.
    pub(crate) fn seat(self: &Arc<Self>, dialled: bool) -> Option<Seat<R>> {
        let limit = if dialled { usize::MAX } else { self.options.max_connections };
        let taken = self.seats.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(self));
        (taken < limit).then_some(seat)
    }

    /// The connection counts from here on, until what this returns is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: String,
        endpoint: Address,
        dialled: bool,
    ) -> Option<Entered<R>> {
        let mut table = lock(&self.table);
        if table.closed {
            return None;
        }
        table.next += 1;
        let peer = Peer { id: table.next, address, endpoint, dialled };
        tracing::debug!(peer = %peer.address, id = peer.id, "connected");
        add(if dialled { &self.counters.dialled } else { &self.counters.accepted }, 1);
        table.peers.insert(peer.id, peer.clone());
        let link = R::attach(self, &peer);
        table.followers.tell(&PeerEvent::Connected(peer.clone()));
        self.connections.send_replace(table.peers.len());
        Some(Entered { engine: Arc::clone(self), link, peer, why: None })
    }

    /// Counts and tells that somebody was turned away before being a peer.
    pub(crate) fn refuse(&self, address: String, why: Refusal) {
        tracing::debug!(%address, %why, "refused");
        self.counters.refuse(why);
        lock(&self.table).followers.tell(&PeerEvent::Refused { address, why });
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> = lock(&self.table).peers.values().cloned().collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    pub(crate) fn events(&self) -> Events {
        let mut table = lock(&self.table);
        let events = table.followers.add();
        if table.closed {
            table.followers.end();
        }
        events
    }

    /// Waits until so many connections are up.
    pub(crate) async fn connected(&self, count: usize) -> Result<()> {
        let mut connections = self.connections.subscribe();
        loop {
            if *connections.borrow_and_update() >= count {
                return Ok(());
            }
            if lock(&self.table).closed {
                return Err(Error::Closed);
            }
            if connections.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    // ---- Messages

    /// Fails for a message that is over the limit.
    pub(crate) fn check_size(&self, body: &Bytes) -> Result<()> {
        let (size, limit) = (body.len(), self.options.max_message);
        if size > limit { Err(Error::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// So many messages left their queue for a connection.
    pub(crate) fn took(&self, count: usize) {
        self.in_flight.fetch_add(count, Ordering::SeqCst);
    }

    /// So many of those that left their queue are with the system, have gone back or are lost.
    pub(crate) fn settled(&self, count: usize) {
        self.in_flight.fetch_sub(count, Ordering::SeqCst);
        self.advanced();
    }

    /// Somebody who waits for the queues to be empty looks again.
    pub(crate) fn advanced(&self) {
        if self.closing.load(Ordering::Relaxed) {
            self.progress.notify_waiters();
        }
    }

    /// So many accepted messages will not be sent.
    pub(crate) fn lose(&self, count: usize) {
        if count > 0 {
            add(&self.counters.dropped, count);
            if self.closing.load(Ordering::Relaxed) {
                add(&self.undelivered, count);
            }
        }
    }

    fn pending(&self) -> usize {
        if R::UNTIL_ANSWERED {
            return self.role.queued();
        }
        // A message that changes between queue and connection meanwhile is counted all the same.
        let before = self.in_flight.load(Ordering::SeqCst);
        let queued = self.role.queued();
        queued + before.max(self.in_flight.load(Ordering::SeqCst))
    }

    pub(crate) fn stats(&self) -> Stats {
        let pending = self.pending() as u64;
        let table = lock(&self.table);
        let failed = table.endpoints.iter().filter_map(|endpoint| {
            let reason = endpoint.failure.clone()?;
            Some(DialFailure { address: endpoint.address.clone(), reason })
        });
        self.counters.picture(table.peers.len() as u64, pending, failed.collect())
    }

    // ---- The end

    /// Sends what was accepted, within the time for it, and ends everything. Returns how many were not handed over.
    ///
    /// Cancelled: the socket accepts nothing any more, and ends when it is closed again or dropped.
    pub(crate) async fn close(&self) -> u64 {
        let deadline = Instant::now() + self.options.linger;
        self.closing.store(true, Ordering::SeqCst);
        self.role.stop_accepting();
        let drained = async {
            loop {
                let progress = self.progress.notified();
                tokio::pin!(progress);
                progress.as_mut().enable();
                if self.pending() == 0 || lock(&self.table).closed {
                    break;
                }
                progress.await;
            }
        };
        // What is left is counted below.
        let _ = timeout_at(deadline, drained).await;
        self.abort();
        self.tasks.wait().await;
        self.end();
        self.undelivered.load(Ordering::Relaxed)
    }

    /// Ends everything at once: the tasks, and what waits.
    pub(crate) fn shut(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.role.stop_accepting();
        self.abort();
        self.end();
    }

    /// What is left in queues is lost, and counted once.
    fn end(&self) {
        add(&self.undelivered, self.role.end());
    }

    fn abort(&self) {
        let mut table = lock(&self.table);
        table.closed = true;
        for endpoint in table.endpoints.drain(..) {
            endpoint.task.abort();
        }
        if let Some(task) = table.background.take() {
            task.abort();
        }
        table.followers.end();
        drop(table);
        self.tasks.close();
        self.connections.send_modify(|_| {});
        self.progress.notify_waiters();
    }
}

/// One of the connections a socket may have.
pub(crate) struct Seat<R: Role>(Arc<Engine<R>>);

impl<R: Role> Drop for Seat<R> {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is up. Dropping it takes it out of the socket again.
pub(crate) struct Entered<R: Role> {
    pub(crate) engine: Arc<Engine<R>>,
    pub(crate) link: R::Link,
    pub(crate) peer: Peer,
    /// Why this side ends it.
    pub(crate) why: Option<Refusal>,
}

impl<R: Role> Drop for Entered<R> {
    fn drop(&mut self) {
        let why = self.why;
        R::detach(&self.engine, &self.link);
        if let Some(why) = why {
            self.engine.counters.refuse(why);
        }
        let mut table = lock(&self.engine.table);
        table.peers.remove(&self.peer.id);
        tracing::debug!(peer = %self.peer.address, id = self.peer.id, ?why, "disconnected");
        table.followers.tell(&PeerEvent::Disconnected { peer: self.peer.clone(), why });
        self.engine.connections.send_replace(table.peers.len());
        drop(table);
        self.engine.advanced();
    }
}
