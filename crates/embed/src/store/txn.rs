//! Requests on keys: checked whole, then done whole.

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbResponseHeader, PbResponseOp, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
    PbTxnResponse,
};
use prost::Message as _;

use super::check;
use super::refusal::Refusal;
use super::state::State;

/// The largest request that etcd takes by default, in bytes, and what its log adds to each.
const MAX_REQUEST: usize = 1536 << 10;
const LOG_OVERHEAD: usize = 18;

impl State {
    pub(crate) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Refusal> {
        check::range(request)?;
        let answer = self.read(request, None)?;
        Ok(PbRangeResponse { header: Some(self.header()), ..answer })
    }

    pub(crate) fn put(&mut self, request: PbPutRequest) -> Result<PbPutResponse, Refusal> {
        check::put(&request)?;
        fits(request.encoded_len())?;
        self.quota.admit(request.key.len() + request.value.len())?;
        self.propose();
        self.check_lease(&request)?;
        self.check_present(&request)?;
        let answer = self.write_put(request, self.revision + 1);
        self.commit(1);
        Ok(PbPutResponse { header: Some(self.header()), ..answer })
    }

    pub(crate) fn delete_range(&mut self, request: PbDeleteRequest) -> Result<PbDeleteResponse, Refusal> {
        check::delete(&request)?;
        fits(request.encoded_len())?;
        self.propose();
        let mut changes = 0;
        let answer = self.write_delete(request, self.revision + 1, &mut changes);
        self.commit(changes);
        Ok(PbDeleteResponse { header: Some(self.header()), ..answer })
    }

    pub(crate) fn txn(&mut self, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
        check::txn(&request)?;
        if writes(&request) {
            fits(request.encoded_len())?;
            let cost = cost(&request);
            if cost > 0 {
                self.quota.admit(cost)?;
            }
            self.propose();
        }
        // Every condition is looked at before anything is written, those of nested transactions too.
        let plan = self.plan(&request);
        self.check_writes(&plan)?;
        self.check_reads(&plan)?;
        let mut changes = 0;
        let answer = self.execute(plan, self.revision + 1, &mut changes);
        self.commit(changes);
        Ok(PbTxnResponse { header: Some(self.header()), ..answer })
    }

    fn plan(&self, request: &PbTxnRequest) -> Plan {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let steps = branch.iter().filter_map(|operation| self.step(operation)).collect();
        Plan { succeeded, steps }
    }

    fn step(&self, operation: &PbTxnRequestOp) -> Option<Step> {
        Some(match operation.request.clone()? {
            PbTxnOpRequest::RequestRange(read) => Step::Range(read),
            PbTxnOpRequest::RequestPut(write) => Step::Put(write),
            PbTxnOpRequest::RequestDeleteRange(deletion) => Step::Delete(deletion),
            PbTxnOpRequest::RequestTxn(nested) => Step::Txn(self.plan(&nested)),
        })
    }

    fn check_writes(&self, plan: &Plan) -> Result<(), Refusal> {
        for step in &plan.steps {
            match step {
                Step::Put(write) => {
                    self.check_present(write)?;
                    self.check_lease(write)?;
                }
                Step::Txn(nested) => self.check_writes(nested)?,
                Step::Range(_) | Step::Delete(_) => {}
            }
        }
        Ok(())
    }

    fn check_reads(&self, plan: &Plan) -> Result<(), Refusal> {
        for step in &plan.steps {
            match step {
                // Unlike a read on its own, etcd counts a negative revision as an old one here.
                Step::Range(read) if read.revision < self.compacted && read.revision != 0 => {
                    return Err(Refusal::COMPACTED);
                }
                Step::Range(read) => self.check_readable(read.revision, self.revision)?,
                Step::Txn(nested) => self.check_reads(nested)?,
                Step::Put(_) | Step::Delete(_) => {}
            }
        }
        Ok(())
    }

    fn check_lease(&self, request: &PbPutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.leases.knows(request.lease) {
            return Err(Refusal::LEASE_NOT_FOUND);
        }
        Ok(())
    }

    fn check_present(&self, request: &PbPutRequest) -> Result<(), Refusal> {
        if (request.ignore_value || request.ignore_lease) && self.index.get(&request.key).is_none() {
            return Err(Refusal::KEY_NOT_FOUND);
        }
        Ok(())
    }

    fn execute(&mut self, plan: Plan, revision: i64, changes: &mut usize) -> PbTxnResponse {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in plan.steps {
            let response = match step {
                Step::Range(read) => {
                    let now = if *changes == 0 { revision - 1 } else { revision };
                    // Its revision has been checked; what cannot be read has been refused before anything was written.
                    PbTxnOpResponse::ResponseRange(self.read(&read, Some(now)).unwrap_or_default())
                }
                Step::Put(write) => {
                    *changes += 1;
                    PbTxnOpResponse::ResponsePut(self.write_put(write, revision))
                }
                Step::Delete(deletion) => {
                    PbTxnOpResponse::ResponseDeleteRange(self.write_delete(deletion, revision, changes))
                }
                Step::Txn(nested) => {
                    let answer = self.execute(nested, revision, changes);
                    // etcd sends it with an empty header.
                    let header = Some(PbResponseHeader::default());
                    PbTxnOpResponse::ResponseTxn(PbTxnResponse { header, ..answer })
                }
            };
            responses.push(PbResponseOp { response: Some(response) });
        }
        PbTxnResponse { header: None, succeeded: plan.succeeded, responses }
    }
}

/// A transaction whose branches have been chosen.
struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Range(PbRangeRequest),
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(Plan),
}

fn fits(bytes: usize) -> Result<(), Refusal> {
    if bytes + LOG_OVERHEAD > MAX_REQUEST { Err(Refusal::REQUEST_TOO_LARGE) } else { Ok(()) }
}

/// Whether a transaction could write: reads alone are answered without the log.
pub(crate) fn writes(request: &PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|operation| match &operation.request {
        Some(PbTxnOpRequest::RequestRange(_)) | None => false,
        Some(PbTxnOpRequest::RequestTxn(nested)) => writes(nested),
        Some(PbTxnOpRequest::RequestPut(_) | PbTxnOpRequest::RequestDeleteRange(_)) => true,
    })
}

/// How many bytes the larger branch would store. Like etcd, it does not look into nested transactions.
fn cost(request: &PbTxnRequest) -> usize {
    let branch = |operations: &[PbTxnRequestOp]| -> usize {
        let one = |operation: &PbTxnRequestOp| match &operation.request {
            Some(PbTxnOpRequest::RequestPut(write)) => write.key.len() + write.value.len(),
            _ => 0,
        };
        operations.iter().map(one).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
