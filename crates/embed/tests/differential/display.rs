//! How a script is printed: one line per operation, what is not set left out.

use std::fmt::{self, Display, Write as _};

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnRequest,
    PbTxnRequestOp,
};

use crate::op::{Op, Watching, revision_text, slot};

/// One line of `name value` pairs, those that are not the default.
struct Line(String);

impl Line {
    fn new(verb: &str) -> Self {
        Self(verb.to_owned())
    }

    fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        if bytes.len() > 64 {
            write!(self.0, " {name} ({} bytes)", bytes.len()).expect("a string takes it");
        } else if !bytes.is_empty() || name == "key" {
            write!(self.0, " {name} \"{}\"", bytes.escape_ascii()).expect("a string takes it");
        }
        self
    }

    fn number(mut self, name: &str, value: i64) -> Self {
        if value != 0 {
            write!(self.0, " {name} {}", revision_text(value)).expect("a string takes it");
        }
        self
    }

    fn lease(mut self, id: i64) -> Self {
        if id != 0 {
            write!(self.0, " lease {}", lease_text(id)).expect("a string takes it");
        }
        self
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        if value {
            write!(self.0, " {name}").expect("a string takes it");
        }
        self
    }
}

fn lease_text(id: i64) -> String {
    slot(id).map_or_else(|| id.to_string(), |slot| format!("#{slot}"))
}

impl Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Range(request) => range(request),
            Self::Put(request) => put(request),
            Self::Delete(request) => delete(request),
            Self::Txn(request) => return f.write_str(&txn(request)),
            Self::Compact(request) => {
                Line::new("compact").number("to", request.revision).flag("physical", request.physical)
            }
            Self::Grant(request) => Line::new("grant").lease(request.id).number("ttl", request.ttl),
            Self::Revoke(id) => Line::new("revoke").lease(*id),
            Self::TimeToLive { id, keys } => Line::new("time-to-live").lease(*id).flag("keys", *keys),
            Self::Leases => Line::new("leases"),
            Self::KeepAlive(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| lease_text(*id)).collect();
                Line::new(&format!("keep-alive {}", ids.join(" ")))
            }
            Self::Watch(stream, watching) => watch(*stream, watching),
            Self::Cancel(stream, id) => Line::new(&format!("cancel on stream {stream} watch {id}")),
            Self::Progress(stream) => Line::new(&format!("progress on stream {stream}")),
            Self::Barrier => Line::new("barrier"),
        };
        f.write_str(&line.0)
    }
}

fn range(request: &PbRangeRequest) -> Line {
    let sort = match (request.sort_order, request.sort_target) {
        (0, 0) => String::new(),
        (order, target) => format!("sort order {order} target {target}"),
    };
    Line::new("range")
        .bytes("key", &request.key)
        .bytes("end", &request.range_end)
        .number("revision", request.revision)
        .number("limit", request.limit)
        .flag(&sort, !sort.is_empty())
        .number("min_mod", request.min_mod_revision)
        .number("max_mod", request.max_mod_revision)
        .number("min_create", request.min_create_revision)
        .number("max_create", request.max_create_revision)
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
}

fn put(request: &PbPutRequest) -> Line {
    Line::new("put")
        .bytes("key", &request.key)
        .bytes("value", &request.value)
        .lease(request.lease)
        .flag("prev_kv", request.prev_kv)
        .flag("ignore_value", request.ignore_value)
        .flag("ignore_lease", request.ignore_lease)
}

fn delete(request: &PbDeleteRequest) -> Line {
    Line::new("delete")
        .bytes("key", &request.key)
        .bytes("end", &request.range_end)
        .flag("prev_kv", request.prev_kv)
}

fn watch(stream: usize, watching: &Watching) -> Line {
    let filters = format!("filters {:?}", watching.filters);
    Line::new(&format!("watch on stream {stream}"))
        .bytes("key", &watching.key)
        .bytes("end", &watching.range_end)
        .number("from", watching.start_revision)
        .number("id", watching.watch_id)
        .flag(&filters, !watching.filters.is_empty())
        .flag("prev_kv", watching.prev_kv)
        .flag("fragment", watching.fragment)
}

fn txn(request: &PbTxnRequest) -> String {
    let join = |lines: Vec<String>| lines.join("; ");
    let compares = join(request.compare.iter().map(compare).collect());
    let success = join(request.success.iter().map(inner).collect());
    let failure = join(request.failure.iter().map(inner).collect());
    format!("txn if [{compares}] then [{success}] else [{failure}]")
}

fn inner(operation: &PbTxnRequestOp) -> String {
    match &operation.request {
        Some(PbTxnOpRequest::RequestRange(request)) => range(request).0,
        Some(PbTxnOpRequest::RequestPut(request)) => put(request).0,
        Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request).0,
        Some(PbTxnOpRequest::RequestTxn(request)) => txn(request),
        None => "(nothing)".to_owned(),
    }
}

fn compare(compare: &PbCompare) -> String {
    let line = Line::new("compare").bytes("key", &compare.key).bytes("end", &compare.range_end);
    let (target, result) = (compare.target, compare.result);
    let value = match &compare.target_union {
        Some(PbTargetUnion::Value(value)) => format!("\"{}\"", value.escape_ascii()),
        Some(PbTargetUnion::Lease(id)) => lease_text(*id),
        Some(PbTargetUnion::CreateRevision(revision) | PbTargetUnion::ModRevision(revision)) => {
            revision_text(*revision)
        }
        Some(PbTargetUnion::Version(version)) => version.to_string(),
        None => "(nothing)".to_owned(),
    };
    let sign = match result {
        0 => "=",
        1 => ">",
        2 => "<",
        3 => "!=",
        _ => "?",
    };
    let target = match target {
        0 => "version",
        1 => "create",
        2 => "mod",
        3 => "value",
        4 => "lease",
        _ => "(unknown target)",
    };
    format!("{} {target} {sign} {value}", line.0)
}
