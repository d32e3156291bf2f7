//! Which member to talk to: sticky, leaves a dead or silent one at once, and comes back to it only after a probe.
//!
//! etcd-client's own balancer spreads calls over all endpoints and never stops using a dead one, so each member has a
//! connection of its own here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::chance;
use crate::classify::{Fault, classify};
use crate::dial::Dial;
use crate::endpoint;
use crate::error::{Cause, Error, Result};
use crate::options::ConnectOptions;

/// One connection to one member. Replaced as a whole when it fails.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Behind a pointer: it is 3.5 KiB, and every future of a call would hold it.
    pub(crate) client: Arc<etcd_client::Client>,
    pub(crate) member: usize,
    /// When it was made, and its token with it.
    pub(crate) since: Instant,
    generation: u64,
}

struct Member {
    route: Route,
    slot: Mutex<Slot>,
    /// Serialises connecting, so that a password is checked once and not once per waiting call.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Slot {
    client: Option<(Arc<etcd_client::Client>, Instant)>,
    generation: u64,
    ejected: Option<Instant>,
}

/// How a member is reached.
enum Route {
    Endpoint(String),
    Dial(Dial),
}

/// All members, and the one in use.
pub(crate) struct Picker {
    members: Vec<Member>,
    current: AtomicUsize,
    options: ConnectOptions,
}

impl Picker {
    pub(crate) fn new(endpoints: Vec<String>, options: &ConnectOptions) -> Result<Self> {
        options.check()?;
        if endpoints.is_empty() {
            return Err(Error::InvalidOption { option: "endpoints", reason: "none given".into() });
        }
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            members.push(Member::new(Route::Endpoint(endpoint::parse(&endpoint, options)?)));
        }
        let first = chance::below(members.len());
        Ok(Self { current: AtomicUsize::new(first), options: options.clone(), members })
    }

    /// One member, reached by the caller's own wires.
    pub(crate) fn via(dial: Dial, options: &ConnectOptions) -> Result<Self> {
        options.check()?;
        let members = vec![Member::new(Route::Dial(dial))];
        Ok(Self { current: AtomicUsize::new(0), options: options.clone(), members })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_tls(&self, index: usize) -> bool {
        let route = self.members.get(index).map(|member| &member.route);
        matches!(route, Some(Route::Endpoint(endpoint)) if endpoint.starts_with("https://"))
    }

    /// How a member is named to people.
    pub(crate) fn name(&self, index: usize) -> &str {
        match self.members.get(index).map(|member| &member.route) {
            Some(Route::Endpoint(endpoint)) => endpoint,
            Some(Route::Dial(_)) | None => "the caller's own connection",
        }
    }

    /// The member in use, or the next one that is not ejected; when all are, the one that was so for longest.
    pub(crate) fn pick(&self) -> usize {
        let current = self.current.load(Ordering::Relaxed);
        let mut oldest: Option<(Instant, usize)> = None;
        for step in 0..self.members.len() {
            let index = (current + step) % self.members.len();
            match self.slot(index).and_then(|slot| slot.ejected) {
                None => {
                    if step > 0 {
                        self.current.store(index, Ordering::Relaxed);
                    }
                    return index;
                }
                Some(since) if oldest.is_none_or(|(before, _)| since < before) => {
                    oldest = Some((since, index))
                }
                Some(_) => {}
            }
        }
        oldest.map_or(current, |(_, index)| index)
    }

    /// The connection to a member, made and authenticated if there is none. Without credentials this does no I/O.
    pub(crate) async fn connection(&self, index: usize) -> Result<Connection, Fault> {
        let Some(member) = self.members.get(index) else {
            return Err(Fault::NotSent(Cause::new("no such member")));
        };
        if let Some(connection) = self.ready(index) {
            return Ok(connection);
        }
        let _one_at_a_time = member.connecting.lock().await;
        if let Some(connection) = self.ready(index) {
            return Ok(connection);
        }
        let wire = Some(wire_options(&self.options));
        let connected = match &member.route {
            Route::Endpoint(endpoint) => etcd_client::Client::connect([endpoint], wire).await,
            // Made anew for each connection: a channel goes on with what it has.
            Route::Dial(dial) => {
                let channel = dial.channel(&self.options).await;
                let channel = channel.map_err(|error| Fault::NotSent(Cause::new(error.to_string())))?;
                etcd_client::Client::from_channel(etcd_client::Channel::Tonic(channel), wire).await
            }
        };
        let client = Arc::new(connected.map_err(|error| match classify(&error) {
            // Nothing but an authentication was sent.
            Fault::Ambiguous(cause) => Fault::NotSent(cause),
            fault => fault,
        })?);
        let since = Instant::now();
        let mut slot = lock(&member.slot);
        slot.client = Some((client.clone(), since));
        slot.generation += 1;
        Ok(Connection { client, member: index, since, generation: slot.generation })
    }

    fn ready(&self, index: usize) -> Option<Connection> {
        let slot = self.slot(index)?;
        let (client, since) = slot.client.clone()?;
        Some(Connection { client, member: index, since, generation: slot.generation })
    }

    /// The member failed: use another one, and a new connection when it comes back. Returns whether this was news.
    pub(crate) fn eject(&self, index: usize, connection: Option<&Connection>) -> bool {
        let Some(mut slot) = self.slot(index) else { return false };
        if let Some(connection) = connection {
            if connection.generation != slot.generation {
                // Somebody else noticed first and a newer connection is in use.
                return false;
            }
            slot.client = None;
        }
        let news = slot.ejected.is_none();
        slot.ejected = Some(Instant::now());
        if news {
            tracing::debug!(member = index, "member ejected");
        }
        news
    }

    /// The connection's token is stale: the next call authenticates anew.
    pub(crate) fn forget(&self, connection: &Connection) {
        if let Some(mut slot) = self.slot(connection.member)
            && slot.generation == connection.generation
        {
            slot.client = None;
        }
    }

    /// The member answered.
    pub(crate) fn restore(&self, index: usize) {
        if let Some(mut slot) = self.slot(index)
            && slot.ejected.take().is_some()
        {
            tracing::debug!(member = index, "member restored");
        }
    }

    pub(crate) fn ejected(&self) -> Vec<usize> {
        let is_ejected = |index: &usize| self.slot(*index).is_some_and(|slot| slot.ejected.is_some());
        (0..self.members.len()).filter(is_ejected).collect()
    }

    fn slot(&self, index: usize) -> Option<MutexGuard<'_, Slot>> {
        self.members.get(index).map(|member| lock(&member.slot))
    }
}

