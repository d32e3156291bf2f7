//! What one side answered, whole, and what may be taken out of it before the two are compared.

use etcd_client::proto::{
    PbCompactionResponse, PbDeleteResponse, PbEvent, PbKeyValue, PbLeaseGrantResponse,
    PbLeaseKeepAliveResponse, PbLeaseLeasesResponse, PbLeaseRevokeResponse, PbLeaseTimeToLiveResponse,
    PbPutResponse, PbRangeResponse, PbResponseHeader, PbTxnOpResponse, PbTxnResponse, PbWatchResponse,
};

use crate::names::Names;
use crate::wire::Refused;

/// The answer to one [`crate::op::Op`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Range(PbRangeResponse),
    Put(PbPutResponse),
    Delete(PbDeleteResponse),
    Txn(PbTxnResponse),
    Compact(PbCompactionResponse),
    Grant(PbLeaseGrantResponse),
    Revoke(PbLeaseRevokeResponse),
    TimeToLive(PbLeaseTimeToLiveResponse),
    Leases(PbLeaseLeasesResponse),
    KeepAlive(Vec<PbLeaseKeepAliveResponse>),
    /// A watch created, cancelled, or a progress request answered.
    Control(PbWatchResponse),
    /// What every watch saw since the last barrier.
    Watched(Vec<Watched>),
    /// etcd answers nothing to this.
    Nothing,
    Refused(Refused),
}

/// What one watch saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watched {
    pub(crate) stream: usize,
    pub(crate) watch_id: i64,
    /// All events, however they were cut into messages.
    pub(crate) events: Vec<PbEvent>,
    /// That the watch was ended for a compaction.
    pub(crate) ended: Vec<PbWatchResponse>,
    /// What no server may do, whatever the other one does: see `watch::State`.
    pub(crate) faults: Vec<String>,
}

/// A value longer than this is compared by its length and digest: nobody reads a megabyte in a failure message.
const LONG: usize = 128;

impl Answer {
    /// The header's revision, where it has one.
    pub(crate) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(answer) => &answer.header,
            Self::Put(answer) => &answer.header,
            Self::Delete(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Compact(answer) => &answer.header,
            Self::Grant(answer) => &answer.header,
            Self::Revoke(answer) => &answer.header,
            Self::TimeToLive(answer) => &answer.header,
            Self::Leases(answer) => &answer.header,
            Self::Control(answer) => &answer.header,
            Self::KeepAlive(_) | Self::Watched(_) | Self::Nothing | Self::Refused(_) => return None,
        };
        header.as_ref().map(|header| header.revision)
    }

    /// Takes out what must differ between two servers: who they are, in which term, and the ids they chose; and the order
    /// of what has none. That something was set at all stays.
    pub(crate) fn normalize(&mut self, names: &Names) {
        match self {
            Self::Range(answer) => {
                header(&mut answer.header);
                answer.kvs.iter_mut().for_each(|kv| key_value(kv, names));
            }
            Self::Put(answer) => put(answer, names),
            Self::Delete(answer) => delete(answer, names),
            Self::Txn(answer) => txn(answer, names),
            Self::Compact(answer) => header(&mut answer.header),
            Self::Grant(answer) => {
                header(&mut answer.header);
                names.name_lease(&mut answer.id);
            }
            Self::Revoke(answer) => header(&mut answer.header),
            Self::TimeToLive(answer) => {
                header(&mut answer.header);
                names.name_lease(&mut answer.id);
                answer.keys.sort();
            }
            Self::Leases(answer) => {
                header(&mut answer.header);
                answer.leases.iter_mut().for_each(|lease| names.name_lease(&mut lease.id));
                answer.leases.sort_by_key(|lease| lease.id);
            }
            Self::KeepAlive(answers) => {
                for answer in answers {
                    header(&mut answer.header);
                    names.name_lease(&mut answer.id);
                }
            }
            Self::Control(answer) => header(&mut answer.header),
            Self::Watched(watches) => watches.iter_mut().for_each(|watched| self::watched(watched, names)),
            Self::Nothing | Self::Refused(_) => {}
        }
    }
}

fn header(header: &mut Option<PbResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = u64::from(header.member_id != 0);
        header.raft_term = u64::from(header.raft_term != 0);
    }
}

fn key_value(kv: &mut PbKeyValue, names: &Names) {
    names.name_lease(&mut kv.lease);
    shorten(&mut kv.key);
    shorten(&mut kv.value);
}

/// FNV-1a: enough to tell a wrong byte, and the same in every build.
fn shorten(bytes: &mut Vec<u8>) {
    if bytes.len() > LONG {
        let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        *bytes = format!("{} bytes, digest {digest:x}", bytes.len()).into_bytes();
    }
}

fn put(answer: &mut PbPutResponse, names: &Names) {
    header(&mut answer.header);
    answer.prev_kv.iter_mut().for_each(|kv| key_value(kv, names));
}

fn delete(answer: &mut PbDeleteResponse, names: &Names) {
    header(&mut answer.header);
    answer.prev_kvs.iter_mut().for_each(|kv| key_value(kv, names));
}

fn txn(answer: &mut PbTxnResponse, names: &Names) {
    header(&mut answer.header);
    for inner in &mut answer.responses {
        match &mut inner.response {
            Some(PbTxnOpResponse::ResponseRange(answer)) => {
                header(&mut answer.header);
                answer.kvs.iter_mut().for_each(|kv| key_value(kv, names));
            }
            Some(PbTxnOpResponse::ResponsePut(answer)) => put(answer, names),
            Some(PbTxnOpResponse::ResponseDeleteRange(answer)) => delete(answer, names),
            Some(PbTxnOpResponse::ResponseTxn(answer)) => txn(answer, names),
            None => {}
        }
    }
}

fn watched(watched: &mut Watched, names: &Names) {
    watched.ended.iter_mut().for_each(|end| header(&mut end.header));
    for event in &mut watched.events {
        event.kv.iter_mut().for_each(|kv| key_value(kv, names));
        event.prev_kv.iter_mut().for_each(|kv| key_value(kv, names));
    }
}
