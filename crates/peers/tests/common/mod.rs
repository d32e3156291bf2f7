//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use sereno_peers::core::{
    Client as EtcdClient, ConnectOptions, KeyValue, Namespace, Session, SessionOptions,
};
use sereno_peers::{
    Address, Client, ClientOptions, Peers, PeersStream, Server, ServerOptions, Subscriber, etcd,
};
use sereno_testkit::{fresh_namespace, shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// Where the system chooses a port.
pub(crate) const ANY: &str = "tcp://127.0.0.1:0";

/// Fast, and yet nobody is gone who answers within a second: other work on the machine makes no departures.
pub(crate) fn quick() -> ServerOptions {
    ServerOptions::default()
        .recv_deadline(Duration::from_millis(500))
        .poll_time(Duration::from_millis(100))
        .settle(Duration::from_millis(20))
}

/// Clients that are back soon.
pub(crate) fn eager() -> ClientOptions {
    ClientOptions::default().reconnect(Duration::from_millis(50))
}

pub(crate) async fn server() -> Server {
    Server::bind(ANY, ANY, quick()).await.unwrap()
}

/// A client with a subscription.
pub(crate) fn client(server: &Server, name: &str) -> Client {
    Client::with_subscription(server.survey_urls(), server.pubsub_urls(), name, eager()).unwrap()
}

/// Where peers meet.
pub(crate) enum World {
    Survey(Server),
    Etcd(EtcdClient),
}

impl World {
    pub(crate) async fn survey() -> Self {
        Self::Survey(server().await)
    }

    pub(crate) async fn etcd(test: &str) -> Self {
        Self::Etcd(store(&shared().await[0], &fresh_namespace(test)).await)
    }

    /// One more peer, as if in a process of its own.
    pub(crate) async fn join(&self, name: &str) -> Box<dyn Peers> {
        match self {
            Self::Survey(server) => Box::new(client(server, name)),
            Self::Etcd(client) => {
                let session = session(client, 15).await;
                Box::new(etcd::Client::connect(&session, "g", name).await.unwrap())
            }
        }
    }

    /// Somebody who looks on.
    pub(crate) async fn onlooker(&self) -> Onlooker {
        match self {
            Self::Survey(server) => {
                Onlooker::Survey(Subscriber::connect_with(server.pubsub_urls(), eager()).unwrap())
            }
            Self::Etcd(client) => Onlooker::Etcd(etcd::Subscriber::connect(client, "g").await.unwrap()),
        }
    }
}

pub(crate) enum Onlooker {
    Survey(Subscriber),
    Etcd(etcd::Subscriber),
}

impl Onlooker {
    pub(crate) fn changes(&self) -> PeersStream {
        match self {
            Self::Survey(subscriber) => subscriber.changes(),
            Self::Etcd(subscriber) => subscriber.changes(),
        }
    }
}

pub(crate) async fn store(endpoint: &str, namespace: &str) -> EtcdClient {
    let options = ConnectOptions::default().namespace(Namespace::new(namespace).unwrap());
    EtcdClient::connect_with([endpoint], options).await.unwrap()
}

/// A session with a time to live of so many seconds.
pub(crate) async fn session(client: &EtcdClient, ttl: u64) -> Session {
    let options = SessionOptions::default().ttl(Duration::from_secs(ttl));
    Session::open_with(client, options).await.unwrap()
}

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, happening).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LONG:?} in vain for {what}"),
    }
}

/// The next list; it must come soon and be no error.
pub(crate) async fn next(stream: &mut PeersStream) -> Vec<String> {
    soon("a list", stream.next()).await.expect("an open stream").expect("no error")
}

/// Waits for this list.
pub(crate) async fn until(stream: &mut PeersStream, names: &[&str]) {
    let what = format!("{names:?}, in {stream:?}");
    soon(&what, stream.wait_for(|list| list == names)).await.unwrap();
}

/// A stream that has told this list.
pub(crate) async fn told(peers: &dyn Peers, names: &[&str]) -> PeersStream {
    let mut stream = peers.peers().unwrap();
    until(&mut stream, names).await;
    stream
}

/// A connection that speaks the bytes of a respondent and may say what it likes.
pub(crate) struct RawRespondent(TcpStream);

impl RawRespondent {
    pub(crate) async fn connect(to: &Address) -> Self {
        let Address::Tcp { host, port } = to else { panic!("not TCP: {to}") };
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        stream.write_all(b"\0SP\0\0\x63\0\0").await.unwrap();
        let mut hello = [0; 8];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"\0SP\0\0\x62\0\0");
        Self(stream)
    }

    /// The number of the next survey. Its body is empty.
    pub(crate) async fn survey(&mut self) -> u32 {
        let length = self.0.read_u64().await.unwrap();
        assert_eq!(length, 4, "a survey has a number and nothing else");
        self.0.read_u32().await.unwrap()
    }

    /// Answers so often.
    pub(crate) async fn answer(&mut self, survey: u32, names: &[impl AsRef<[u8]>]) {
        let mut bytes = Vec::new();
        for name in names {
            let name = name.as_ref();
            bytes.extend((name.len() as u64 + 4).to_be_bytes());
            bytes.extend(survey.to_be_bytes());
            bytes.extend(name);
        }
        self.0.write_all(&bytes).await.unwrap();
    }
}

/// The keys of a group.
pub(crate) async fn keys(etcd: &EtcdClient) -> Vec<KeyValue> {
    let group = etcd.namespace().prefix("peers").unwrap().join("g").unwrap();
    etcd.range(&group).await.unwrap().entries
}
