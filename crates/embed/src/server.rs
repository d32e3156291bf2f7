//! The server, from start to stop.

use std::fmt;
use std::future::Ready;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::builder::Builder;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::http;
use crate::service::{Cluster, Kv, Lease, Maintenance, Watch};
use crate::status::Status;
use crate::store::{Identity, State};
use crate::wire::{Pipe, Wire};

/// How many connections wait to be taken.
const BACKLOG: usize = 256;
/// How many bytes are under way on a connection within the process.
const PIPE: usize = 256 << 10;
/// The largest message taken off the wire: larger than what etcd takes, so that the refusal can be worded as its.
const MAX_MESSAGE: usize = 64 << 20;
/// How much a client may send, or be sent, before it is heard: enough for a large value in one piece.
const WINDOW: u32 = 4 << 20;
/// How long requests may take to end when the server is stopped.
const GRACE: Duration = Duration::from_secs(1);

/// A running etcd server. Dropping it ends it at once; see [`Server::stop`] for a better way.
pub struct Server {
    engine: Arc<Engine>,
    faults: Faults,
    options: Builder,
    address: Option<SocketAddr>,
    incoming: mpsc::Sender<io::Result<Wire>>,
    /// Takes connections off the port, while there is one.
    listener: Mutex<Option<AbortOnDropHandle<()>>>,
    stopping: Option<oneshot::Sender<()>>,
    serving: Option<AbortOnDropHandle<()>>,
    _leases: AbortOnDropHandle<()>,
}

