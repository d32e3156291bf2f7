//! A TCP proxy whose faults are switched while it runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::wire::{self, Counters};
use crate::{engine, place};

/// What a [`Proxy`] does with the bytes of both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Connections are accepted and nothing moves, on old ones as on new ones. Nothing is lost either: when the mode
    /// ends, the bytes flow on, as they do when a network heals.
    Blackhole,
    /// Requests reach the server; from now on its answers are thrown away. A connection that lost bytes is reset when the
    /// mode ends, because nothing sensible can follow on it.
    DropResponses,
    /// Nobody listens: new connections are refused, old ones were reset.
    Refuse,
    /// Every byte comes this much later, in each direction, so a round trip takes twice as much longer.
    Delay(Duration),
    /// Connections break at random moments.
    Flaky(Flaky),
}

/// How [`Mode::Flaky`] breaks connections. The same seed and the same traffic break at the same places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flaky {
    /// Probability, per piece of an answer that passes (a piece is one read, at most 16 KiB), that it and everything the
    /// server says for the next 1 to 30 ms is thrown away and the connection is then reset. The requests of that moment
    /// were served: their callers do not know.
    pub lose_response: f64,
    /// Probability, per piece of a request, that it is thrown away and the connection is reset at once. Its caller cannot
    /// tell this from a lost response, but nothing was done. Default 0.
    pub lose_request: f64,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Flaky {
    /// Loses responses only.
    #[must_use]
    pub fn new(lose_response: f64, seed: u64) -> Self {
        assert!((0.0..=1.0).contains(&lose_response), "{lose_response} is not a probability");
        Self { lose_response, lose_request: 0.0, seed }
    }

    /// Loses requests too.
    #[must_use]
    pub fn lose_request(mut self, probability: f64) -> Self {
        assert!((0.0..=1.0).contains(&probability), "{probability} is not a probability");
        self.lose_request = probability;
        self
    }
}

/// What a proxy has seen and done so far. Compare two of these to prove that a fault really happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections accepted and not yet ended.
    pub open: u64,
    /// Connections reset on purpose.
    pub resets: u64,
    /// Pieces of answers thrown away.
    pub responses_dropped: u64,
    /// Pieces of requests thrown away.
    pub requests_dropped: u64,
    /// Pieces held back by [`Mode::Blackhole`], and connections made in it.
    pub frozen: u64,
    /// Pieces delayed.
    pub delayed: u64,
    /// Bytes passed on to the server.
    pub bytes_to_server: u64,
    /// Bytes passed on to the client.
    pub bytes_to_client: u64,
    /// Connections closed because the server could not be reached.
    pub unreachable: u64,
}

impl ProxyStats {
    /// All faults together.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.resets + self.responses_dropped + self.requests_dropped + self.frozen + self.delayed
    }
}

/// State that the connections of a proxy look at.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) mode: Mode,
    /// Connections born under an earlier generation are reset.
    pub(crate) generation: u64,
    pub(crate) target: String,
    /// Ids of etcd members whose connections are frozen, whatever the mode.
    pub(crate) cut: BTreeSet<String>,
}

/// A proxy on a loopback port in front of one endpoint. Dropping it closes everything.
///
/// It runs on threads of its own, so a test may block its runtime and the fault goes on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    scheme: String,
    control: Arc<watch::Sender<Control>>,
    counters: Arc<Counters>,
    listening: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// One change of mode at a time: opening and closing the listener takes two steps.
    turn: Arc<Semaphore>,
}