impl Member {
    fn new(route: Route) -> Self {
        Self { route, slot: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wire_options(options: &ConnectOptions) -> etcd_client::ConnectOptions {
    let mut wire = etcd_client::ConnectOptions::new()
        .with_require_leader(true)
        .with_connect_timeout(options.attempt)
        .with_keep_alive(options.ping_interval, options.attempt)
        .with_keep_alive_while_idle(false);
    if let Some(tls) = &options.tls {
        wire = wire.with_tls(tls.config());
    }
    if let Some(credentials) = &options.credentials {
        wire = wire.with_user(&credentials.user, &credentials.password);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picker(count: usize) -> Picker {
        let endpoints = (0..count).map(|n| format!("127.0.0.1:{}", 1000 + n)).collect();
        Picker::new(endpoints, &ConnectOptions::default()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_sticky_and_leaves_an_ejected_member() {
        let picker = picker(3);
        let first = picker.pick();
        assert_eq!(picker.pick(), first);
        assert!(picker.eject(first, None));
        let second = picker.pick();
        assert_ne!(second, first);
        picker.restore(first);
        assert_eq!(picker.pick(), second, "a restored member is not returned to without need");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_ejected_the_one_ejected_longest_is_tried() {
        let picker = picker(3);
        for index in [1, 2, 0] {
            picker.eject(index, None);
            tokio::time::advance(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(picker.pick(), 1);
        picker.eject(1, None);
        assert_eq!(picker.pick(), 2);
    }

    #[test]
    fn without_endpoints_there_is_no_picker() {
        let error = Picker::new(Vec::new(), &ConnectOptions::default()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
    }
}
