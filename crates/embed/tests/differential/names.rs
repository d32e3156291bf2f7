//! Puts numbers in the place of names, for one side.

use etcd_client::proto::{
    PbCompare, PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use crate::op::{self, LEASES, slot};

/// No server has chosen this id: a script that names a lease it was not granted asks for it.
const NOBODY: i64 = 987_654_321_000;

/// What the names of a script stand for on one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) head: i64,
    pub(crate) compacted: i64,
    /// The script's number of a lease and the id that the server chose, oldest first. A script may grant one number
    /// again: then it means the newest.
    leases: Vec<(i64, i64)>,
}

impl Names {
    pub(crate) fn revision(&self, named: i64) -> i64 {
        op::revision(named, self.head, self.compacted)
    }

    pub(crate) fn lease(&self, named: i64) -> i64 {
        slot(named).map_or(named, |slot| {
            let newest = self.leases.iter().rev().find(|(number, _)| *number == slot);
            newest.map_or(NOBODY + slot, |(_, id)| *id)
        })
    }

    /// Remembers what the server chose.
    pub(crate) fn chosen(&mut self, slot: i64, id: i64) {
        self.leases.push((slot, id));
    }

    /// The other way: an id of the server's choice becomes the script's name for it.
    pub(crate) fn name_lease(&self, id: &mut i64) {
        if let Some(nth) = self.leases.iter().position(|(_, chosen)| chosen == id) {
            // Its place among all grants tells apart what has the same number.
            *id =
                op::lease(self.leases[nth].0 + LEASES * i64::try_from(nth).expect("there are not that many"));
        }
    }

    pub(crate) fn range(&self, request: &mut PbRangeRequest) {
        for revision in [
            &mut request.revision,
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            *revision = self.revision(*revision);
        }
    }

    pub(crate) fn put(&self, request: &mut PbPutRequest) {
        request.lease = self.lease(request.lease);
    }

    pub(crate) fn txn(&self, request: &mut PbTxnRequest) {
        request.compare.iter_mut().for_each(|compare| self.compare(compare));
        request.success.iter_mut().for_each(|inner| self.inner(inner));
        request.failure.iter_mut().for_each(|inner| self.inner(inner));
    }

    fn compare(&self, compare: &mut PbCompare) {
        match &mut compare.target_union {
            Some(PbTargetUnion::CreateRevision(value) | PbTargetUnion::ModRevision(value)) => {
                *value = self.revision(*value);
            }
            Some(PbTargetUnion::Lease(value)) => *value = self.lease(*value),
            Some(PbTargetUnion::Version(_) | PbTargetUnion::Value(_)) | None => {}
        }
    }

    fn inner(&self, operation: &mut PbTxnRequestOp) {
        match &mut operation.request {
            Some(PbTxnOpRequest::RequestRange(request)) => self.range(request),
            Some(PbTxnOpRequest::RequestPut(request)) => self.put(request),
            Some(PbTxnOpRequest::RequestTxn(request)) => self.txn(request),
            Some(PbTxnOpRequest::RequestDeleteRange(_)) | None => {}
        }
    }
}
