//! A gRPC channel that follows a service. The servers are etcds within the process: what counts is who is asked.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures_core::Stream;
use sereno_discovery::core::CancellationToken;
use sereno_discovery::{
    Change, ChangeStream, ChannelOptions, FakeWorld, Host, Result, ServiceDirectory, ServiceRegistration,
    ServiceRegistry, balanced_channel,
};
use sereno_testkit::embed::Server;
use sereno_testkit::eventually;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

/// Messages as bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = &'static [u8];
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = &'static [u8];
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Writes a key wherever the channel leads.
async fn put(channel: &Channel) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    // The message: field 1, the key, and field 2, the value, of one byte each.
    let request = Request::new(b"\x0a\x01k\x12\x01v".as_slice());
    let path = "/etcdserverpb.KV/Put".parse().unwrap();
    grpc.unary(request, path, Raw).await.map(drop)
}

/// How many keys have been written there.
fn asked(server: &Server) -> i64 {
    server.status().revision - 1
}

fn register(world: &FakeWorld, server: &Server) -> Box<dyn ServiceRegistration> {
    let host = Host::new("127.0.0.1").port("grpc", server.address().unwrap().port());
    world.registry().register("api", host).unwrap()
}

async fn channel(world: &FakeWorld) -> Channel {
    let changes = world.directory().watch("api", "").await.unwrap();
    balanced_channel(changes, ChannelOptions::default()).unwrap()
}

/// Sends requests until so many in a row have left `server` alone.
async fn until_left_alone(channel: &Channel, server: &Server) {
    eventually(LONG, "nothing is sent there", async || {
        let before = asked(server);
        for _ in 0..50 {
            put(channel).await.ok()?;
        }
        (asked(server) == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_reach_hosts_that_were_added_later_and_none_that_were_removed() {
    let world = FakeWorld::new();
    let (one, two) = (Server::start().await.unwrap(), Server::start().await.unwrap());
    let first = register(&world, &one);
    let channel = channel(&world).await;
    put(&channel).await.unwrap();
    assert_eq!(asked(&one), 1);

    let second = register(&world, &two);
    eventually(LONG, "the second is asked", async || {
        put(&channel).await.unwrap();
        (asked(&two) > 0).then_some(())
    })
    .await;

    first.drain().await.unwrap();
    until_left_alone(&channel, &one).await;
    first.resume().await.unwrap();
    let before = asked(&one);
    eventually(LONG, "the first is asked again", async || {
        put(&channel).await.unwrap();
        (asked(&one) > before).then_some(())
    })
    .await;

    second.stop().await.unwrap();
    until_left_alone(&channel, &two).await;
    // And one that is reached elsewhere now is asked there.
    let three = Server::start().await.unwrap();
    first.update(Host::new("127.0.0.1").port("http", three.address().unwrap().port())).await.unwrap();
    until_left_alone(&channel, &one).await;
    assert!(asked(&three) > 0);
}

#[tokio::test]
async fn a_request_waits_for_the_first_host_that_can_be_reached() {
    let world = FakeWorld::new();
    let server = Server::start().await.unwrap();
    let useless = world.registry().register("api", Host::new("h").port("ftp", 21)).unwrap();
    let channel = channel(&world).await;
    let mut waiting = Box::pin(put(&channel));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    let host = register(&world, &server);
    tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(asked(&server), 1);
    drop((useless, host));
}

/// A stream that says when it is dropped.
struct Watched {
    changes: ChangeStream,
    dropped: CancellationToken,
}

impl Stream for Watched {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.as_mut().poll_next(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

#[tokio::test]
async fn following_ends_with_the_channel() {
    let world = FakeWorld::new();
    let server = Server::start().await.unwrap();
    let host = register(&world, &server);
    let dropped = CancellationToken::new();
    let changes = world.directory().watch("api", "").await.unwrap();
    let watched = Watched { changes, dropped: dropped.clone() };
    let channel = balanced_channel(watched, ChannelOptions::default()).unwrap();
    put(&channel).await.unwrap();
    assert!(!dropped.is_cancelled());
    drop(channel);
    tokio::time::timeout(LONG, dropped.cancelled()).await.unwrap();
    drop(host);
}

#[test]
fn without_a_runtime_there_is_no_channel() {
    let world = FakeWorld::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let changes = runtime.block_on(world.directory().watch("api", "")).unwrap();
    assert!(balanced_channel(changes, ChannelOptions::default()).is_err());
}
