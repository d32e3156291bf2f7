//! What etcd refuses before it looks at any key.

use std::collections::{BTreeSet, HashSet};

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use super::refusal::Refusal;
use super::span::Span;

/// How many operations one list of a transaction may have.
const MAX_OPS: usize = 128;

pub(super) fn range(request: &PbRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EMPTY_KEY);
    }
    if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
        return Err(Refusal::INVALID_SORT);
    }
    Ok(())
}

pub(super) fn put(request: &PbPutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LEASE_PROVIDED);
    }
    Ok(())
}

pub(super) fn delete(request: &PbDeleteRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EMPTY_KEY) } else { Ok(()) }
}

pub(super) fn txn(request: &PbTxnRequest) -> Result<(), Refusal> {
    shape(request, MAX_OPS)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

/// The number and the form of the operations, nested ones included: each level takes from what the next may have.
fn shape(request: &PbTxnRequest, most: usize) -> Result<(), Refusal> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    if count > most {
        return Err(Refusal::TOO_MANY_OPS);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EMPTY_KEY);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(read)) => range(read)?,
            Some(PbTxnOpRequest::RequestPut(write)) => put(write)?,
            Some(PbTxnOpRequest::RequestDeleteRange(deletion)) => delete(deletion)?,
            Some(PbTxnOpRequest::RequestTxn(nested)) => shape(nested, most - count)?,
            None => return Err(Refusal::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What a list of operations writes.
#[derive(Default)]
struct Written {
    puts: HashSet<Vec<u8>>,
    deletions: BTreeSet<Span>,
}

impl Written {
    fn deletes(&self, key: &[u8]) -> bool {
        // etcd takes an open end literally here, as an end before any key: such a deletion meets nothing.
        self.deletions.iter().any(|span| !matches!(span, Span::From(_)) && span.contains(key))
    }

    fn put(&mut self, key: &[u8]) -> Result<(), Refusal> {
        if self.deletes(key) || !self.puts.insert(key.to_vec()) {
            return Err(Refusal::DUPLICATE_KEY);
        }
        Ok(())
    }
}

/// Refuses a key that is written twice, or written and deleted. The two branches of one nested transaction may write the
/// same key: only one of them runs.
fn written(operations: &[PbTxnRequestOp]) -> Result<Written, Refusal> {
    let mut all = Written::default();
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestDeleteRange(deletion)) = &operation.request {
            all.deletions.insert(Span::new(deletion.key.clone(), deletion.range_end.clone()));
        }
    }
    for operation in operations {
        let Some(PbTxnOpRequest::RequestTxn(nested)) = &operation.request else { continue };
        let (success, failure) = (written(&nested.success)?, written(&nested.failure)?);
        for key in &success.puts {
            all.put(key)?;
        }
        for key in &failure.puts {
            if !success.puts.contains(key) {
                all.put(key)?;
            }
        }
        all.deletions.extend(success.deletions);
        all.deletions.extend(failure.deletions);
    }
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestPut(write)) = &operation.request {
            all.put(&write.key)?;
        }
    }
    Ok(all)
}
