//! The KV service.

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use futures_core::Stream;
use prost::Message;
use tonic::{Request, Response, Status, async_trait};

use crate::engine::Engine;
use crate::faults::Call;

/// The largest message that etcd's transport takes by default, in bytes.
const MAX_MESSAGE: usize = 2 << 20;

pub(crate) struct Kv(pub(crate) Arc<Engine>);

#[async_trait]
impl PbKvService for Kv {
    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<PbRangeStreamResponse, Status>> + Send>>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let apply = |state: &mut crate::store::State, _, request| Ok(state.range(&request)?);
        self.0.unary(Call::Range, accept(request)?, apply).await
    }

    async fn range_stream(
        &self,
        _request: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("unknown method RangeStream for service etcdserverpb.KV"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.0.unary(Call::Put, accept(request)?, |state, _, request| Ok(state.put(request)?)).await
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        let apply = |state: &mut crate::store::State, _, request| Ok(state.delete_range(request)?);
        self.0.unary(Call::DeleteRange, accept(request)?, apply).await
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.0.unary(Call::Txn, accept(request)?, |state, _, request| Ok(state.txn(request)?)).await
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        self.0.unary(Call::Compact, request, |state, _, request| Ok(state.compact(&request)?)).await
    }
}

/// Refuses what etcd's transport would not have taken, in its words.
fn accept<Q: Message>(request: Request<Q>) -> Result<Request<Q>, Status> {
    let bytes = request.get_ref().encoded_len();
    if bytes > MAX_MESSAGE {
        return Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({bytes} vs. {MAX_MESSAGE})"
        )));
    }
    Ok(request)
}
