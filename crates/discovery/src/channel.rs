//! A gRPC channel to all hosts of a service.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::reachable::{HostKey, Reachable, Step};

/// So many steps may wait for the channel, which takes them when there is a request.
const CAPACITY: usize = 1024;
/// The ports that are looked for when none is named.
const AUTOMATIC: [&str; 2] = ["grpc", "http"];

type Configure = Arc<dyn Fn(&Host, Endpoint) -> Endpoint + Send + Sync>;

/// Options of [`balanced_channel`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// The name of the port in [`Host::ports`]. Default: empty, `grpc` if there is one, else `http`.
    pub port: String,
    /// The scheme of the URLs, `http` or `https`. Default: `http`. For `https`, turn TLS on in tonic and set it with
    /// [`ChannelOptions::configure`].
    pub scheme: String,
    /// Whether hosts are reached under their public names. Default: no, by their private ones where they have any.
    pub public: bool,
    /// How long connecting may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// How often a connection is asked whether it still works, also when it is idle; a host that is gone without a word is
    /// noticed by it. Default: 10 s. Most servers refuse less than 6 s.
    pub keep_alive: Duration,
    /// How long it may take to answer that. Default: 5 s.
    pub keep_alive_timeout: Duration,
    configure: Option<Configure>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            port: String::new(),
            scheme: "http".into(),
            public: false,
            connect_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            configure: None,
        }
    }
}

impl ChannelOptions {
    /// Sets [`ChannelOptions::port`].
    #[must_use]
    pub fn port(mut self, port: impl Into<String>) -> Self {
        self.port = port.into();
        self
    }

    /// Sets [`ChannelOptions::scheme`].
    #[must_use]
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Sets [`ChannelOptions::public`].
    #[must_use]
    pub fn public(mut self, public: bool) -> Self {
        self.public = public;
        self
    }

    /// Sets [`ChannelOptions::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`ChannelOptions::keep_alive`].
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Sets [`ChannelOptions::keep_alive_timeout`].
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Has the last word on how a host is connected to: TLS, limits, windows. Default: none.
    #[must_use]
    pub fn configure(
        mut self,
        configure: impl Fn(&Host, Endpoint) -> Endpoint + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Arc::new(configure));
        self
    }

    fn endpoint(&self, host: &Host) -> Option<Endpoint> {
        let named = Some(self.port.as_str()).filter(|port| !port.is_empty());
        let names = named.as_ref().map_or(AUTOMATIC.as_slice(), std::slice::from_ref);
        let address = names.iter().find_map(|name| host.address(self.public, name))?;
        let endpoint = Endpoint::from_shared(format!("{}://{address}", self.scheme)).ok()?;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(true);
        Some(match &self.configure {
            Some(configure) => configure(host, endpoint),
            None => endpoint,
        })
    }
}

impl fmt::Debug for ChannelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("port", &self.port)
            .field("scheme", &self.scheme)
            .field("public", &self.public)
            .field("connect_timeout", &self.connect_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("keep_alive_timeout", &self.keep_alive_timeout)
            .finish_non_exhaustive()
    }
}

/// A channel that shares its requests out among the hosts of a service, as they come and go: to the one with fewer requests
/// under way of two that are drawn by chance.
///
/// `changes` is a [`Changes`](crate::Changes), or the stream of a [`ServiceDirectory`](crate::ServiceDirectory). A host
/// that is draining, or has no weight, gets no further request, and what is under way there ends well. Hosts without such a port are
/// passed over, with a word in the log. While there is no host, requests wait: give them a deadline.
///
/// A task follows the changes until the last clone of the channel is dropped; after an error of the stream, which no state of
/// etcd's causes, the channel stays with the hosts it has. No RPC of its own.
///
/// # Errors
/// [`Stopped`](sereno_core::Error::Stopped) outside of a tokio runtime.
pub fn balanced_channel(
    changes: impl Stream<Item = Result<crate::Change>> + Send + 'static,
    options: ChannelOptions,
) -> Result<Channel> {
    let runtime = Handle::try_current().map_err(|_| Error::Core(sereno_core::Error::Stopped))?;
    let (channel, steps) = Channel::balance_channel(CAPACITY);
    runtime.spawn(async move {
        tokio::select! {
            biased;
            () = steps.closed() => {}
            () = follow(changes, &steps, &options) => {}
        }
    });
    Ok(channel)
}

/// Until the stream has ended, or the channel is gone.
async fn follow(
    changes: impl Stream<Item = Result<crate::Change>>,
    steps: &mpsc::Sender<Change<HostKey, Endpoint>>,
    options: &ChannelOptions,
) {
    let mut changes = pin!(changes);
    let mut reachable = Reachable::default();
    loop {
        match poll_fn(|cx| changes.as_mut().poll_next(cx)).await {
            Some(Ok(change)) => reachable.take(change),
            Some(Err(error)) => {
                tracing::warn!(%error, "a channel does not follow its service any more");
                return;
            }
            None => return,
        }
        while let Some(step) = reachable.next() {
            let step = match step {
                Step::Remove(key) => Change::Remove(key),
                Step::Insert(key, host) => match options.endpoint(&host) {
                    Some(endpoint) => Change::Insert(key, endpoint),
                    None => {
                        tracing::warn!(%host, port = options.port, "passed over a host that has no such port");
                        continue;
                    }
                },
            };
            if steps.send(step).await.is_err() {
                return;
            }
        }
    }
}
