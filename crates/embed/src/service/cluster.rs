//! The Cluster service: one member, for good.

use std::sync::Arc;

use etcd_client::proto::{
    PbClusterService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse, PbResponseHeader,
};
use tonic::{Request, Response, Status, async_trait};

use crate::engine::Engine;
use crate::faults::Call;
use crate::store::{Refusal, State};

/// What is said to who wants a cluster.
const ALONE: &str = "sereno-embed is one member and stays so";

pub(crate) struct Cluster {
    pub(crate) engine: Arc<Engine>,
    pub(crate) endpoint: String,
}

#[async_trait]
impl PbClusterService for Cluster {
    async fn member_add(
        &self,
        _request: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(Status::unimplemented(ALONE))
    }

    async fn member_remove(
        &self,
        request: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        let apply = |state: &mut State, _, request: PbMemberRemoveRequest| stranger(state, request.id);
        self.engine.unary(Call::Maintenance, request, apply).await
    }

    async fn member_update(
        &self,
        request: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        let apply = |state: &mut State, _, request: PbMemberUpdateRequest| {
            if request.peer_ur_ls.is_empty() {
                return Err(Status::invalid_argument("etcdserver: given member URLs are invalid"));
            }
            stranger(state, request.id)
        };
        self.engine.unary(Call::Maintenance, request, apply).await
    }

    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        let apply = |state: &mut State, _, _| {
            let member = PbMember {
                id: state.identity.member,
                name: "embed".to_owned(),
                peer_ur_ls: Vec::new(),
                client_ur_ls: vec![self.endpoint.clone()],
                is_learner: false,
            };
            let header = PbResponseHeader { revision: 0, ..state.header() };
            Ok(PbMemberListResponse { header: Some(header), members: vec![member] })
        };
        self.engine.unary(Call::Maintenance, request, apply).await
    }

    async fn member_promote(
        &self,
        request: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        let apply = |state: &mut State, _, request: PbMemberPromoteRequest| stranger(state, request.id);
        self.engine.unary(Call::Maintenance, request, apply).await
    }
}

/// etcd's answer about a member that is not there; ours about the only one there is.
fn stranger<A>(state: &State, id: u64) -> Result<A, Status> {
    if id == state.identity.member {
        return Err(Status::unimplemented(ALONE));
    }
    Err(Refusal::MEMBER_NOT_FOUND.into())
}
