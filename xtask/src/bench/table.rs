//! The table that is printed at the end.

use super::case::Case;

const TITLES: [&str; 9] =
    ["bench", "case", "unit", "ours", "raw", "ours/raw", "textbook", "ours/textbook", "targets"];
/// Columns of words; the others hold numbers and are aligned to the right.
const WORDS: [usize; 4] = [0, 1, 2, 8];

/// What the columns mean.
const LEGEND: &str = "\
ours      medians of windows that took turns with those of the other columns; what was counted is checked in etcd at the
          end, and that each message came once and in order by its subscriber
raw       counter: as many tasks that put with etcd-client; publish: one task that puts the payload; wake,
          visible, many-hosts: one put; pipes: what the case names
textbook  counter: get, then put if nobody else has, else wait a moment (1 to 16 ms, at random) and begin again;
          seq: a lease for each member, and the whole group read again at each event, as etcdseq (Go) does;
          sp: what the case names, in the same process (zeromq's crate, no wire in common) or in two of its own;
          fast-and-slow: a half for each
memory    how much the resident set of a process grows that does nothing else: many-hosts: one that follows them, million-keys:
          the server, stalled: destination and members
wake      less than nothing: the waiter knew before the answer to done() had come";

/// All cases, the legend, and a line that counts the targets met.
pub(super) fn table(cases: &[Case]) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(cases.iter().map(row));
    let widths: Vec<usize> = (0..TITLES.len())
        .map(|column| rows.iter().map(|row| width(row, column)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if WORDS.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    let verdicts: Vec<bool> = cases.iter().flat_map(Case::verdicts).map(|(_, met)| met).collect();
    let met = verdicts.iter().filter(|met| **met).count();
    text + &format!("\n{LEGEND}\n{met} of {} targets met", verdicts.len())
}

fn width(row: &[String; 9], column: usize) -> usize {
    row.get(column).map_or(0, |cell| cell.chars().count())
}

fn row(case: &Case) -> [String; 9] {
    let ratio = |with: Option<f64>| with.map_or_else(|| "-".to_owned(), |with| times(case.ours / with));
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let verdicts = case.verdicts();
    let targets =
        verdicts.iter().map(|(target, met)| format!("{target}: {}", if *met { "pass" } else { "MISS" }));
    [
        case.bench.to_owned(),
        case.name(),
        case.unit.to_owned(),
        number(case.ours),
        value(case.raw),
        ratio(case.raw),
        value(case.textbook),
        ratio(case.textbook),
        targets.collect::<Vec<_>>().join(", "),
    ]
}

fn times(ratio: f64) -> String {
    if ratio.abs() < 100.0 { format!("{ratio:.2}") } else { number(ratio) }
}

/// Thousands set apart; digits after the point only where they say something.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::case::Target;
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let expected = [(1.234, "1.23"), (123.4, "123"), (1234.0, "1,234"), (1_234_567.0, "1,234,567")];
        for (value, text) in expected {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(-123.0), "-123");
        assert_eq!(number(-0.25), "-0.25");
    }

    #[test]
    fn a_row_shows_ratios_and_what_was_missed() {
        let case = Case {
            raw: Some(500.0),
            targets: vec![Target::OfRaw(1.0), Target::OfTextbook(50.0)],
            ..Case::rate("counter/add", "ops/s", &[("tasks", json!(16))], 1000.0)
        };
        let text = table(&[case]);
        assert!(text.contains(LEGEND));
        let line = "counter/add  tasks=16  ops/s  1,000  500      2.00         -              -  \
                    >= 1 x raw: pass, >= 50 x textbook: MISS";
        assert_eq!(text.lines().nth(1), Some(line));
        assert_eq!(text.lines().last(), Some("1 of 2 targets met"));
    }
}
