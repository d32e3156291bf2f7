//! Writes of the revision that is being made. Whoever calls these has checked the request, and commits.

use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest,
    PbPutResponse,
};

use super::history::tombstone;
use super::index::Version;
use super::refusal::Refusal;
use super::span::Span;
use super::state::State;

impl State {
    /// Writes a key at `revision`. The lease must exist; with `ignore_value` or `ignore_lease` the key must, too.
    pub(super) fn write_put(&mut self, request: PbPutRequest, revision: i64) -> PbPutResponse {
        let old = self.index.get(&request.key).cloned();
        let value = match &old {
            Some(old) if request.ignore_value => old.value.clone(),
            _ => request.value,
        };
        let lease = match &old {
            Some(old) if request.ignore_lease => old.lease,
            _ => request.lease,
        };
        let version = Arc::new(PbKeyValue {
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            key: request.key,
            value,
            lease,
        });
        if let Some(old) = &old
            && old.lease != lease
        {
            self.leases.detach(old.lease, &old.key);
        }
        self.leases.attach(lease, &version.key);
        self.index.insert(Arc::clone(&version));
        self.record(version, old.clone());
        let prev_kv = if request.prev_kv { old.map(|old| (*old).clone()) } else { None };
        PbPutResponse { header: Some(Self::bare_header(revision)), prev_kv }
    }

    /// Deletes the keys of a range at `revision`; `changes` have been made at it so far.
    pub(super) fn write_delete(
        &mut self,
        request: PbDeleteRequest,
        revision: i64,
        changes: &mut usize,
    ) -> PbDeleteResponse {
        let span = Span::new(request.key, request.range_end);
        let gone: Vec<Version> = self.index.range(&span).cloned().collect();
        for old in &gone {
            self.delete(old, revision);
        }
        *changes += gone.len();
        // A deletion of nothing, first in its transaction, has made no revision.
        let revision = if *changes == 0 { revision - 1 } else { revision };
        PbDeleteResponse {
            header: Some(Self::bare_header(revision)),
            deleted: i64::try_from(gone.len()).unwrap_or(i64::MAX),
            prev_kvs: if request.prev_kv {
                gone.iter().map(|old| (**old).clone()).collect()
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn delete(&mut self, old: &Version, revision: i64) {
        self.leases.detach(old.lease, &old.key);
        self.index.remove(&old.key);
        self.record(tombstone(old.key.clone(), revision), Some(Arc::clone(old)));
    }

    /// Forgets what was before a revision.
    pub(crate) fn compact(&mut self, request: &PbCompactionRequest) -> Result<PbCompactionResponse, Refusal> {
        self.propose();
        if request.revision <= self.compacted {
            return Err(Refusal::COMPACTED);
        }
        if request.revision > self.revision {
            return Err(Refusal::FUTURE_REVISION);
        }
        self.compacted = request.revision;
        let keeps = self.version.keeps_deletion_at_compaction();
        let deleted = (!keeps && self.history.deletes_at(request.revision)).then_some(request.revision);
        let freed = self.history.compact(request.revision, keeps, &self.index);
        self.quota.freed(freed);
        self.watches.compacted(deleted);
        Ok(PbCompactionResponse { header: Some(self.header()) })
    }
}
