//! Sends any request to one etcd, exactly as it is, and hands back the whole answer.

use std::fmt;
use std::time::Duration;

use futures_util::stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longer than any answer takes, short enough that a server which went silent is told soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a call was refused with: all that a client can see of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.code, self.message)
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// One etcd, spoken to in bare protobuf.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    channel: Channel,
}

impl Wire {
    pub(crate) fn to(endpoint: &str) -> Self {
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("an endpoint is a URL");
        Self { channel: endpoint.connect_lazy() }
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Refused> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let ready = grpc.ready().await;
        ready.map_err(|error| Refused { code: Code::Unavailable, message: error.to_string() })?;
        Ok(grpc)
    }

    /// One unary call.
    pub(crate) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Refused>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(Refused::from)
        };
        timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(silent(path)))
    }

    /// A stream in both directions: what is sent into the one end, and a future of what comes out of the other. Await it
    /// after something was sent: etcd says nothing, not even that the call was taken, before its first answer. Dropping
    /// the sender ends the stream.
    pub(crate) fn stream<Q, A>(
        &self,
        path: &'static str,
    ) -> (mpsc::Sender<Q>, impl Future<Output = Result<Streaming<A>, Refused>> + Send + use<Q, A>)
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (sender, receiver) = mpsc::channel(16);
        let requests = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Q>| async {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let wire = self.clone();
        let answers = async move {
            let mut grpc = wire.grpc().await?;
            let path = PathAndQuery::from_static(path);
            let answers = grpc.streaming(Request::new(requests), path, ProstCodec::<Q, A>::default()).await;
            answers.map(tonic::Response::into_inner).map_err(Refused::from)
        };
        (sender, answers)
    }
}

/// Stands for an answer that never came: no server says this.
pub(crate) fn silent(what: &str) -> Refused {
    Refused { code: Code::DeadlineExceeded, message: format!("no answer to {what} within {PATIENCE:?}") }
}
