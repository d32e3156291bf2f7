//! What was measured of one case, and whether it is good enough.

use serde_json::{Map, Value, json};

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Higher,
    Lower,
}

impl Better {
    fn word(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// What a case shall reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// So many times raw, or more.
    OfRaw(f64),
    /// So many times raw, or less.
    WithinRaw(f64),
    /// So many times the textbook's way, or more.
    OfTextbook(f64),
    /// So many times the textbook's way, or less.
    WithinTextbook(f64),
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
}

/// One case of one bench.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) bench: &'static str,
    pub(super) case: Map<String, Value>,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) ours: f64,
    /// The same done with plain calls of the etcd client, or their cost.
    pub(super) raw: Option<f64>,
    /// The way it is usually written.
    pub(super) textbook: Option<f64>,
    pub(super) targets: Vec<Target>,
}

impl Case {
    /// A rate of ours, without anything to compare with.
    pub(super) fn rate(bench: &'static str, unit: &'static str, case: &[(&str, Value)], ours: f64) -> Self {
        let case = case.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (raw, textbook, targets) = (None, None, Vec::new());
        Self { bench, case, unit, better: Better::Higher, ours, raw, textbook, targets }
    }

    /// The case in one line: `processes=8 tasks=32`.
    pub(super) fn name(&self) -> String {
        let words = self.case.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Each target in words, and whether it is met.
    pub(super) fn verdicts(&self) -> Vec<(String, bool)> {
        self.targets.iter().map(|target| self.verdict(*target)).collect()
    }

    fn verdict(&self, target: Target) -> (String, bool) {
        let compared = |with: Option<f64>| with.map(|with| self.ours / with);
        match target {
            Target::OfRaw(times) => {
                (format!(">= {times} x raw"), compared(self.raw).is_some_and(|ratio| ratio >= times))
            }
            Target::WithinRaw(times) => {
                (format!("<= {times} x raw"), compared(self.raw).is_some_and(|ratio| ratio <= times))
            }
            Target::OfTextbook(times) => (
                format!(">= {times} x textbook"),
                compared(self.textbook).is_some_and(|ratio| ratio >= times),
            ),
            Target::WithinTextbook(times) => (
                format!("<= {times} x textbook"),
                compared(self.textbook).is_some_and(|ratio| ratio <= times),
            ),
            Target::AtLeast(least) => (format!(">= {least}"), self.ours >= least),
            Target::AtMost(most) => (format!("<= {most}"), self.ours <= most),
        }
    }

    /// As written by `--json`.
    pub(super) fn json(&self) -> Value {
        json!({
            "bench": self.bench,
            "case": self.case,
            "unit": self.unit,
            "better": self.better.word(),
            "ours": rounded(self.ours),
            "raw": self.raw.map(rounded),
            "textbook": self.textbook.map(rounded),
        })
    }
}

/// Three digits after the point are more than can be measured.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(targets: Vec<Target>) -> Case {
        let counter =
            Case::rate("counter/add", "ops/s", &[("tasks", json!(64)), ("at", json!("home"))], 100.0);
        Case { raw: Some(50.0), textbook: None, targets, ..counter }
    }

    #[test]
    fn a_target_is_met_from_its_figure_on() {
        let met = |target| case(vec![target]).verdicts().iter().all(|(_, met)| *met);
        assert!(met(Target::OfRaw(2.0)) && !met(Target::OfRaw(2.1)));
        assert!(met(Target::WithinRaw(2.0)) && !met(Target::WithinRaw(1.9)));
        assert!(met(Target::AtLeast(100.0)) && !met(Target::AtLeast(101.0)));
        assert!(met(Target::AtMost(100.0)) && !met(Target::AtMost(99.0)));
        assert!(!met(Target::OfTextbook(0.1)), "what was not measured is not met");
        assert!(!met(Target::WithinTextbook(9.0)), "what was not measured is not met");
        let beside = Case { textbook: Some(200.0), ..case(vec![Target::WithinTextbook(0.5)]) };
        assert!(beside.verdicts().iter().all(|(_, met)| *met));
        let beside = Case { textbook: Some(199.0), ..beside };
        assert!(!beside.verdicts().iter().any(|(_, met)| *met));
    }

    #[test]
    fn json_has_the_agreed_fields_and_null_for_what_was_not_measured() {
        let expected = json!({
            "bench": "counter/add", "case": {"tasks": 64, "at": "home"}, "unit": "ops/s", "better": "higher",
            "ours": 100.0, "raw": 50.0, "textbook": null,
        });
        assert_eq!(case(Vec::new()).json(), expected);
    }

    #[test]
    fn a_case_is_named_by_its_fields() {
        assert_eq!(case(Vec::new()).name(), "at=home tasks=64");
    }
}
