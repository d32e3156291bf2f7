//! What a script is made of: every request of KV, Watch and Lease, with names where a number is known only at run time.

use etcd_client::proto::{
    PbCompactionRequest, PbDeleteRequest, PbLeaseGrantRequest, PbPutRequest, PbRangeRequest, PbTxnRequest,
    PbWatchRequest, PbWatchRequestUnion,
};

/// One step of a script. Revisions may be named by [`head`] and [`compacted`], leases by [`lease`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Range(PbRangeRequest),
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(PbTxnRequest),
    Compact(PbCompactionRequest),
    /// An id made by [`lease`] lets the server choose, and names what it chose.
    Grant(PbLeaseGrantRequest),
    Revoke(i64),
    TimeToLive {
        id: i64,
        keys: bool,
    },
    Leases,
    /// One keep-alive stream: each id is sent when the one before it is answered.
    KeepAlive(Vec<i64>),
    Watch(usize, Watching),
    Cancel(usize, i64),
    Progress(usize),
    /// Compares what every watch has seen up to now.
    Barrier,
}

/// A request to create a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watching {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    pub(crate) start_revision: i64,
    pub(crate) filters: Vec<i32>,
    pub(crate) prev_kv: bool,
    pub(crate) watch_id: i64,
    pub(crate) fragment: bool,
}

impl Watching {
    pub(crate) fn request(&self) -> PbWatchRequest {
        let mut union = PbWatchRequestUnion::CreateRequest(Default::default());
        if let PbWatchRequestUnion::CreateRequest(create) = &mut union {
            create.key.clone_from(&self.key);
            create.range_end.clone_from(&self.range_end);
            create.start_revision = self.start_revision;
            create.filters.clone_from(&self.filters);
            create.prev_kv = self.prev_kv;
            create.watch_id = self.watch_id;
            create.fragment = self.fragment;
        }
        PbWatchRequest { request_union: Some(union) }
    }

    pub(crate) fn hides_puts(&self) -> bool {
        self.filters.contains(&0)
    }

    pub(crate) fn hides_deletes(&self) -> bool {
        self.filters.contains(&1)
    }

    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        let first = self.first_key();
        match self.range_end.as_slice() {
            b"" => key == first,
            b"\0" => key >= first.as_slice(),
            end => (first.as_slice()..end).contains(&key),
        }
    }

    /// A key this watch sees. An empty key stands for the smallest one, in etcd's eyes too.
    pub(crate) fn first_key(&self) -> Vec<u8> {
        if self.key.is_empty() { b"\0".to_vec() } else { self.key.clone() }
    }
}

const HEAD: i64 = 1 << 40;
const COMPACTED: i64 = 1 << 44;
const LEASE: i64 = 1 << 60;
/// How far from its name a revision can be asked for.
const REACH: i64 = 1 << 30;
/// How many leases a script can name.
pub(crate) const LEASES: i64 = 1 << 10;

/// The newest revision there is when the operation runs, and `offset`.
pub(crate) const fn head(offset: i64) -> i64 {
    HEAD + offset
}

/// The compacted revision when the operation runs, and `offset`.
pub(crate) const fn compacted(offset: i64) -> i64 {
    COMPACTED + offset
}

/// The lease with an id of the server's choice that the script knows by this number.
pub(crate) const fn lease(slot: i64) -> i64 {
    LEASE + slot
}

/// The number of a lease that was named by [`lease`].
pub(crate) fn slot(id: i64) -> Option<i64> {
    (LEASE..LEASE + LEASES).contains(&id).then(|| id - LEASE)
}

/// A revision as it is sent, where the newest and the compacted one are known.
pub(crate) fn revision(named: i64, newest: i64, compacted: i64) -> i64 {
    if (HEAD - REACH..HEAD + REACH).contains(&named) {
        newest + (named - HEAD)
    } else if (COMPACTED - REACH..COMPACTED + REACH).contains(&named) {
        compacted + (named - COMPACTED)
    } else {
        named
    }
}

/// How a revision reads in a printed script.
pub(crate) fn revision_text(named: i64) -> String {
    for (base, name) in [(HEAD, "head"), (COMPACTED, "compacted")] {
        if (base - REACH..base + REACH).contains(&named) {
            return format!("{name}{:+}", named - base);
        }
    }
    named.to_string()
}
