//! Reads.

use std::cmp::Ordering;
use std::iter::Peekable;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse};

use super::history::is_tombstone;
use super::index::Version;
use super::refusal::Refusal;
use super::span::Span;
use super::state::State;

/// Numbers of `SortOrder` on the wire.
const DESCEND: i32 = 2;
/// Numbers of `SortTarget` on the wire.
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;

impl State {
    /// Answers a read; `within` is the revision that a surrounding transaction is writing, which it sees.
    pub(super) fn read(
        &self,
        request: &PbRangeRequest,
        within: Option<i64>,
    ) -> Result<PbRangeResponse, Refusal> {
        let now = within.unwrap_or(self.revision);
        self.check_readable(request.revision, now)?;
        let span = Span::new(request.key.clone(), request.range_end.clone());
        let past = (request.revision > 0 && request.revision < now).then_some(request.revision);
        let filtered = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ]
        .iter()
        .any(|bound| *bound != 0);
        let sorted = request.sort_order != 0 || request.sort_target != BY_KEY;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        // One more than asked for tells whether there are more. Without an order, etcd sorts by the target what it has cut
        // off before; with one, it cuts off last.
        let whole = limit == 0 || filtered || request.sort_order != 0;
        let needed = if whole { usize::MAX } else { limit.saturating_add(1) };
        let needed = if request.count_only { 0 } else { needed };
        let (mut found, count) = match past {
            None => (self.index.range(&span).take(needed).cloned().collect(), self.index.count(&span)),
            Some(revision) => self.range_at(&span, revision, needed),
        };
        if filtered {
            found.retain(|version| passes(request, version));
        }
        if sorted {
            // Equal ones stay in the order of their keys, whatever the direction.
            let target = request.sort_target;
            found.sort_by(|left, right| match request.sort_order {
                DESCEND => order(target, right, left),
                _ => order(target, left, right),
            });
        }
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let strip = |version: Version| -> PbKeyValue {
            if request.keys_only { without_value(&version) } else { (*version).clone() }
        };
        Ok(PbRangeResponse {
            header: Some(Self::bare_header(now)),
            kvs: found.into_iter().map(strip).collect(),
            more,
            count: i64::try_from(count).unwrap_or(i64::MAX),
        })
    }

    /// Whether a revision that a read names is neither gone nor yet to come.
    pub(super) fn check_readable(&self, revision: i64, now: i64) -> Result<(), Refusal> {
        if revision > now {
            return Err(Refusal::FUTURE_REVISION);
        }
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::COMPACTED);
        }
        Ok(())
    }

    /// The keys of a span as they were, at most `needed` of them, and how many there were.
    pub(super) fn range_at(&self, span: &Span, revision: i64, needed: usize) -> (Vec<Version>, usize) {
        let mut found = Vec::new();
        let mut count = 0;
        let live = self.index.range(span).filter(|version| version.mod_revision <= revision);
        for version in merge(live.peekable(), self.history.range_at(span, revision).peekable()) {
            count += 1;
            if found.len() < needed {
                found.push(version.clone());
            }
        }
        (found, count)
    }
}

/// Merges present versions and those of the past by key. A key has at most one of both that counts: a present version
/// this old has nothing after it in the past.
fn merge<'a>(
    mut live: Peekable<impl Iterator<Item = &'a Version>>,
    mut past: Peekable<impl Iterator<Item = (&'a [u8], Option<&'a Version>)>>,
) -> impl Iterator<Item = &'a Version> {
    std::iter::from_fn(move || {
        loop {
            let order = match (live.peek(), past.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(version), Some((key, _))) => version.key.as_slice().cmp(key),
            };
            match order {
                Ordering::Less => return live.next(),
                Ordering::Equal => {
                    past.next();
                    return live.next();
                }
                Ordering::Greater => {
                    if let Some((_, Some(version))) = past.next()
                        && !is_tombstone(version)
                    {
                        return Some(version);
                    }
                }
            }
        }
    })
}

fn passes(request: &PbRangeRequest, version: &PbKeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(version.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(version.create_revision, request.min_create_revision, request.max_create_revision)
}

fn order(target: i32, left: &PbKeyValue, right: &PbKeyValue) -> Ordering {
    match target {
        BY_KEY => left.key.cmp(&right.key),
        BY_VERSION => left.version.cmp(&right.version),
        BY_CREATE => left.create_revision.cmp(&right.create_revision),
        BY_MOD => left.mod_revision.cmp(&right.mod_revision),
        _ => left.value.cmp(&right.value),
    }
}

fn without_value(version: &PbKeyValue) -> PbKeyValue {
    PbKeyValue {
        key: version.key.clone(),
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version,
        value: Vec::new(),
        lease: version.lease,
    }
}
