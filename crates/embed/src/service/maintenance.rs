//! The Maintenance service, as far as there is something to maintain.

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse,
    PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
    PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures_core::Stream;
use tonic::{Request, Response, Status, async_trait};

use crate::engine::Engine;
use crate::faults::Call;
use crate::store::State;

/// Numbers of `AlarmType` and `AlarmAction` on the wire.
const NO_SPACE: i32 = 1;
const GET: i32 = 0;
const ACTIVATE: i32 = 1;

pub(crate) struct Maintenance(pub(crate) Arc<Engine>);

#[async_trait]
impl PbMaintenanceService for Maintenance {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<PbSnapshotResponse, Status>> + Send>>;

    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        self.0.unary(Call::Maintenance, request, |state, _, request| Ok(alarm(state, &request))).await
    }

    async fn status(&self, request: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        self.0.unary(Call::Maintenance, request, |state, _, _| Ok(status(state))).await
    }

    async fn defragment(
        &self,
        request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        // Nothing on disk has holes.
        self.0.unary(Call::Maintenance, request, |_, _, _| Ok(PbDefragmentResponse { header: None })).await
    }

    async fn hash(&self, request: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        let apply = |state: &mut State, _, _| {
            let hash = state.hash(0)?;
            Ok(PbHashResponse { header: Some(state.header()), hash })
        };
        self.0.unary(Call::Maintenance, request, apply).await
    }

    async fn hash_kv(&self, request: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        let apply = |state: &mut State, _, request: PbHashKvRequest| {
            let hash = state.hash(request.revision)?;
            Ok(PbHashKvResponse {
                header: Some(state.header()),
                hash,
                compact_revision: state.compact_revision(),
                ..PbHashKvResponse::default()
            })
        };
        self.0.unary(Call::Maintenance, request, apply).await
    }

    async fn snapshot(
        &self,
        _request: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented("sereno-embed keeps nothing on disk, so it has no snapshot to give"))
    }

    async fn move_leader(
        &self,
        request: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        let apply = |state: &mut State, _, request: PbMoveLeaderRequest| {
            if request.target_id == state.identity.member {
                return Ok(PbMoveLeaderResponse { header: None });
            }
            Err(Status::failed_precondition("etcdserver: bad leader transferee"))
        };
        self.0.unary(Call::Maintenance, request, apply).await
    }

    async fn downgrade(
        &self,
        _request: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(Status::unimplemented("sereno-embed has no version on disk to downgrade"))
    }
}

fn alarm(state: &mut State, request: &PbAlarmRequest) -> PbAlarmResponse {
    let ours = request.alarm == NO_SPACE;
    let before = state.alarm();
    if ours && request.action != GET {
        state.set_alarm(request.action == ACTIVATE);
    }
    // A question is answered with what there is, a change with what was changed.
    let told = match request.action {
        GET => before && (ours || request.alarm == 0),
        ACTIVATE => ours,
        _ => ours && before,
    };
    let alarm = PbAlarmMember { member_id: request.member_id, alarm: NO_SPACE };
    PbAlarmResponse { header: Some(state.header()), alarms: if told { vec![alarm] } else { Vec::new() } }
}

fn status(state: &State) -> PbStatusResponse {
    let size = i64::try_from(state.bytes()).unwrap_or(i64::MAX);
    let index = state.proposals();
    PbStatusResponse {
        header: Some(state.header()),
        version: state.version.to_string(),
        db_size: size,
        db_size_in_use: size,
        leader: state.identity.member,
        raft_index: index,
        raft_applied_index: index,
        raft_term: state.identity.term,
        errors: if state.alarm() { vec!["alarm:NOSPACE ".to_owned()] } else { Vec::new() },
        ..PbStatusResponse::default()
    }
}
