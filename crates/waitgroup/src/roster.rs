//! Who has entered a group and is not done: a pure reading of its keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sereno_core::Key;

use crate::keys::{Keys, Place};

/// A worker that died before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Died {
    /// Its id, for [`WaitGroup::dismiss`](crate::WaitGroup::dismiss).
    pub id: String,
    /// What it called itself at [`WaitGroup::enter`](crate::WaitGroup::enter).
    pub label: String,
}

impl Died {
    pub(crate) fn list(died: &[Self]) -> String {
        const SHOWN: usize = 8;
        let shown: Vec<&str> = died.iter().take(SHOWN).map(|died| died.label.as_str()).collect();
        let mut list = shown.join(", ");
        if let Some(more) = died.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            list.push_str(&format!(" and {more} more"));
        }
        list
    }
}

/// A worker that has entered a group and is not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Member {
    /// Its id: `<session epoch>-<number>`.
    pub id: String,
    /// What it called itself at [`WaitGroup::enter`](crate::WaitGroup::enter).
    pub label: String,
    /// Whether its session lives; if not, it died.
    pub alive: bool,
}

/// What is stored for a worker. Fields that a later version adds are ignored.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) label: String,
    pub(crate) epoch: String,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, sereno_core::Error> {
        serde_json::to_vec(self)
            .map_err(|error| sereno_core::Error::InvalidOption { option: "label", reason: error.to_string() })
    }
}

/// Everyone who has entered a group and is not done, by id.
#[derive(Debug, Default)]
pub(crate) struct Roster(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    label: String,
    alive: bool,
}

impl Roster {
    /// Reads the recipe's own keys. Keys that are none of ours are left alone and not counted.
    pub(crate) fn read<'a>(keys: &Keys, entries: impl IntoIterator<Item = (&'a Key, &'a [u8])>) -> Self {
        let mut roster = Self::default();
        let mut alive = Vec::new();
        for (key, value) in entries {
            match keys.place(key) {
                Some(Place::Worker(id)) => {
                    // Whoever is inside counts, whatever is written about it.
                    let label = serde_json::from_slice(value).map_or_else(
                        |_| String::from_utf8_lossy(value).into_owned(),
                        |record: Record| record.label,
                    );
                    roster.0.insert(id, Entry { label, alive: false });
                }
                Some(Place::Alive(id)) => alive.push(id),
                None => {}
            }
        }
        for id in alive {
            if let Some(entry) = roster.0.get_mut(&id) {
                entry.alive = true;
            }
        }
        roster
    }

    #[cfg(test)]
    pub(crate) fn of(workers: &[(&str, bool)]) -> Self {
        let entry = |(id, alive): &(&str, bool)| ((*id).into(), Entry { label: (*id).into(), alive: *alive });
        Self(workers.iter().map(entry).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None`: not there; otherwise whether it is alive.
    pub(crate) fn alive(&self, id: &str) -> Option<bool> {
        self.0.get(id).map(|entry| entry.alive)
    }

    pub(crate) fn died(&self) -> Vec<Died> {
        let dead = self.0.iter().filter(|(_, entry)| !entry.alive);
        dead.map(|(id, entry)| Died { id: id.clone(), label: entry.label.clone() }).collect()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn members(self) -> Vec<Member> {
        let member = |(id, entry): (String, Entry)| Member { id, label: entry.label, alive: entry.alive };
        self.0.into_iter().map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sereno_core::Namespace;

    fn record(label: &str) -> Vec<u8> {
        Record { label: label.into(), epoch: "e".into() }.to_bytes().unwrap()
    }

    fn read(keys: &Keys, stored: &[(Key, Vec<u8>)]) -> Roster {
        Roster::read(keys, stored.iter().map(|(key, value)| (key, value.as_slice())))
    }

    #[test]
    fn a_record_without_its_sign_of_life_is_a_death() {
        let keys = Keys::new(&Namespace::default(), b"g").unwrap();
        let roster = read(
            &keys,
            &[
                (keys.alive("e-1").unwrap(), Vec::new()),
                (keys.worker("e-1").unwrap(), record("one")),
                (keys.worker("e-2").unwrap(), record("two")),
            ],
        );
        assert_eq!(roster.alive("e-1"), Some(true));
        assert_eq!(roster.alive("e-2"), Some(false));
        assert_eq!(roster.alive("e-3"), None);
        assert_eq!(roster.died(), [Died { id: "e-2".into(), label: "two".into() }]);
    }

    #[test]
    fn what_is_not_ours_counts_for_nothing() {
        let keys = Keys::new(&Namespace::default(), b"g").unwrap();
        let roster = read(
            &keys,
            &[
                (keys.worker("junk").unwrap(), record("junk")),
                (keys.worker("e-").unwrap(), record("junk")),
                (keys.root().key("e-1").unwrap(), record("stray")),
                (keys.alive("e-1").unwrap(), Vec::new()),
                (keys.withdrawn("e-1").unwrap(), Vec::new()),
            ],
        );
        assert!(roster.is_empty());
    }

    #[test]
    fn who_is_inside_counts_whatever_is_written_about_it() {
        let keys = Keys::new(&Namespace::default(), b"g").unwrap();
        let roster = read(
            &keys,
            &[
                (keys.worker("e-1").unwrap(), b"\xff not json".to_vec()),
                (keys.worker("e-2").unwrap(), br#"{"label":"b","epoch":"e","since":7}"#.to_vec()),
            ],
        );
        let labels: Vec<_> = roster.members().into_iter().map(|member| member.label).collect();
        assert_eq!(labels, ["\u{fffd} not json", "b"]);
    }
}
