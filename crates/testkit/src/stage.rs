//! What one seeded run plays on: a server in the process, its faults, and clients of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sereno_core::{Client, ConnectOptions, Session, SessionOptions};
use sereno_embed::{Chaos, Faults, Server};
use tokio::time::Instant;

use crate::seeds::Trace;

/// How long anything may take that has no faults to fear any more, by the run's own time.
const SOON: Duration = Duration::from_secs(120);

/// A server and what happens to it. Clones are the same.
#[derive(Clone)]
pub struct Stage {
    inner: Arc<Inner>,
}

struct Inner {
    seed: u64,
    server: Server,
    steps: AtomicU64,
    started: Instant,
}

impl Stage {
    pub(crate) async fn start(seed: u64) -> Self {
        let server = Server::builder().in_process().start().await.expect("a server in the process");
        let inner = Inner { seed, server, steps: AtomicU64::new(0), started: Instant::now() };
        Self { inner: Arc::new(inner) }
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.inner.server
    }

    /// Its faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.inner.server.faults()
    }

    /// The next number: what happens is put in order by them.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.inner.steps.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins with random faults. One seed in five has all kinds of them; the others have one kind often: lost answers,
    /// cut streams, ended leases, compactions.
    pub fn disturb(&self) {
        let chaos = Chaos::seed(self.seed()).delay(0.05, Duration::from_millis(150));
        let chaos = match self.seed() % 5 {
            0 => chaos.lose_reply(0.06).lose_request(0.03).hang_reply(0.01).hang_request(0.01).refuse(0.02),
            1 => chaos.cut_streams(0.08).lose_reply(0.01).compact(0.02),
            2 => chaos.expire_lease(0.02).lose_reply(0.02),
            3 => chaos.compact(0.10).cut_streams(0.06).lose_reply(0.02),
            _ => chaos
                .lose_reply(0.03)
                .lose_request(0.02)
                .hang_reply(0.005)
                .hang_request(0.005)
                .refuse(0.01)
                .no_leader(0.01)
                .cut_streams(0.02)
                .expire_lease(0.008)
                .compact(0.03),
        };
        self.faults().random(chaos);
    }

    /// Ends all faults.
    pub fn calm(&self) {
        self.faults().calm();
    }

    /// A client whose calls may take as long as `deadline`. It dials when it is first used.
    #[must_use]
    pub fn client(&self, deadline: Duration) -> Client {
        Client::lazy_via(self.inner.server.dialer(), ConnectOptions::default().deadline(deadline))
            .expect("a client")
    }

    /// A session of a client of its own, with a time to live of 5 s and a deadline of 30 s.
    pub async fn session(&self) -> Session {
        self.session_of(&self.client(Duration::from_secs(30)), Duration::from_secs(5)).await
    }

    /// A session of that client, opened whatever gets in the way.
    pub async fn session_of(&self, client: &Client, ttl: Duration) -> Session {
        let mut last = None;
        for _ in 0..20 {
            match Session::open_with(client, SessionOptions::default().ttl(ttl)).await {
                Ok(session) => return session,
                Err(error) => last = Some(error),
            }
        }
        panic!("no session could be opened: {last:?}");
    }

    /// Waits for something that must happen by itself now that there are no faults.
    ///
    /// # Panics
    /// When it does not within two minutes of the run's own time.
    pub async fn soon<T>(&self, what: &str, happening: impl Future<Output = T>) -> T {
        match tokio::time::timeout(SOON, happening).await {
            Ok(happened) => happened,
            Err(_) => panic!("{what}: not within {SOON:?}"),
        }
    }

    /// Looks again and again, each 50 ms of the run's own time, until `probe` gives something.
    ///
    /// # Panics
    /// When it does not within two minutes of the run's own time.
    pub async fn until<T>(&self, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = probe().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        self.soon(what, looking).await
    }

    pub(crate) fn trace(&self) -> Trace {
        let status = self.inner.server.status();
        Trace {
            faults: self.faults().injected().iter().map(ToString::to_string).collect(),
            revision: status.revision,
            journal: status.journal,
            took: self.inner.started.elapsed(),
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("seed", &self.seed()).finish_non_exhaustive()
    }
}
