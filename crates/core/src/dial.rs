//! Wires that the caller makes: servers inside the process, unix sockets, tunnels.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use crate::error::{Error, Result};
use crate::options::ConnectOptions;

/// What a server sees as the host it was called by: the name that gRPC gives to a host that has none.
const HOST: &str = "http://localhost";

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire for IO {}

type AnyWire = Box<dyn Wire>;
type Made<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Make = dyn Fn() -> Made<io::Result<AnyWire>> + Send + Sync;

/// The caller's way to make one connection.
#[derive(Clone)]
pub(crate) struct Dial {
    make: Arc<Make>,
    patience: Duration,
}

impl Dial {
    pub(crate) fn new<F, Fut, IO>(make: F, options: &ConnectOptions) -> Result<Self>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let refuse = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if options.tls.is_some() {
            return refuse("tls", "the wire is the caller's: let the function speak TLS on it");
        }
        if options.credentials.is_some() && !options.allow_plaintext_credentials {
            return refuse(
                "credentials",
                "whether the wire is private is only known to the caller: allow_plaintext_credentials says so",
            );
        }
        let make = move || -> Made<io::Result<AnyWire>> {
            let wire = make();
            Box::pin(async move { wire.await.map(|wire| Box::new(wire) as AnyWire) })
        };
        Ok(Self { make: Arc::new(make), patience: options.attempt })
    }

    /// Makes one wire, and a channel over it. That no wire could be made is known before anything is sent. When it has
    /// broken the channel dials again for the next call.
    pub(crate) async fn channel(&self, options: &ConnectOptions) -> Result<Channel, DialError> {
        let first = Some(self.dial().await?);
        let line = Line { dial: self.clone(), first };
        Ok(Endpoint::from_static(HOST)
            .http2_keep_alive_interval(options.ping_interval)
            .keep_alive_timeout(options.attempt)
            .keep_alive_while_idle(false)
            .connect_with_connector_lazy(line))
    }

    async fn dial(&self) -> Result<AnyWire, DialError> {
        match tokio::time::timeout(self.patience, (self.make)()).await {
            Ok(made) => made.map_err(DialError),
            Err(_) => Err(DialError(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// What gives a channel its wires.
struct Line {
    dial: Dial,
    first: Option<AnyWire>,
}

impl Service<Uri> for Line {
    type Response = TokioIo<AnyWire>;
    type Error = DialError;
    type Future = Made<Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (first, dial) = (self.first.take(), self.dial.clone());
        Box::pin(async move {
            let wire = match first {
                Some(wire) => wire,
                None => dial.dial().await?,
            };
            Ok(TokioIo::new(wire))
        })
    }
}

/// No wire was made.
#[derive(Debug)]
pub(crate) struct DialError(io::Error);

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dialling failed: {}", self.0)
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
