//! The Lease service.

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::ending::Ending;
use crate::engine::{Engine, wants_leader};
use crate::faults::Call;
use crate::wire::Link;

pub(crate) struct Lease(pub(crate) Arc<Engine>);

#[async_trait]
impl PbLeaseService for Lease {
    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send + 'static>>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let apply = |state: &mut crate::store::State, now, request| Ok(state.lease_grant(&request, now)?);
        self.0.unary(Call::LeaseGrant, request, apply).await
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let apply = |state: &mut crate::store::State, _, request: PbLeaseRevokeRequest| {
            Ok(state.lease_revoke(request.id)?)
        };
        self.0.unary(Call::LeaseRevoke, request, apply).await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut keeper = Keeper {
            engine: Arc::clone(&self.0),
            ending: self.0.ending(wants_leader(&request)),
            wants_leader: wants_leader(&request),
            link: request.extensions().get::<Link>().cloned(),
            requests: request.into_inner(),
        };
        // Not even headers before the first answer, as for watches.
        let first = keeper.next().await?;
        let rest = futures_util::stream::try_unfold(keeper, |mut keeper| async move {
            let answer = keeper.next().await?;
            Ok(answer.map(|answer| (answer, keeper)))
        });
        let answers = futures_util::stream::iter(first.map(Ok)).chain(rest);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let apply =
            |state: &mut crate::store::State, now, request| Ok(state.lease_time_to_live(&request, now));
        self.0.unary(Call::LeaseTimeToLive, request, apply).await
    }

    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        self.0.unary(Call::LeaseLeases, request, |state, _, _| Ok(state.lease_list())).await
    }
}

/// One keepalive stream: an answer for every request, in order.
struct Keeper {
    engine: Arc<Engine>,
    ending: Ending,
    wants_leader: bool,
    link: Option<Link>,
    requests: Streaming<PbLeaseKeepAliveRequest>,
}

impl Keeper {
    async fn next(&mut self) -> Result<Option<PbLeaseKeepAliveResponse>, Status> {
        let request = tokio::select! {
            biased;
            why = self.ending.wait() => return Err(why),
            request = self.requests.message() => request?,
        };
        let Some(request) = request else { return Ok(None) };
        self.engine.count(Call::LeaseKeepAlive);
        let passing = async {
            let link = self.link.as_ref();
            let passage = self.engine.enter(Call::LeaseKeepAlive, self.wants_leader, link).await?;
            let answer = self.engine.with(|state, now| state.lease_keep_alive(request.id, now));
            passage.leave(link).await?;
            Ok(Some(answer))
        };
        tokio::select! {
            biased;
            why = self.ending.wait() => Err(why),
            answer = passing => answer,
        }
    }
}
