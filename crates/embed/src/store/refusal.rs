//! What etcd answers when it does not do as told: codes and texts as etcd 3.5 has them, because clients go by both.

use tonic::{Code, Status};

/// Why a request was refused. Nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: Code,
    text: &'static str,
}

macro_rules! refusals {
    ($($name:ident = $code:ident $text:literal;)*) => {
        impl Refusal {
            $(pub(crate) const $name: Self = Self { code: Code::$code, text: $text };)*
        }
    };
}

refusals! {
    EMPTY_KEY = InvalidArgument "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument "etcdserver: duplicate key given in txn request";
    INVALID_SORT = InvalidArgument "etcdserver: invalid sort option";
    REQUEST_TOO_LARGE = InvalidArgument "etcdserver: request is too large";
    COMPACTED = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND = NotFound "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange "etcdserver: too large lease TTL";
    MEMBER_NOT_FOUND = NotFound "etcdserver: member not found";
    NO_LEADER = Unavailable "etcdserver: no leader";
    STOPPED = Unavailable "etcdserver: server stopped";
    TIMED_OUT = Unavailable "etcdserver: request timed out";
}

impl Refusal {
    pub(crate) fn text(&self) -> &'static str {
        self.text
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.text)
    }
}
