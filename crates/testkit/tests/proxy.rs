//! The proxy's modes, against a server that echoes; no etcd needed.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use sereno_testkit::{Flaky, Mode, Proxy, ProxyStats, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(120);
const MOMENT: Duration = Duration::from_millis(150);

/// A server that sends back what it hears, with `mark` before each piece.
async fn echo(mark: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut piece = [0; 1024];
                while let Ok(size) = stream.read(&mut piece).await {
                    if size == 0 || stream.write_all(&[&[mark], &piece[..size]].concat()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.endpoint().trim_start_matches("http://")).await.unwrap()
}

/// Sends one byte and returns what comes back.
async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<[u8; 2]> {
    stream.write_all(&[byte]).await?;
    let mut answer = [0; 2];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("neither an answer nor an end")?;
    Ok(answer)
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(MOMENT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn pass_passes_and_counts() {
    let proxy = Proxy::to(echo(b'>').await).await;
    assert_eq!(proxy.stats(), ProxyStats::default());
    let mut stream = dial(&proxy).await;
    assert_eq!(ask(&mut stream, b'a').await.unwrap(), *b">a");
    let stats = proxy.stats();
    assert_eq!((stats.connections, stats.open, stats.faults()), (1, 1, 0));
    assert_eq!((stats.bytes_to_server, stats.bytes_to_client), (1, 2));
    drop(stream);
    eventually(SOON, "the connection to end", async || (proxy.stats().open == 0).then_some(())).await;
    assert_eq!(proxy.stats().resets, 0);
}

#[tokio::test]
async fn blackhole_accepts_freezes_and_heals_without_loss() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let mut old = dial(&proxy).await;
    ask(&mut old, b'a').await.unwrap();
    proxy.blackhole().await;
    old.write_all(b"b").await.unwrap();
    let mut new = dial(&proxy).await;
    new.write_all(b"c").await.unwrap();
    assert!(silent(&mut old).await && silent(&mut new).await);
    assert_eq!(proxy.stats().bytes_to_server, 1);
    assert!(proxy.stats().frozen >= 2);
    proxy.pass().await;
    let mut answer = [0; 2];
    timeout(SOON, old.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, *b">b");
    timeout(SOON, new.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, *b">c");
}

#[tokio::test]
async fn drop_responses_lets_requests_through_and_breaks_the_connection_when_it_ends() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    proxy.drop_responses().await;
    stream.write_all(b"b").await.unwrap();
    assert!(silent(&mut stream).await);
    let stats = proxy.stats();
    assert_eq!((stats.bytes_to_server, stats.bytes_to_client, stats.responses_dropped), (2, 2, 1));
    proxy.pass().await;
    timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(proxy.stats().resets, 1);
}

#[tokio::test]
async fn a_connection_that_lost_nothing_survives_drop_responses() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    proxy.drop_responses().await;
    proxy.pass().await;
    assert_eq!(ask(&mut stream, b'b').await.unwrap(), *b">b");
}

#[tokio::test]
async fn reset_breaks_what_is_there_and_lets_new_connections_in() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let (mut one, mut two) = (dial(&proxy).await, dial(&proxy).await);
    ask(&mut one, b'a').await.unwrap();
    ask(&mut two, b'a').await.unwrap();
    proxy.reset();
    for stream in [&mut one, &mut two] {
        let error = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.stats().resets, 2);
    assert_eq!(ask(&mut dial(&proxy).await, b'b').await.unwrap(), *b">b");
}

#[tokio::test]
async fn reset_reaches_connections_in_a_black_hole() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    proxy.blackhole().await;
    proxy.reset();
    timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn refuse_closes_the_door_and_opens_it_again_at_the_same_address() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let address = proxy.endpoint().replace("http://", "");
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    proxy.refuse().await;
    timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    let refused = TcpStream::connect(&address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.refuse().await;
    proxy.pass().await;
    assert_eq!(ask(&mut dial(&proxy).await, b'b').await.unwrap(), *b">b");
}

#[tokio::test]
async fn delay_holds_each_direction_back_and_keeps_the_order() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    proxy.delay(Duration::from_millis(100)).await;
    let asked = Instant::now();
    assert_eq!(ask(&mut stream, b'b').await.unwrap(), *b">b");
    assert!(asked.elapsed() >= Duration::from_millis(200), "{:?}", asked.elapsed());
    // Pieces under way do not wait for each other: ten in a row cost one delay, not ten.
    proxy.delay(Duration::from_secs(1)).await;
    let sent = Instant::now();
    for byte in 0..10 {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 10 {
        let byte = timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
        if byte != b'>' {
            heard.push(byte);
        }
    }
    assert_eq!(heard, (0..10).collect::<Vec<u8>>());
    assert!(sent.elapsed() < Duration::from_secs(15), "{:?}", sent.elapsed());
    assert!(proxy.stats().delayed >= 4);
}

#[tokio::test]
async fn retarget_leads_elsewhere_and_breaks_the_old_connections() {
    let proxy = Proxy::to(echo(b'1').await).await;
    let mut stream = dial(&proxy).await;
    assert_eq!(ask(&mut stream, b'a').await.unwrap(), *b"1a");
    proxy.retarget(echo(b'2').await);
    timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(ask(&mut dial(&proxy).await, b'b').await.unwrap(), *b"2b");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_closed_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let proxy = Proxy::to(nobody).await;
    timeout(SOON, dial(&proxy).await.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(proxy.stats().unreachable, 1);
}

/// How many questions are answered before the connection breaks.
async fn answered(mode: Mode) -> (usize, ProxyStats) {
    let proxy = Proxy::to(echo(b'>').await).await;
    proxy.set(mode).await;
    let mut stream = dial(&proxy).await;
    for count in 0..10_000 {
        if ask(&mut stream, b'a').await.is_err() {
            return (count, proxy.stats());
        }
    }
    panic!("10,000 answers over a flaky wire");
}

#[tokio::test]
async fn a_flaky_wire_breaks_at_the_same_place_for_the_same_seed() {
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..5 {
        let mode = Mode::Flaky(Flaky::new(0.02, seed));
        let (first, stats) = answered(mode).await;
        let (again, _) = answered(mode).await;
        assert_eq!(first, again);
        assert_eq!((stats.resets, stats.responses_dropped, stats.requests_dropped), (1, 1, 0));
        places.insert(first);
    }
    assert!(places.len() > 1, "five seeds, one place: {places:?}");
}

#[tokio::test]
async fn a_flaky_wire_can_lose_requests() {
    let (answers, stats) = answered(Mode::Flaky(Flaky::new(0.0, 1).lose_request(0.02))).await;
    assert_eq!((stats.resets, stats.responses_dropped, stats.requests_dropped), (1, 0, 1));
    assert_eq!(stats.bytes_to_server, answers as u64, "the lost request must not reach the server");
}

#[tokio::test]
async fn a_dropped_proxy_closes_everything() {
    let proxy = Proxy::to(echo(b'>').await).await;
    let address = proxy.endpoint().replace("http://", "");
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b'a').await.unwrap();
    drop(proxy);
    timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    eventually(SOON, "the listener to go", async || TcpStream::connect(&address).await.err()).await;
}
