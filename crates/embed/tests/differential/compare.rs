//! Finds the first field in which two answers differ.

use std::fmt;

use etcd_client::proto::{
    PbKeyValue, PbRangeRequest, PbRangeResponse, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnResponse,
};

use crate::answer::Answer;
use crate::op::Op;

/// Two answers to one operation that are not the same.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// Where in the script it was.
    pub(crate) step: usize,
    pub(crate) op: Op,
    /// The first field that differs, such as `kvs[1].version`.
    pub(crate) field: String,
    pub(crate) left_value: String,
    pub(crate) right_value: String,
    pub(crate) left: Answer,
    pub(crate) right: Answer,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {}: {}", self.step, self.op)?;
        writeln!(f, "  first differing field: {}", self.field)?;
        writeln!(f, "  embed: {}", self.left_value)?;
        writeln!(f, "  real:  {}", self.right_value)?;
        writeln!(f, "  embed's whole answer: {:?}", self.left)?;
        write!(f, "  real's whole answer:  {:?}", self.right)
    }
}

/// Compares two normalized answers. `None`: they are the same.
pub(crate) fn compare(step: usize, op: &Op, left: &Answer, right: &Answer) -> Option<Box<Difference>> {
    let (mut mine, theirs) = (left.clone(), right.clone());
    forgive_a_second(&mut mine, &theirs);
    settle(op, &mut mine);
    let mut theirs = theirs;
    settle(op, &mut theirs);
    if mine == theirs && !faulty(&mine) {
        return None;
    }
    let (field, left_value, right_value) = first_difference(&mine, &theirs);
    let (left, right) = (left.clone(), right.clone());
    Some(Box::new(Difference { step, op: op.clone(), field, left_value, right_value, left, right }))
}

/// True where a watch saw what no server may do: wrong on both sides is wrong still.
fn faulty(answer: &Answer) -> bool {
    matches!(answer, Answer::Watched(watches) if watches.iter().any(|watched| !watched.faults.is_empty()))
}

/// What remains of a lease is rounded to seconds at two moments.
fn forgive_a_second(left: &mut Answer, right: &Answer) {
    if let (Answer::TimeToLive(left), Answer::TimeToLive(right)) = (left, right)
        && left.ttl.abs_diff(right.ttl) <= 1
        && left.ttl.min(right.ttl) >= 0
    {
        left.ttl = right.ttl;
    }
}

/// Brings what a sort leaves open into one order, in a read and in the reads of a transaction.
fn settle(op: &Op, answer: &mut Answer) {
    match (op, answer) {
        (Op::Range(request), Answer::Range(answer)) => settle_ties(request, answer),
        (Op::Txn(request), Answer::Txn(answer)) => settle_txn(request, answer),
        _ => {}
    }
}

fn settle_txn(request: &PbTxnRequest, answer: &mut PbTxnResponse) {
    let branch = if answer.succeeded { &request.success } else { &request.failure };
    for (asked, answered) in branch.iter().zip(&mut answer.responses) {
        match (&asked.request, &mut answered.response) {
            (Some(PbTxnOpRequest::RequestRange(request)), Some(PbTxnOpResponse::ResponseRange(answer))) => {
                settle_ties(request, answer);
            }
            (Some(PbTxnOpRequest::RequestTxn(request)), Some(PbTxnOpResponse::ResponseTxn(answer))) => {
                settle_txn(request, answer);
            }
            _ => {}
        }
    }
}

/// etcd sorts with Go's `sort.Sort`, which keeps the order of equals up to six elements (an insertion sort, before it
/// a pass over elements six apart). Beyond that, equals are brought into the order of their keys; and where a limit cut
/// through equals, any of them may be there.
fn settle_ties(request: &PbRangeRequest, answer: &mut PbRangeResponse) {
    const STABLE: i64 = 6;
    if answer.count <= STABLE || request.sort_target == 0 {
        return;
    }
    let equal = |a: &PbKeyValue, b: &PbKeyValue| match request.sort_target {
        1 => a.version == b.version,
        2 => a.create_revision == b.create_revision,
        3 => a.mod_revision == b.mod_revision,
        // The values may be left out: then nothing tells which are equal.
        _ => request.keys_only || a.value == b.value,
    };
    for equals in answer.kvs.chunk_by_mut(equal) {
        equals.sort_by(|a, b| a.key.cmp(&b.key));
    }
    if answer.more
        && let Some(cut) = answer.kvs.chunk_by_mut(equal).last()
    {
        for kv in cut {
            let target = request.sort_target;
            *kv = PbKeyValue {
                version: if target == 1 { kv.version } else { 0 },
                create_revision: if target == 2 { kv.create_revision } else { 0 },
                mod_revision: if target == 3 { kv.mod_revision } else { 0 },
                value: if target == 4 { std::mem::take(&mut kv.value) } else { Vec::new() },
                ..PbKeyValue::default()
            };
        }
    }
}

fn first_difference(left: &Answer, right: &Answer) -> (String, String, String) {
    let (left, right) = (leaves(left), leaves(right));
    let none = || ("(nothing)".to_owned(), "(nothing)".to_owned());
    for index in 0..left.len().max(right.len()) {
        let (mine, theirs) = (left.get(index), right.get(index));
        if mine != theirs {
            // Of two paths, the one that the other side does not have at all.
            let common = |path: &str| left.iter().any(|(other, _)| other == path);
            let first = theirs.filter(|(path, _)| mine.is_none() || !common(path)).or(mine).or(theirs);
            let (field, _) = first.cloned().unwrap_or_else(none);
            let tell = |leaf: Option<&(String, String)>| match leaf {
                Some((path, value)) if *path == field => value.clone(),
                Some((path, value)) => format!("(instead {path} = {value})"),
                None => "(nothing)".to_owned(),
            };
            return (field.clone(), tell(mine), tell(theirs));
        }
    }
    let fault = left.iter().find(|(path, _)| path.contains("faults")).cloned().unwrap_or_else(none);
    (fault.0, fault.1.clone(), fault.1)
}

/// Every field of an answer with its path, in the order of declaration: read from its `Debug` text, because every
/// protobuf message prints all its fields there and nothing else lists them.
pub(crate) fn leaves(answer: &Answer) -> Vec<(String, String)> {
    let text = format!("{answer:#?}");
    let mut leaves = Vec::new();
    // What is open: the name, whether it is a list, and how many elements it had so far.
    let mut open: Vec<(String, bool, usize)> = Vec::new();
    for line in text.lines() {
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "}" | ")" | "]") {
            open.pop();
            continue;
        }
        let named = line.split_once(": ").filter(|(name, _)| {
            name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '#'))
        });
        let (name, value) = match (named, open.last_mut()) {
            (Some((name, value)), _) => (name.to_owned(), value),
            (None, Some((_, true, count))) => {
                *count += 1;
                (format!("[{}]", *count - 1), line)
            }
            (None, _) => (String::new(), line),
        };
        if value.ends_with(['(', '{', '[']) {
            open.push((name, value.ends_with('['), 0));
        } else {
            let names = open.iter().map(|(name, ..)| name).chain([&name]);
            leaves.push((
                names.filter(|name| !name.is_empty()).fold(String::new(), |path, name| join(path, name)),
                value.to_owned(),
            ));
        }
    }
    leaves
}

fn join(mut path: String, name: &str) -> String {
    if !path.is_empty() && !name.starts_with('[') {
        path.push('.');
    }
    path.push_str(name);
    path
}
