//! The store beside a plain model of it: every revision a map of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::proto::{
    PbCompactionRequest, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest,
    PbTxnRequestOp,
};
use proptest::prelude::*;

use super::{Identity, Refusal, Span, State, StreamId, Wanted};
use crate::version::Version;

/// Key, create revision, version, value.
type Picture = BTreeMap<Vec<u8>, (i64, i64, Vec<u8>)>;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8, u8),
    /// Several puts in one revision.
    Batch(Vec<u8>),
    /// This many revisions back from the present one.
    Compact(u8),
    RollBack(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..12_u8;
    let step = prop_oneof![
        8 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (key.clone(), 0..14_u8).prop_map(|(from, to)| Step::Delete(from, to)),
        2 => proptest::collection::btree_set(key, 1..5).prop_map(|keys| Step::Batch(keys.into_iter().collect())),
        1 => (0..20_u8).prop_map(Step::Compact),
        1 => (0..6_u8).prop_map(Step::RollBack),
    ];
    proptest::collection::vec(step, 1..120)
}

fn name(key: u8) -> Vec<u8> {
    format!("k{key:02}").into_bytes()
}

fn put(key: u8, value: u8) -> PbPutRequest {
    PbPutRequest { key: name(key), value: vec![value], ..PbPutRequest::default() }
}

fn range(revision: i64, from: u8, to: u8) -> PbRangeRequest {
    PbRangeRequest { key: name(from), range_end: name(to), revision, ..PbRangeRequest::default() }
}

struct World {
    state: State,
    /// One for every revision from the first one on.
    pictures: Vec<Picture>,
    compacted: i64,
}

impl World {
    fn new() -> Self {
        Self::of(Version::default())
    }

    fn of(version: Version) -> Self {
        let identity = Identity { cluster: 1, member: 1, term: 1 };
        let state = State::new(identity, version, Duration::from_secs(1), None);
        // No revision 0, and nothing at revision 1.
        Self { state, pictures: vec![Picture::new(), Picture::new()], compacted: -1 }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.pictures.len()).unwrap() - 1
    }

    fn write(&mut self, keys: &[(u8, u8)]) {
        let revision = self.now() + 1;
        let mut picture = self.pictures.last().unwrap().clone();
        for (key, value) in keys {
            let entry = picture.entry(name(*key)).or_insert((revision, 0, Vec::new()));
            entry.1 += 1;
            entry.2 = vec![*value];
        }
        self.pictures.push(picture);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                self.state.put(put(*key, *value)).unwrap();
                self.write(&[(*key, *value)]);
            }
            Step::Delete(from, to) => {
                let request = PbDeleteRequest { key: name(*from), range_end: name(*to), prev_kv: false };
                let answer = self.state.delete_range(request).unwrap();
                let mut picture = self.pictures.last().unwrap().clone();
                picture.retain(|key, _| *key < name(*from) || *key >= name(*to));
                let gone = self.pictures.last().unwrap().len() - picture.len();
                assert_eq!(answer.deleted, i64::try_from(gone).unwrap());
                if gone > 0 {
                    self.pictures.push(picture);
                }
            }
            Step::Batch(keys) => {
                let operation =
                    |key: &u8| PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put(*key, 7))) };
                let success = keys.iter().map(operation).collect();
                self.state.txn(PbTxnRequest { success, ..PbTxnRequest::default() }).unwrap();
                self.write(&keys.iter().map(|key| (*key, 7)).collect::<Vec<_>>());
            }
            Step::Compact(back) => {
                let revision = self.now() - i64::from(*back);
                let answer = self.state.compact(&PbCompactionRequest { revision, physical: false });
                if revision > self.compacted {
                    answer.unwrap();
                    self.compacted = revision;
                } else {
                    assert_eq!(answer.unwrap_err(), Refusal::COMPACTED);
                }
            }
            Step::RollBack(back) => {
                let revision = self.now() - i64::from(*back);
                if self.state.roll_back(revision).is_ok() {
                    self.pictures.truncate(usize::try_from(revision).unwrap() + 1);
                } else {
                    assert!(revision < self.compacted.max(1));
                }
            }
        }
        assert_eq!(self.state.revision(), self.now());
    }

    fn check(&self, revision: i64, from: u8, to: u8) {
        let answer = self.state.range(&range(revision, from, to));
        if revision < self.compacted && revision > 0 {
            assert_eq!(answer.unwrap_err(), Refusal::COMPACTED);
            return;
        }
        let answer = answer.unwrap();
        let picture = &self.pictures[usize::try_from(revision).unwrap()];
        let expected: Vec<_> =
            picture.iter().filter(|(key, _)| **key >= name(from) && **key < name(to)).collect();
        let found: Vec<_> = answer
            .kvs
            .iter()
            .map(|kv| (&kv.key, (kv.create_revision, kv.version, kv.value.clone())))
            .collect();
        assert_eq!(answer.count, i64::try_from(expected.len()).unwrap(), "at revision {revision}");
        assert!(
            found.iter().map(|(key, value)| (*key, value)).eq(expected),
            "at revision {revision}: {found:?}"
        );
    }
}

