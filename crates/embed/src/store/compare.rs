//! The conditions of a transaction.

use std::cmp::Ordering;

use etcd_client::proto::{PbCompare, PbKeyValue, PbTargetUnion};

use super::span::Span;
use super::state::State;

/// Numbers of `CompareTarget` on the wire.
const VERSION: i32 = 0;
const CREATE: i32 = 1;
const MOD: i32 = 2;
const VALUE: i32 = 3;
const LEASE: i32 = 4;

impl State {
    /// Whether a condition holds now, for every key it names.
    pub(super) fn holds(&self, compare: &PbCompare) -> bool {
        let span = Span::new(compare.key.clone(), compare.range_end.clone());
        let mut keys = self.index.range(&span).peekable();
        if keys.peek().is_none() {
            // An absent key has zeros, but no value that could be compared.
            return compare.target != VALUE && matches(compare, &PbKeyValue::default());
        }
        keys.all(|version| matches(compare, version))
    }
}

fn matches(compare: &PbCompare, version: &PbKeyValue) -> bool {
    let order = match (compare.target, &compare.target_union) {
        (VERSION, Some(PbTargetUnion::Version(wanted))) => version.version.cmp(wanted),
        (VERSION, _) => version.version.cmp(&0),
        (CREATE, Some(PbTargetUnion::CreateRevision(wanted))) => version.create_revision.cmp(wanted),
        (CREATE, _) => version.create_revision.cmp(&0),
        (MOD, Some(PbTargetUnion::ModRevision(wanted))) => version.mod_revision.cmp(wanted),
        (MOD, _) => version.mod_revision.cmp(&0),
        (VALUE, Some(PbTargetUnion::Value(wanted))) => version.value.cmp(wanted),
        (VALUE, _) => version.value.as_slice().cmp(&[]),
        (LEASE, Some(PbTargetUnion::Lease(wanted))) => version.lease.cmp(wanted),
        (LEASE, _) => version.lease.cmp(&0),
        // A target etcd does not know compares equal with anything.
        _ => Ordering::Equal,
    };
    match compare.result {
        0 => order == Ordering::Equal,
        1 => order == Ordering::Greater,
        2 => order == Ordering::Less,
        3 => order != Ordering::Equal,
        // As in etcd: a relation it does not know always holds.
        _ => true,
    }
}
