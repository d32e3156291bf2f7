//! Proves that the comparison sees a difference in every field there is: an answer is changed in one place at a time.

use std::collections::BTreeSet;

use etcd_client::proto::{
    PbCompactionResponse, PbDeleteResponse, PbEvent, PbKeyValue, PbLeaseGrantResponse,
    PbLeaseKeepAliveResponse, PbLeaseLeasesResponse, PbLeaseRevokeResponse, PbLeaseStatus,
    PbLeaseTimeToLiveResponse, PbPutResponse, PbRangeResponse, PbResponseHeader, PbResponseOp,
    PbTxnOpResponse, PbTxnResponse, PbWatchResponse,
};
use tonic::Code;

use crate::answer::{Answer, Watched};
use crate::compare::{compare, leaves};
use crate::names::Names;
use crate::op::{Op, lease};
use crate::wire::Refused;

/// A change, and the field it must be seen in.
type Change<M> = (&'static str, fn(&mut M));
/// Where a message has another one inside.
type Place<M, I> = (&'static str, fn(&mut M) -> &mut I);

const HEADER: &[Change<PbResponseHeader>] = &[
    ("cluster_id", |header| header.cluster_id = 0),
    ("member_id", |header| header.member_id = 0),
    ("revision", |header| header.revision += 1),
    ("raft_term", |header| header.raft_term = 0),
];

const KEY_VALUE: &[Change<PbKeyValue>] = &[
    ("key", |kv| kv.key.push(1)),
    ("create_revision", |kv| kv.create_revision += 1),
    ("mod_revision", |kv| kv.mod_revision += 1),
    ("version", |kv| kv.version += 1),
    ("value", |kv| kv.value = vec![9]),
    ("lease", |kv| kv.lease += 1),
];

const WATCH: &[Change<PbWatchResponse>] = &[
    ("watch_id", |answer| answer.watch_id += 1),
    ("created", |answer| answer.created ^= true),
    ("canceled", |answer| answer.canceled ^= true),
    ("compact_revision", |answer| answer.compact_revision += 1),
    ("cancel_reason", |answer| answer.cancel_reason.push('!')),
    ("fragment", |answer| answer.fragment ^= true),
    ("events", |answer| answer.events.push(event())),
];

fn header() -> PbResponseHeader {
    PbResponseHeader { cluster_id: 11, member_id: 12, revision: 13, raft_term: 14 }
}

fn key_value() -> PbKeyValue {
    let (key, value) = (b"key".to_vec(), b"value".to_vec());
    PbKeyValue { key, value, create_revision: 2, mod_revision: 3, version: 4, lease: 5 }
}

fn event() -> PbEvent {
    PbEvent { r#type: 1, kv: Some(key_value()), prev_kv: Some(key_value()) }
}

fn control() -> PbWatchResponse {
    PbWatchResponse { header: Some(header()), watch_id: 1, ..PbWatchResponse::default() }
}

/// Changes one kind of answer in all its fields, one after the other.
struct Proof<M> {
    sample: M,
    wrap: fn(M) -> Answer,
    /// Changed copies, each with the field it must be seen in.
    changed: Vec<(String, M)>,
}

impl<M: Clone> Proof<M> {
    fn of(sample: M, wrap: fn(M) -> Answer) -> Self {
        Self { sample, wrap, changed: Vec::new() }
    }

    fn changes(mut self, changes: &[Change<M>]) -> Self {
        for (field, change) in changes {
            let mut changed = self.sample.clone();
            change(&mut changed);
            self.changed.push(((*field).to_owned(), changed));
        }
        self
    }

    fn inside<I>(mut self, (prefix, place): Place<M, I>, changes: &[Change<I>]) -> Self {
        for (field, change) in changes {
            let mut changed = self.sample.clone();
            change(place(&mut changed));
            self.changed.push((format!("{prefix}.{field}"), changed));
        }
        self
    }

    fn holds(self) {
        let normal = |message: M| {
            let mut answer = (self.wrap)(message);
            answer.normalize(&Names::default());
            answer
        };
        let sample = normal(self.sample.clone());
        assert!(compare(0, &Op::Leases, &sample, &sample).is_none(), "{sample:?} differs from itself");
        let mut seen = BTreeSet::new();
        for (field, changed) in self.changed {
            for (left, right) in
                [(sample.clone(), normal(changed.clone())), (normal(changed.clone()), sample.clone())]
            {
                let difference = compare(0, &Op::Leases, &left, &right);
                let difference =
                    difference.unwrap_or_else(|| panic!("a change in {field} of {sample:?} is not seen"));
                let told = bare(&difference.field);
                assert!(told.starts_with(&field), "a change in {field} is told as one in {told}");
            }
            seen.insert(field);
        }
        for (path, _) in leaves(&sample) {
            let path = bare(&path);
            assert!(seen.contains(&path), "nobody changed {path} of {sample:?}");
        }
    }
}

/// A path without the places in lists.
fn bare(path: &str) -> String {
    let mut inside = false;
    let kept: String = path
        .chars()
        .filter(|letter| {
            inside |= *letter == '[';
            let keep = !inside;
            inside &= *letter != ']';
            keep
        })
        .collect();
    kept.trim_start_matches('.').to_owned()
}

macro_rules! header_of {
    () => {
        ("header", |answer| answer.header.as_mut().unwrap())
    };
}

#[test]
fn a_change_in_any_field_of_a_kv_answer_is_seen() {
    let sample = PbRangeResponse { header: Some(header()), kvs: vec![key_value()], more: false, count: 1 };
    Proof::of(sample, Answer::Range)
        .inside(header_of!(), HEADER)
        .inside(("kvs", |answer| &mut answer.kvs[0]), KEY_VALUE)
        .changes(&[("more", |answer| answer.more = true), ("count", |answer| answer.count += 1)])
        .changes(&[("kvs", |answer| answer.kvs.push(key_value())), ("kvs", |answer| answer.kvs.clear())])
        .changes(&[("header", |answer| answer.header = None)])
        .holds();
    Proof::of(PbPutResponse { header: Some(header()), prev_kv: Some(key_value()) }, Answer::Put)
        .inside(header_of!(), HEADER)
        .inside(("prev_kv", |answer| answer.prev_kv.as_mut().unwrap()), KEY_VALUE)
        .changes(&[("prev_kv", |answer| answer.prev_kv = None)])
        .holds();
    let sample = PbDeleteResponse { header: Some(header()), deleted: 1, prev_kvs: vec![key_value()] };
    Proof::of(sample, Answer::Delete)
        .inside(header_of!(), HEADER)
        .inside(("prev_kvs", |answer| &mut answer.prev_kvs[0]), KEY_VALUE)
        .changes(&[("deleted", |answer| answer.deleted += 1)])
        .holds();
    Proof::of(PbCompactionResponse { header: Some(header()) }, Answer::Compact)
        .inside(header_of!(), HEADER)
        .holds();
    let refused = Refused { code: Code::NotFound, message: "gone".to_owned() };
    Proof::of(refused, Answer::Refused)
        .changes(&[
            ("code", |refused| refused.code = Code::Unknown),
            ("message", |refused| refused.message.push('!')),
        ])
        .holds();
}

#[test]
fn a_change_in_any_field_within_a_transaction_is_seen() {
    fn txn(response: PbTxnOpResponse) -> PbTxnResponse {
        let responses = vec![PbResponseOp { response: Some(response) }];
        PbTxnResponse { header: Some(header()), succeeded: true, responses }
    }
    macro_rules! inner {
        ($variant:ident) => {
            |answer| match answer.responses[0].response.as_mut() {
                Some(PbTxnOpResponse::$variant(inner)) => inner,
                other => panic!("{other:?} is another one"),
            }
        };
    }
    macro_rules! inner_header {
        ($variant:ident) => {
            ("responses.response.header", |answer| match answer.responses[0].response.as_mut() {
                Some(PbTxnOpResponse::$variant(inner)) => inner.header.as_mut().unwrap(),
                other => panic!("{other:?} is another one"),
            })
        };
    }
    macro_rules! inner_kv {
        ($variant:ident, $field:ident, $inner:ident => $kv:expr) => {
            (concat!("responses.response.", stringify!($field)), |answer| {
                match answer.responses[0].response.as_mut() {
                    Some(PbTxnOpResponse::$variant($inner)) => $kv,
                    other => panic!("{other:?} is another one"),
                }
            })
        };
    }
    let put = PbPutResponse { header: Some(header()), prev_kv: Some(key_value()) };
    Proof::of(txn(PbTxnOpResponse::ResponsePut(put)), Answer::Txn)
        .inside(header_of!(), HEADER)
        .changes(&[("succeeded", |answer| answer.succeeded = false)])
        .changes(&[("responses", |answer| answer.responses.clear())])
        .inside(inner_header!(ResponsePut), HEADER)
        .inside(inner_kv!(ResponsePut, prev_kv, inner => inner.prev_kv.as_mut().unwrap()), KEY_VALUE)
        .holds();
    let range = PbRangeResponse { header: Some(header()), kvs: vec![key_value()], more: true, count: 1 };
    Proof::of(txn(PbTxnOpResponse::ResponseRange(range)), Answer::Txn)
        .inside(header_of!(), HEADER)
        .changes(&[("succeeded", |answer| answer.succeeded = false)])
        .inside(inner_header!(ResponseRange), HEADER)
        .inside(inner_kv!(ResponseRange, kvs, inner => &mut inner.kvs[0]), KEY_VALUE)
        .inside(
            ("responses.response", inner!(ResponseRange)),
            &[("more", |inner| inner.more = false), ("count", |inner| inner.count += 1)],
        )
        .holds();
    let delete = PbDeleteResponse { header: Some(header()), deleted: 1, prev_kvs: vec![key_value()] };
    Proof::of(txn(PbTxnOpResponse::ResponseDeleteRange(delete)), Answer::Txn)
        .inside(header_of!(), HEADER)
        .changes(&[("succeeded", |answer| answer.succeeded = false)])
        .inside(inner_header!(ResponseDeleteRange), HEADER)
        .inside(inner_kv!(ResponseDeleteRange, prev_kvs, inner => &mut inner.prev_kvs[0]), KEY_VALUE)
        .inside(
            ("responses.response", inner!(ResponseDeleteRange)),
            &[("deleted", |inner| inner.deleted += 1)],
        )
        .holds();
    let nested = txn(PbTxnOpResponse::ResponsePut(PbPutResponse { header: None, prev_kv: None }));
    Proof::of(txn(PbTxnOpResponse::ResponseTxn(nested)), Answer::Txn)
        .inside(header_of!(), HEADER)
        .changes(&[("succeeded", |answer| answer.succeeded = false)])
        .inside(inner_header!(ResponseTxn), HEADER)
        .inside(
            ("responses.response", inner!(ResponseTxn)),
            &[
                ("succeeded", |inner| inner.succeeded = false),
                ("responses.response.header", |inner| {
                    let put = PbPutResponse { header: Some(header()), prev_kv: None };
                    inner.responses[0].response = Some(PbTxnOpResponse::ResponsePut(put));
                }),
                ("responses.response.prev_kv", |inner| {
                    let put = PbPutResponse { header: None, prev_kv: Some(key_value()) };
                    inner.responses[0].response = Some(PbTxnOpResponse::ResponsePut(put));
                }),
            ],
        )
        .holds();
}

#[test]
fn a_change_in_any_field_of_a_lease_answer_is_seen() {
    let sample = PbLeaseGrantResponse { header: Some(header()), id: 1, ttl: 2, error: String::new() };
    Proof::of(sample, Answer::Grant)
        .inside(header_of!(), HEADER)
        .changes(&[
            ("id", |answer| answer.id += 1),
            ("ttl", |answer| answer.ttl += 1),
            ("error", |answer| answer.error.push('!')),
        ])
        .holds();
    Proof::of(PbLeaseRevokeResponse { header: Some(header()) }, Answer::Revoke)
        .inside(header_of!(), HEADER)
        .holds();
    let sample = PbLeaseTimeToLiveResponse {
        header: Some(header()),
        id: 1,
        ttl: 20,
        granted_ttl: 30,
        keys: vec![b"key".to_vec()],
    };
    Proof::of(sample, Answer::TimeToLive)
        .inside(header_of!(), HEADER)
        .changes(&[
            ("id", |answer| answer.id += 1),
            ("ttl", |answer| answer.ttl += 2),
            ("ttl", |answer| answer.ttl = -1),
            ("granted_ttl", |answer| answer.granted_ttl += 1),
            ("keys", |answer| answer.keys[0].push(1)),
            ("keys", |answer| answer.keys.clear()),
        ])
        .holds();
    let sample = PbLeaseLeasesResponse { header: Some(header()), leases: vec![PbLeaseStatus { id: 1 }] };
    Proof::of(sample, Answer::Leases)
        .inside(header_of!(), HEADER)
        .changes(&[
            ("leases.id", |answer| answer.leases[0].id += 1),
            ("leases", |answer| answer.leases.push(PbLeaseStatus { id: 9 })),
        ])
        .holds();
    let sample = vec![PbLeaseKeepAliveResponse { header: Some(header()), id: 1, ttl: 2 }];
    Proof::of(sample, Answer::KeepAlive)
        .inside(("header", |answers| answers[0].header.as_mut().unwrap()), HEADER)
        .changes(&[
            ("id", |answers| answers[0].id += 1),
            ("ttl", |answers| answers[0].ttl += 1),
            ("", |answers| answers.clear()),
        ])
        .holds();
}

#[test]
fn a_change_in_any_field_of_a_watch_is_seen() {
    Proof::of(control(), Answer::Control).inside(header_of!(), HEADER).changes(WATCH).holds();
    let sample = vec![Watched {
        stream: 1,
        watch_id: 2,
        events: vec![event()],
        ended: vec![PbWatchResponse { canceled: true, compact_revision: 3, ..control() }],
        faults: Vec::new(),
    }];
    Proof::of(sample, Answer::Watched)
        .changes(&[
            ("stream", |watches| watches[0].stream += 1),
            ("watch_id", |watches| watches[0].watch_id += 1),
            ("events.r#type", |watches| watches[0].events[0].r#type = 0),
            ("events", |watches| watches[0].events.push(event())),
            ("ended", |watches| watches[0].ended.clear()),
            ("faults", |watches| watches[0].faults.push("late".to_owned())),
        ])
        .inside(("events.kv", |watches| watches[0].events[0].kv.as_mut().unwrap()), KEY_VALUE)
        .inside(("events.prev_kv", |watches| watches[0].events[0].prev_kv.as_mut().unwrap()), KEY_VALUE)
        .inside(("ended.header", |watches| watches[0].ended[0].header.as_mut().unwrap()), HEADER)
        .inside(("ended", |watches| &mut watches[0].ended[0]), WATCH)
        .holds();
}

#[test]
fn a_fault_on_both_sides_is_a_difference() {
    let faulty = Answer::Watched(vec![Watched { faults: vec!["late".to_owned()], ..Watched::default() }]);
    let difference = compare(0, &Op::Barrier, &faulty, &faulty).unwrap();
    assert_eq!(bare(&difference.field), "faults");
}

#[test]
fn who_answers_and_which_ids_it_chose_make_no_difference() {
    let answer = |cluster_id: u64, id: i64| {
        let mut names = Names::default();
        names.chosen(4, id);
        let header =
            PbResponseHeader { cluster_id, member_id: cluster_id, raft_term: cluster_id, revision: 9 };
        let kvs = vec![PbKeyValue { lease: id, ..key_value() }];
        let mut answer = Answer::Range(PbRangeResponse { header: Some(header), kvs, more: false, count: 1 });
        answer.normalize(&names);
        answer
    };
    let (left, right) = (answer(1, 700), answer(2, 800));
    assert!(compare(0, &Op::Leases, &left, &right).is_none());
    let Answer::Range(named) = left else { panic!("it was a range") };
    assert_eq!(named.kvs[0].lease, lease(4));
}

#[test]
fn a_second_in_the_life_of_a_lease_makes_no_difference() {
    let answer = |ttl: i64| Answer::TimeToLive(PbLeaseTimeToLiveResponse { ttl, ..Default::default() });
    assert!(compare(0, &Op::Leases, &answer(9), &answer(10)).is_none());
    assert!(compare(0, &Op::Leases, &answer(10), &answer(9)).is_none());
    assert!(compare(0, &Op::Leases, &answer(8), &answer(10)).is_some());
    assert!(compare(0, &Op::Leases, &answer(-1), &answer(0)).is_some());
}
