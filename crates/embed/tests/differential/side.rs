//! One of the two servers: runs operations and hands back its normalized answers.

use std::collections::BTreeMap;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbLeaseGrantResponse,
    PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest, PbLeaseLeasesResponse,
    PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseTimeToLiveRequest, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse,
};
use tokio::time::timeout;

use crate::answer::{Answer, Watched};
use crate::names::Names;
use crate::op::{Op, Watching, slot};
use crate::watch::{Listener, Stream};
use crate::wire::{PATIENCE, Refused, Wire, silent};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// One server and what a script has open there.
#[derive(Debug)]
pub(crate) struct Side {
    wire: Wire,
    names: Names,
    streams: BTreeMap<usize, Stream>,
}

impl Side {
    pub(crate) fn at(endpoint: &str) -> Self {
        Self { wire: Wire::to(endpoint), names: Names::default(), streams: BTreeMap::new() }
    }

    /// Runs one operation. The answer is normalized.
    pub(crate) async fn apply(&mut self, op: &Op) -> Answer {
        let mut answer = self.answer(op.clone()).await.unwrap_or_else(Answer::Refused);
        if let Some(revision) = answer.revision() {
            self.names.head = self.names.head.max(revision);
        }
        if let (Op::Compact(request), Answer::Compact(_)) = (op, &answer) {
            self.names.compacted = self.names.revision(request.revision);
        }
        answer.normalize(&self.names);
        answer
    }

    async fn answer(&mut self, op: Op) -> Result<Answer, Refused> {
        let names = &self.names;
        match op {
            Op::Range(mut request) => {
                names.range(&mut request);
                self.wire.call(RANGE, request).await.map(Answer::Range)
            }
            Op::Put(mut request) => {
                names.put(&mut request);
                self.wire.call(PUT, request).await.map(Answer::Put)
            }
            Op::Delete(request) => self.wire.call(DELETE, request).await.map(Answer::Delete),
            Op::Txn(mut request) => {
                names.txn(&mut request);
                self.wire.call(TXN, request).await.map(Answer::Txn)
            }
            Op::Compact(mut request) => {
                request.revision = names.revision(request.revision);
                self.wire.call(COMPACT, request).await.map(Answer::Compact)
            }
            Op::Grant(mut request) => {
                let slot = slot(request.id);
                if slot.is_some() {
                    request.id = 0;
                }
                let answer: PbLeaseGrantResponse = self.wire.call(GRANT, request).await?;
                if let Some(slot) = slot {
                    self.names.chosen(slot, answer.id);
                }
                Ok(Answer::Grant(answer))
            }
            Op::Revoke(id) => {
                let request = PbLeaseRevokeRequest { id: names.lease(id) };
                self.wire.call(REVOKE, request).await.map(Answer::Revoke)
            }
            Op::TimeToLive { id, keys } => {
                let request = PbLeaseTimeToLiveRequest { id: names.lease(id), keys };
                self.wire.call(TIME_TO_LIVE, request).await.map(Answer::TimeToLive)
            }
            Op::Leases => self.wire.call(LEASES, PbLeaseLeasesRequest {}).await.map(Answer::Leases),
            Op::KeepAlive(ids) => {
                let ids: Vec<i64> = ids.iter().map(|id| names.lease(*id)).collect();
                self.keep_alive(&ids).await.map(Answer::KeepAlive)
            }
            Op::Watch(stream, watching) => {
                let watching =
                    Watching { start_revision: names.revision(watching.start_revision), ..watching };
                let answer = self.stream(stream).create(&watching).await?;
                Ok(Answer::Control(answer))
            }
            Op::Cancel(stream, watch_id) => match self.stream(stream).cancel(watch_id).await {
                Some(answer) => answer.map(Answer::Control),
                None => Ok(Answer::Nothing),
            },
            Op::Progress(stream) => {
                let answer = self.stream(stream).progress().await?;
                Ok(answer.map_or(Answer::Nothing, Answer::Control))
            }
            Op::Barrier => Ok(Answer::Nothing),
        }
    }

