//! The differences that are known and accepted: the one list of them. The crate's README repeats it.

use tonic::Code;

use crate::answer::Answer;
use crate::compare::Difference;
use crate::wire::Refused;

/// A difference that may be.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(crate) what: &'static str,
    /// Versions of the real etcd it applies to: the beginning of the version, empty for all.
    pub(crate) version: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) matches: fn(&Difference) -> bool,
}

/// Every accepted difference.
pub(crate) const ALLOWED: &[Allowed] = &[Allowed {
    what: "embed refuses an unknown sort order or target",
    version: "",
    reason: "as etcd 3.6 does; 3.4 and 3.5 ignore an unknown order, and crash at an unknown target",
    matches: |difference| {
        let refusal =
            Refused { code: Code::InvalidArgument, message: "etcdserver: invalid sort option".to_owned() };
        difference.left == Answer::Refused(refusal)
    },
}];

/// The entry that allows a difference, if any does.
pub(crate) fn allowed(difference: &Difference, version: &str) -> Option<&'static Allowed> {
    ALLOWED.iter().find(|entry| version.starts_with(entry.version) && (entry.matches)(difference))
}
