//! One connection of a proxy: two pumps and the faults they inject.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::proxy::{Control, Mode, ProxyStats};

const PIECE: usize = 16 * 1024;
/// Pieces under way in one direction of one connection: bounds memory under a delay.
const UNDER_WAY: usize = 256;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides had said all they wanted, or one of them broke off by itself.
    Closed,
    /// The proxy broke it.
    Reset,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    connections: AtomicU64,
    ended: AtomicU64,
    resets: AtomicU64,
    responses_dropped: AtomicU64,
    requests_dropped: AtomicU64,
    frozen: AtomicU64,
    delayed: AtomicU64,
    bytes_to_server: AtomicU64,
    bytes_to_client: AtomicU64,
    unreachable: AtomicU64,
}

fn bump(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::SeqCst)
}

impl Counters {
    /// Counts a connection and returns its number, from 0.
    pub(crate) fn opened(&self) -> u64 {
        bump(&self.connections)
    }

    pub(crate) fn closed(&self) {
        bump(&self.ended);
    }

    pub(crate) fn snapshot(&self) -> ProxyStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        // Read in this order, a connection that ends in between cannot make `open` negative.
        let ended = read(&self.ended);
        let connections = read(&self.connections);
        ProxyStats {
            connections,
            open: connections - ended,
            resets: read(&self.resets),
            responses_dropped: read(&self.responses_dropped),
            requests_dropped: read(&self.requests_dropped),
            frozen: read(&self.frozen),
            delayed: read(&self.delayed),
            bytes_to_server: read(&self.bytes_to_server),
            bytes_to_client: read(&self.bytes_to_client),
            unreachable: read(&self.unreachable),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

struct Connection<'a> {
    counters: &'a Counters,
    number: u64,
    /// With the seed they started from. Each connection has its own, or the order of the tasks would decide what breaks.
    dice: Mutex<Option<(u64, StdRng)>>,
    /// Bytes were thrown away: nothing sensible can follow on this connection.
    spoiled: AtomicBool,
    /// Which etcd member dialled, once it has said so.
    source: OnceLock<String>,
}

/// Connects to the target and passes bytes until one side ends or the proxy breaks the connection.
pub(crate) async fn relay(
    client: &TcpStream,
    number: u64,
    mut control: watch::Receiver<Control>,
    counters: &Counters,
) -> End {
    let born = control.borrow_and_update().generation;
    let connection = Connection {
        counters,
        number,
        dice: Mutex::new(None),
        spoiled: AtomicBool::new(false),
        source: OnceLock::new(),
    };
    let end = tokio::select! {
        () = connection.watched(control.clone(), born) => End::Reset,
        end = connection.pass(client, control) => end,
    };
    if end == End::Reset {
        bump(&counters.resets);
    }
    end
}

impl Connection<'_> {
    /// Ends when the connection has to be reset from outside.
    async fn watched(&self, mut control: watch::Receiver<Control>, born: u64) {
        loop {
            {
                let now = control.borrow_and_update();
                let healed = self.spoiled.load(Ordering::SeqCst) && now.mode != Mode::DropResponses;
                if now.generation != born || healed {
                    return;
                }
            }
            if control.changed().await.is_err() {
                return;
            }
        }
    }

    async fn pass(&self, client: &TcpStream, control: watch::Receiver<Control>) -> End {
        let mut gate = control.clone();
        self.thawed(&mut gate).await;
        let target = gate.borrow().target.clone();
        let Ok(server) = TcpStream::connect(&target).await else {
            bump(&self.counters.unreachable);
            return End::Closed;
        };
        server.set_nodelay(true).ok();
        let end = tokio::select! {
            end = self.pump(client, &server, Way::ToServer, control.clone()) => end,
            end = self.pump(&server, client, Way::ToClient, control) => end,
        };
        if end == End::Reset {
            server.set_zero_linger().ok();
        }
        end
    }