    fn stream(&mut self, number: usize) -> &mut Stream {
        self.streams.entry(number).or_insert_with(|| Stream::open(&self.wire, number))
    }

    async fn keep_alive(&self, ids: &[i64]) -> Result<Vec<PbLeaseKeepAliveResponse>, Refused> {
        let (sender, answers) = self.wire.stream::<_, PbLeaseKeepAliveResponse>(KEEP_ALIVE);
        let exchange = async {
            let mut ids = ids.iter();
            if let Some(id) = ids.next() {
                sender.send(PbLeaseKeepAliveRequest { id: *id }).await.ok();
            }
            let mut answers = answers.await?;
            let mut all: Vec<PbLeaseKeepAliveResponse> = answers.message().await?.into_iter().collect();
            for id in ids {
                sender.send(PbLeaseKeepAliveRequest { id: *id }).await.ok();
                all.extend(answers.message().await?);
            }
            drop(sender);
            all.extend(answers.message().await?);
            Ok(all)
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(silent("a keep-alive")))
    }

    /// The watches that can be told that something was written.
    pub(crate) fn listeners(&self) -> Vec<Listener> {
        self.streams.iter().flat_map(|(number, stream)| stream.listeners(*number)).collect()
    }

    pub(crate) async fn await_revision(&self, stream: usize, watch_id: i64, revision: i64) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.await_revision(watch_id, revision).await;
        }
    }

    /// What every watch saw since the last time, normalized.
    pub(crate) fn watched(&self) -> Answer {
        let seen: Vec<Watched> =
            self.streams.iter().flat_map(|(number, stream)| stream.take(*number)).collect();
        let mut answer = Answer::Watched(seen);
        answer.normalize(&self.names);
        answer
    }

    pub(crate) fn head(&self) -> i64 {
        self.names.head
    }

    /// Leaves nothing behind: no stream, no lease, no key. The history stays until [`Side::forget`].
    pub(crate) async fn clear(&mut self) -> Result<(), Refused> {
        self.streams.clear();
        self.names = Names::default();
        let leases: PbLeaseLeasesResponse = self.wire.call(LEASES, PbLeaseLeasesRequest {}).await?;
        for lease in leases.leases {
            let request = PbLeaseRevokeRequest { id: lease.id };
            let _: PbLeaseRevokeResponse = self.wire.call(REVOKE, request).await?;
        }
        let all = PbDeleteRequest { key: b"\0".to_vec(), range_end: b"\0".to_vec(), prev_kv: false };
        let _: PbDeleteResponse = self.wire.call(DELETE, all).await?;
        let request = PbRangeRequest { key: b"\0".to_vec(), ..PbRangeRequest::default() };
        let answer: PbRangeResponse = self.wire.call(RANGE, request).await?;
        self.names.head = answer.header.map_or(0, |header| header.revision);
        Ok(())
    }

    /// Brings an empty store to a revision, which must be two ahead at least, and leaves it empty.
    pub(crate) async fn advance(&mut self, revision: i64) -> Result<(), Refused> {
        let key = b"\0advance".to_vec();
        for _ in self.names.head + 1..revision {
            let request = PbPutRequest { key: key.clone(), ..PbPutRequest::default() };
            let _: PbPutResponse = self.wire.call(PUT, request).await?;
        }
        let request = PbDeleteRequest { key, ..PbDeleteRequest::default() };
        let deleted: PbDeleteResponse = self.wire.call(DELETE, request).await?;
        self.names.head = deleted.header.map_or(0, |header| header.revision);
        Ok(())
    }

    /// Compacts to the head: as far back as a script can see.
    pub(crate) async fn forget(&mut self) -> Result<(), Refused> {
        let request = PbCompactionRequest { revision: self.names.head, physical: true };
        let answer: Result<PbCompactionResponse, Refused> = self.wire.call(COMPACT, request).await;
        // Nothing was written since the last time.
        if let Err(refused) = answer
            && !refused.message.contains("has been compacted")
        {
            return Err(refused);
        }
        self.names.compacted = self.names.head;
        Ok(())
    }
}