/// Everything a watch has been told, as it changes a picture.
fn follow(state: &mut State, stream: StreamId, mut picture: Picture) -> (Picture, Vec<i64>) {
    let mut revisions = Vec::new();
    loop {
        let answers = state.pull(stream);
        if answers.is_empty() {
            return (picture, revisions);
        }
        for event in answers.into_iter().flat_map(|answer| answer.events) {
            let kv = event.kv.unwrap();
            revisions.push(kv.mod_revision);
            match event.r#type {
                0 => picture.insert(kv.key, (kv.create_revision, kv.version, kv.value)),
                _ => picture.remove(&kv.key),
            };
        }
    }
}

fn wanted(start: i64) -> Wanted {
    let span = Span::new(b"k".to_vec(), b"l".to_vec());
    Wanted {
        span,
        start,
        id: 0,
        puts: true,
        deletions: true,
        prev_kv: true,
        fragment: false,
        progress: false,
    }
}

proptest! {
    #[test]
    fn every_revision_that_may_be_read_is_what_it_was(steps in steps(), bounds in (0..14_u8, 0..14_u8)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
            world.check(world.now(), bounds.0, bounds.1);
        }
        for revision in 1..=world.now() {
            world.check(revision, 0, 99);
            world.check(revision, bounds.0, bounds.1);
        }
    }

    #[test]
    fn a_watch_from_any_revision_leads_from_there_to_the_present(steps in steps(), start in 1..60_i64, late in any::<bool>()) {
        let mut world = World::new();
        let steps: Vec<_> = steps.iter().filter(|step| !matches!(step, Step::RollBack(_))).collect();
        let (stream, _) = world.state.open_stream();
        if !late {
            // From the future, most likely.
            world.state.watch(stream, wanted(start));
        }
        for step in steps.iter().filter(|step| !matches!(step, Step::Compact(_))) {
            world.apply(step);
        }
        if late {
            world.state.watch(stream, wanted(start));
        }
        let now = world.now();
        let before = usize::try_from((start - 1).min(now)).unwrap();
        let (picture, revisions) = follow(&mut world.state, stream, world.pictures[before].clone());
        prop_assert!(revisions.is_sorted());
        prop_assert!(revisions.iter().all(|revision| *revision >= start));
        prop_assert_eq!(&picture, world.pictures.last().unwrap());
    }
}

#[test]
fn a_watch_that_lags_is_told_no_revision_twice_after_a_roll_back() {
    let mut world = World::new();
    for _ in 0..1500 {
        world.apply(&Step::Put(1, 1));
    }
    let (stream, _) = world.state.open_stream();
    world.state.watch(stream, wanted(1));
    let told: usize = world.state.pull(stream).iter().map(|answer| answer.events.len()).sum();
    assert_eq!(told, 1000, "the first answer of two");
    world.state.roll_back(500).unwrap();
    world.pictures.truncate(501);
    world.apply(&Step::Put(1, 2));
    assert!(follow(&mut world.state, stream, Picture::new()).1.is_empty(), "it has been told of 501 before");
    while world.now() < 1010 {
        world.apply(&Step::Put(1, 3));
    }
    let (_, revisions) = follow(&mut world.state, stream, Picture::new());
    assert_eq!(revisions, (1002..=1010).collect::<Vec<i64>>());
}

#[test]
fn a_deletion_outlives_the_compaction_of_its_revision_until_the_next_one() {
    let mut world = World::new();
    world.apply(&Step::Put(1, 1));
    world.apply(&Step::Delete(1, 2));
    world.apply(&Step::Compact(0));
    let (stream, _) = world.state.open_stream();
    world.state.watch(stream, wanted(3));
    assert_eq!(follow(&mut world.state, stream, Picture::new()).1, [3]);
    world.apply(&Step::Put(1, 1));
    world.apply(&Step::Compact(0));
    let (stream, _) = world.state.open_stream();
    world.state.watch(stream, wanted(3));
    let answers = world.state.pull(stream);
    assert_eq!((answers.len(), answers[0].canceled, answers[0].compact_revision), (1, true, 4));
}

#[test]
fn a_watch_that_was_not_told_a_deletion_yet_is_told_when_the_compaction_of_its_revision_loses_it() {
    let mut world = World::of(Version::V3_5_1);
    world.apply(&Step::Put(1, 1));
    let (stream, _) = world.state.open_stream();
    world.state.watch(stream, wanted(3));
    world.apply(&Step::Delete(1, 2));
    world.apply(&Step::Compact(0));
    let answers = world.state.pull(stream);
    assert_eq!((answers.len(), answers[0].canceled, answers[0].compact_revision), (1, true, 3));

    let (stream, _) = world.state.open_stream();
    world.state.watch(stream, wanted(4));
    world.apply(&Step::Put(1, 1));
    world.apply(&Step::Compact(0));
    assert_eq!(follow(&mut world.state, stream, Picture::new()).1, [4], "what was written is kept");
}