    async fn pump(
        &self,
        from: &TcpStream,
        to: &TcpStream,
        way: Way,
        control: watch::Receiver<Control>,
    ) -> End {
        let (send, receive) = mpsc::channel(UNDER_WAY);
        let mut gate = control.clone();
        let reading = async move {
            loop {
                let mut piece = vec![0; PIECE];
                let size = read(from, &mut piece).await.unwrap_or(0);
                if size == 0 {
                    break;
                }
                piece.truncate(size);
                let mut due = None;
                if let Mode::Delay(by) = gate.borrow_and_update().mode {
                    bump(&self.counters.delayed);
                    due = Some(Instant::now() + by);
                }
                if send.send((due, piece)).await.is_err() {
                    break;
                }
            }
            // The writer ends when it has written what is under way, and with it the connection.
            drop(send);
            std::future::pending::<End>().await
        };
        tokio::select! {
            end = reading => end,
            end = self.deliver(receive, to, way, control) => end,
        }
    }

    async fn deliver(
        &self,
        mut pieces: mpsc::Receiver<(Option<Instant>, Vec<u8>)>,
        to: &TcpStream,
        way: Way,
        mut control: watch::Receiver<Control>,
    ) -> End {
        while let Some((due, piece)) = pieces.recv().await {
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            if way == Way::ToServer
                && self.source.get().is_none()
                && let Some(source) = speaker(&piece)
            {
                self.source.get_or_init(|| source);
            }
            self.thawed(&mut control).await;
            let mode = control.borrow_and_update().mode;
            match (mode, way) {
                (Mode::DropResponses, Way::ToClient) => {
                    bump(&self.counters.responses_dropped);
                    self.spoiled.store(true, Ordering::SeqCst);
                    continue;
                }
                (Mode::Flaky(flaky), Way::ToClient)
                    if self.roll(flaky.seed, |dice| dice.random_bool(flaky.lose_response)) =>
                {
                    bump(&self.counters.responses_dropped);
                    let moment =
                        self.roll(flaky.seed, |dice| Duration::from_millis(dice.random_range(1..=30)));
                    self.swallow(&mut pieces, moment).await;
                    return End::Reset;
                }
                (Mode::Flaky(flaky), Way::ToServer)
                    if self.roll(flaky.seed, |dice| dice.random_bool(flaky.lose_request)) =>
                {
                    bump(&self.counters.requests_dropped);
                    return End::Reset;
                }
                _ => {}
            }
            let bytes = match way {
                Way::ToServer => &self.counters.bytes_to_server,
                Way::ToClient => &self.counters.bytes_to_client,
            };
            // Counted first: whoever has the answer in hand must find it counted.
            bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
            if write(to, &piece).await.is_err() {
                return End::Closed;
            }
        }
        // A cut network does not carry the news of an end either.
        self.thawed(&mut control).await;
        End::Closed
    }

    fn roll<T>(&self, seed: u64, with: impl FnOnce(&mut StdRng) -> T) -> T {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        if dice.as_ref().is_none_or(|(old, _)| *old != seed) {
            let own = seed ^ self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *dice = Some((seed, StdRng::seed_from_u64(own)));
        }
        let (_, dice) = dice.as_mut().expect("seeded above");
        with(dice)
    }

    /// Throws away what comes for `moment`, or until nothing can come any more.
    async fn swallow(&self, pieces: &mut mpsc::Receiver<(Option<Instant>, Vec<u8>)>, moment: Duration) {
        let swallowing = async {
            while pieces.recv().await.is_some() {
                bump(&self.counters.responses_dropped);
            }
        };
        tokio::time::timeout(moment, swallowing).await.ok();
    }

    fn frozen(&self, now: &Control) -> bool {
        now.mode == Mode::Blackhole || self.source.get().is_some_and(|source| now.cut.contains(source))
    }

    /// Waits while the mode is [`Mode::Blackhole`] or the one who dialled is cut off.
    async fn thawed(&self, control: &mut watch::Receiver<Control>) {
        let mut counted = false;
        while self.frozen(&control.borrow_and_update()) {
            if !counted {
                bump(&self.counters.frozen);
                counted = true;
            }
            if control.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The member that speaks, in a piece of traffic between etcd members: they name themselves in a header.
fn speaker(piece: &[u8]) -> Option<String> {
    const HEADER: &[u8] = b"X-Server-From: ";
    let start = piece.windows(HEADER.len()).position(|window| window == HEADER)? + HEADER.len();
    let end = piece[start..].iter().position(|&byte| byte == b'\r')? + start;
    String::from_utf8(piece[start..end].to_vec()).ok()
}

async fn read(from: &TcpStream, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write(to: &TcpStream, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        to.writable().await?;
        match to.try_write(piece) {
            Ok(size) => piece = &piece[size..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
