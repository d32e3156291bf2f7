//! What the dead left undone.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::figures::{Figures, NAMES};
use crate::ledger::Record;

/// What has to be added to the counters so that they say what was recorded. `records` are in the order in which they
/// were written.
///
/// A worker adds each record to the counters before it writes the next: a dead one has added all of its records, or all
/// but the last, to each counter. So a counter is either right or short by last records of dead workers; anything else
/// means that something was lost or counted twice, and is an error.
pub(crate) fn owed(records: &[Record], dead: &[String], counted: Figures) -> anyhow::Result<Figures> {
    let mut recorded = Figures::default();
    records.iter().for_each(|record| recorded += record.figures);
    let last = |name: &String| records.iter().rfind(|record| record.worker == *name);
    let last: Vec<Figures> = dead.iter().filter_map(last).map(|record| record.figures).collect();
    let mut owed = Figures::default();
    for (at, name) in NAMES.iter().enumerate() {
        let of = |figures: &Figures| figures.0.get(at).copied().unwrap_or_default();
        let (recorded, counted) = (of(&recorded), of(&counted));
        let mut possible = BTreeSet::from([0]);
        for one in &last {
            let with = possible.iter().map(|sum| sum + of(one)).collect::<Vec<u64>>();
            possible.extend(with);
        }
        match recorded.checked_sub(counted) {
            Some(short) if possible.contains(&short) => {
                owed.0.iter_mut().skip(at).take(1).for_each(|figure| *figure = short);
            }
            _ => bail!("the counter of {name} says {counted}, but {recorded} were recorded"),
        }
    }
    Ok(owed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Longest;

    fn record(worker: &str, figures: [u64; 4]) -> Record {
        Record { worker: worker.to_owned(), figures: Figures(figures), longest: Longest::default() }
    }

    fn records() -> Vec<Record> {
        vec![
            record("w1", [16, 100, 1000, 9000]),
            record("w2", [16, 200, 2000, 8000]),
            record("w1", [16, 300, 3000, 7000]),
            record("w2", [8, 50, 500, 600]),
        ]
    }

    fn of(dead: &[&str], counted: [u64; 4]) -> Option<[u64; 4]> {
        let dead: Vec<String> = dead.iter().map(|name| (*name).to_owned()).collect();
        owed(&records(), &dead, Figures(counted)).ok().map(|owed| owed.0)
    }

    #[test]
    fn nothing_is_owed_when_everyone_lived() {
        assert_eq!(of(&[], [56, 650, 6500, 24_600]), Some([0; 4]));
        assert_eq!(of(&[], [48, 600, 6000, 24_000]), None, "lost");
        assert_eq!(of(&[], [57, 650, 6500, 24_600]), None, "counted twice");
    }

    #[test]
    fn of_a_dead_worker_the_last_record_may_be_owed_counter_by_counter() {
        assert_eq!(of(&["w2"], [56, 650, 6500, 24_600]), Some([0; 4]));
        assert_eq!(of(&["w2"], [48, 600, 6000, 24_000]), Some([8, 50, 500, 600]));
        assert_eq!(of(&["w2"], [48, 650, 6000, 24_600]), Some([8, 0, 500, 0]));
        assert_eq!(of(&["w2"], [40, 650, 6500, 24_600]), None, "an earlier record of the dead one");
        assert_eq!(of(&["w2"], [64, 650, 6500, 24_600]), None, "added twice");
        assert_eq!(of(&["w1"], [48, 650, 6500, 24_600]), None, "short by what the living recorded");
    }

    #[test]
    fn several_dead_owe_any_of_their_last_records() {
        assert_eq!(of(&["w1", "w2"], [32, 300, 3500, 17_600]), Some([24, 350, 3000, 7000]));
        assert_eq!(of(&["w1", "w2"], [56, 650, 6500, 16_900]), None);
    }

    #[test]
    fn a_worker_that_died_before_its_first_record_owes_nothing() {
        assert_eq!(of(&["w9"], [56, 650, 6500, 24_600]), Some([0; 4]));
        assert_eq!(of(&["w9"], [48, 650, 6500, 24_600]), None);
    }
}