impl Proxy {
    /// A passing proxy in front of `endpoint`, a URL (or plain `host:port`).
    pub async fn to(endpoint: impl AsRef<str>) -> Self {
        let (scheme, target) = parse(endpoint.as_ref());
        let control = Control { mode: Mode::Pass, generation: 0, target, cut: BTreeSet::new() };
        let control = Arc::new(watch::channel(control).0);
        let counters = Arc::new(Counters::default());
        // Not port 0: the kernel could hand the port to somebody else while `Refuse` leaves it open.
        let listener = engine::run(async { TcpListener::bind(("127.0.0.1", place::port())).await });
        let listener = listener.await.expect("a port that was free just now");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = accept(listener, Arc::clone(&control), Arc::clone(&counters));
        let listening = Arc::new(Mutex::new(Some(task)));
        Self { address, scheme, control, counters, listening, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The URL to give to a client, with the scheme of the endpoint behind.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Switches the mode, for old connections and new ones. When this returns, the mode is in force.
    ///
    /// # Panics
    /// When [`Mode::Refuse`] ends and another process has taken the port meanwhile.
    pub async fn set(&self, mode: Mode) {
        let (control, counters) = (Arc::clone(&self.control), Arc::clone(&self.counters));
        let (listening, turn) = (Arc::clone(&self.listening), Arc::clone(&self.turn));
        let address = self.address;
        engine::run(async move {
            let _turn = turn.acquire().await.expect("never closed");
            if mode == Mode::Refuse {
                let task = lock(&listening).take();
                if let Some(task) = task {
                    task.abort();
                    // The listener is closed when its task is gone, not when it is told to go.
                    task.await.ok();
                }
                control.send_modify(|now| {
                    now.generation += 1;
                    now.mode = mode;
                });
                return;
            }
            control.send_modify(|now| now.mode = mode);
            if lock(&listening).is_none() {
                let listener = TcpListener::bind(address).await.expect("the proxy's port must still be free");
                *lock(&listening) = Some(accept(listener, Arc::clone(&control), Arc::clone(&counters)));
            }
        })
        .await;
    }

    /// [`Mode::Pass`].
    pub async fn pass(&self) {
        self.set(Mode::Pass).await;
    }

    /// [`Mode::Blackhole`].
    pub async fn blackhole(&self) {
        self.set(Mode::Blackhole).await;
    }

    /// [`Mode::DropResponses`].
    pub async fn drop_responses(&self) {
        self.set(Mode::DropResponses).await;
    }

    /// [`Mode::Refuse`].
    pub async fn refuse(&self) {
        self.set(Mode::Refuse).await;
    }

    /// [`Mode::Delay`].
    pub async fn delay(&self, each_way: Duration) {
        self.set(Mode::Delay(each_way)).await;
    }

    /// [`Mode::Flaky`], losing responses only.
    pub async fn flaky(&self, probability: f64, seed: u64) {
        self.set(Mode::Flaky(Flaky::new(probability, seed))).await;
    }

    /// The mode in force.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.control.borrow().mode
    }

    /// Resets (RST) every connection there is, and leaves the mode alone.
    pub fn reset(&self) {
        self.control.send_modify(|now| now.generation += 1);
    }

    /// Puts another server behind the same address and resets every connection to the old one.
    pub fn retarget(&self, endpoint: impl AsRef<str>) {
        let (_, target) = parse(endpoint.as_ref());
        self.control.send_modify(|now| {
            now.generation += 1;
            now.target = target;
        });
    }

    /// Freezes the connections that these etcd members (ids in hexadecimal) have dialled, and thaws all others.
    pub(crate) fn cut(&self, members: BTreeSet<String>) {
        self.control.send_modify(|now| now.cut = members);
    }

    /// What it has seen and done so far.
    #[must_use]
    pub fn stats(&self) -> ProxyStats {
        self.counters.snapshot()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.listening).take() {
            task.abort();
        }
        self.control.send_modify(|now| now.generation += 1);
    }
}

fn accept(
    listener: TcpListener,
    control: Arc<watch::Sender<Control>>,
    counters: Arc<Counters>,
) -> JoinHandle<()> {
    engine::runtime().spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let number = counters.opened();
            let control = control.subscribe();
            let counters = Arc::clone(&counters);
            tokio::spawn(async move {
                serve(client, number, control, &counters).await;
                counters.closed();
            });
        }
    })
}

async fn serve(client: TcpStream, number: u64, control: watch::Receiver<Control>, counters: &Counters) {
    // Small frames must not wait for each other: the proxy should add faults, not latency.
    client.set_nodelay(true).ok();
    if wire::relay(&client, number, control, counters).await == wire::End::Reset {
        client.set_zero_linger().ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(endpoint: &str) -> (String, String) {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    (scheme.to_owned(), rest.trim_end_matches('/').to_owned())
}