impl Server {
    /// Starts a server on a free port of this machine, with the defaults of [`Server::builder`].
    ///
    /// # Errors
    /// As [`Builder::start`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Options for a server: finish with [`Builder::start`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn launch(options: Builder) -> Result<Self> {
        let listener = match options.listen {
            Some(address) => Some(bind(address, options.any_address).await?),
            None => None,
        };
        let address = match &listener {
            Some(listener) => listener.local_addr().ok(),
            None => None,
        };
        let clock = options.clock.clone().unwrap_or_else(Clock::real);
        let state = new_state(identity(), &options);
        let engine = Engine::new(state, clock);
        let (incoming, queue) = mpsc::channel(BACKLOG);
        let (stopping, stop) = oneshot::channel();
        let routes = routes(&engine, &endpoint(address), options.progress_interval);
        let queue = futures_util::stream::unfold(queue, |mut queue| async move {
            let wire = queue.recv().await?;
            Some((wire, queue))
        });
        let serving = tonic::transport::Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .http2_adaptive_window(Some(false))
            .add_routes(routes)
            .serve_with_incoming_shutdown(Box::pin(queue), async {
                // A sender that was dropped says the same.
                let _ = stop.await;
            });
        let serving = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the server has ended");
            }
        });
        let leases = tokio::spawn(Engine::watch_leases(Arc::downgrade(&engine)));
        let server = Self {
            faults: Faults::new(Arc::clone(&engine)),
            engine,
            options,
            address,
            incoming,
            listener: Mutex::default(),
            stopping: Some(stopping),
            serving: Some(AbortOnDropHandle::new(serving)),
            _leases: AbortOnDropHandle::new(leases),
        };
        if let Some(listener) = listener {
            server.accept(listener);
        }
        Ok(server)
    }

    fn accept(&self, listener: TcpListener) {
        let task = tokio::spawn(accept(listener, Arc::clone(&self.engine), self.incoming.clone()));
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(task));
    }

    /// The URL for clients: `http://127.0.0.1:` and the port. Without a port, a name that leads nowhere.
    #[must_use]
    pub fn endpoint(&self) -> String {
        endpoint(self.address)
    }

    /// Where it listens; `None` for a server within the process only.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A channel to the server without TCP, for etcd-client's `Client::from_channel` and other tonic clients. It
    /// connects on first use, and again whenever its connection has been cut.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let dialer = self.connector();
        Endpoint::from_static("http://sereno.embed")
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .connect_with_connector_lazy(service_fn(move |_: Uri| {
                let dialer = dialer.clone();
                async move { dialer.dial().map(TokioIo::new) }
            }))
    }

    /// One new connection to the server without TCP.
    ///
    /// # Errors
    /// `ConnectionRefused` while the server is down.
    pub fn dial(&self) -> io::Result<DuplexStream> {
        self.connector().dial()
    }

    /// What makes connections to the server without TCP: hand it to `sereno_core::Client::connect_via`. Each call is one
    /// [`Server::dial`].
    pub fn dialer(
        &self,
    ) -> impl Fn() -> Ready<io::Result<DuplexStream>> + Clone + Send + Sync + 'static + use<> {
        let dialer = self.connector();
        move || std::future::ready(dialer.dial())
    }

    fn connector(&self) -> Dialer {
        Dialer { engine: Arc::clone(&self.engine), incoming: self.incoming.clone() }
    }

    /// The clock its leases live by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.engine.clock
    }

    /// Returns the handle that injects faults into this server.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What it holds at this moment. Reads every key, for the checksum.
    #[must_use]
    pub fn status(&self) -> Status {
        self.engine.with(|state, _| Status::of(state))
    }

    /// Stops the server like `kill -9` stops etcd: the port is closed and every connection is reset. Its data stays, as on
    /// a disk, and leases do not expire while it is down. Does nothing when it is down already.
    pub async fn kill(&self) {
        self.engine.down.store(true, Ordering::Release);
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.engine.settle_leases();
        self.engine.wires.cut_all();
        if let Some(listener) = listener {
            listener.abort();
            // Whether it ended by itself or was told to: the port is free then.
            let _ = listener.await;
        }
        self.engine.wires.cut_all();
        // What was frozen has been cut, and what is started again is not frozen.
        self.thaw();
    }

    /// Starts the server again after [`Server::kill`], with the same data and address. Every lease has its whole time to
    /// live again, as in etcd after an election. Does nothing when it is up.
    ///
    /// # Errors
    /// [`Error::Listen`] when the port is in use by another program.
    pub async fn revive(&self) -> Result<()> {
        if !self.engine.down.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(address) = self.address {
            self.accept(bind(address, self.options.any_address).await?);
        }
        self.engine.with(|state, _| state.identity.term += 1);
        self.engine.down.store(false, Ordering::Release);
        self.engine.settle_leases();
        Ok(())
    }

    /// Pauses the server like SIGSTOP pauses etcd: connections stay open and new ones are accepted, but nothing is
    /// answered. The time of leases goes on.
    pub fn freeze(&self) {
        self.engine.wires.set_frozen(true);
        self.engine.with(|state, _| state.pause_leases());
    }

    /// Ends [`Server::freeze`]. Leases whose time ran out meanwhile expire now.
    pub fn thaw(&self) {
        self.engine.with(|state, _| state.unpause_leases());
        self.engine.wires.set_frozen(false);
    }

    /// Empties the store but keeps the cluster and member ids: clients see a member that lost its disk and was started
    /// again with the same flags. Connections are reset.
    pub fn wipe(&self) {
        self.engine.wires.cut_all();
        self.engine.with(|state, _| {
            let mut fresh = new_state(state.identity, &self.options);
            fresh.keep_suspension(state);
            *state = fresh;
        });
    }

    /// Stops the server. Streams end, requests in flight have up to 1 s to finish, and the port is free on return.
    ///
    /// # Cancel safety
    /// Dropping the future drops the server.
    pub async fn stop(mut self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.abort();
            let _ = listener.await;
        }
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.send(());
        }
        self.engine.cut_streams();
        self.thaw();
        if let Some(serving) = self.serving.take() {
            // Whoever is not done by then is cut off when the server is dropped.
            let _ = tokio::time::timeout(GRACE, serving).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.engine.down.store(true, Ordering::Release);
        self.engine.wires.cut_all();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

/// Makes connections to a server within the process.
#[derive(Clone)]
struct Dialer {
    engine: Arc<Engine>,
    incoming: mpsc::Sender<io::Result<Wire>>,
}

impl Dialer {
    fn dial(&self) -> io::Result<DuplexStream> {
        if self.engine.down.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let wire = self.engine.wires.connect(Pipe::Memory(theirs));
        match self.incoming.try_send(Ok(wire)) {
            Ok(()) => Ok(ours),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

fn endpoint(address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => format!("http://{address}"),
        None => "http://sereno.embed".to_owned(),
    }
}

async fn bind(address: SocketAddr, any: bool) -> Result<TcpListener> {
    if !any && !address.ip().is_loopback() {
        return Err(Error::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

async fn accept(listener: TcpListener, engine: Arc<Engine>, incoming: mpsc::Sender<io::Result<Wire>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if incoming.send(Ok(wire(&engine, stream))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may be given back.
                tracing::warn!(%error, "a connection was not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn wire(engine: &Engine, stream: TcpStream) -> Wire {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers will be slow");
    }
    engine.wires.connect(Pipe::Tcp(stream))
}

fn routes(engine: &Arc<Engine>, endpoint: &str, progress_interval: Duration) -> Routes {
    let engine = || Arc::clone(engine);
    let kv = PbKvServer::new(Kv(engine())).max_decoding_message_size(MAX_MESSAGE);
    let kv = kv.max_encoding_message_size(usize::MAX);
    let watch = PbWatchServer::new(Watch { engine: engine(), progress_interval });
    let cluster = Cluster { engine: engine(), endpoint: endpoint.to_owned() };
    let routes = Routes::new(kv)
        .add_service(watch.max_encoding_message_size(usize::MAX))
        .add_service(PbLeaseServer::new(Lease(engine())))
        .add_service(PbMaintenanceServer::new(Maintenance(engine())))
        .add_service(PbClusterServer::new(cluster));
    Routes::from(http::pages(routes.into_axum_router(), &engine()))
}

fn new_state(identity: Identity, options: &Builder) -> State {
    State::new(identity, options.version, options.min_lease_ttl, options.quota_bytes)
}

fn identity() -> Identity {
    Identity { cluster: rand::random::<u64>() | 1, member: rand::random::<u64>() | 1, term: 2 }
}
