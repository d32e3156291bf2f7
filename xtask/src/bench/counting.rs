//! `counter/add`: beside plain puts, and beside a counter as it is usually written.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use serde_json::json;

use super::case::{Case, Target};
use super::crew::Crew;
use super::link::Link;
use super::plan::Plan;
use super::sample::median;
use super::work::{Kind, done};

pub(super) const NAME: &str = "counter/add";

/// Processes and tasks in each.
const SIZES: [(usize, usize); 5] = [(1, 1), (1, 16), (1, 64), (1, 256), (8, 32)];

pub(super) async fn measure(plan: &Plan, link: &mut Link) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (processes, tasks) in SIZES {
        eprintln!("{NAME}: {processes} x {tasks} tasks");
        let rates = rates(plan, link, processes, tasks).await?;
        let rate = |kind| rates.get(&kind).map(|rates| median(rates)).context("no window");
        let case = [("tasks", json!(tasks)), ("processes", json!(processes))];
        cases.push(Case {
            raw: Some(rate(Kind::Put)?),
            textbook: Some(rate(Kind::Cas)?),
            targets: targets(processes, tasks),
            ..Case::rate(NAME, "ops/s", &case, rate(Kind::Add)?)
        });
    }
    Ok(cases)
}

fn targets(processes: usize, tasks: usize) -> Vec<Target> {
    let mut targets = Vec::new();
    if processes * tasks >= 16 {
        targets.push(Target::OfRaw(1.0));
    }
    if processes * tasks == 64 {
        targets.push(Target::OfTextbook(50.0));
    }
    targets
}

/// Operations per second of each window, the three kinds taking turns.
async fn rates(
    plan: &Plan,
    link: &mut Link,
    processes: usize,
    tasks: usize,
) -> anyhow::Result<HashMap<Kind, Vec<f64>>> {
    let name = format!("{processes}x{tasks}");
    let mut crew = Crew::hire(&name, processes, tasks).await?;
    let mut acknowledged: HashMap<Kind, u64> = HashMap::new();
    let mut rates: HashMap<Kind, Vec<f64>> = HashMap::new();
    for round in 0..=plan.windows {
        let window = if round == 0 { plan.warm_up } else { plan.window };
        for turn in 0..Kind::ALL.len() {
            // Another one begins each time.
            let kind = Kind::ALL.into_iter().cycle().nth(round + turn).context("no kind")?;
            let tally = crew.work(kind, window).await?;
            *acknowledged.entry(kind).or_default() += tally.in_all;
            if round > 0 {
                rates.entry(kind).or_default().push(per_second(tally.in_window, window.as_secs_f64()));
            }
        }
    }
    crew.dismiss().await?;
    for (kind, acknowledged) in acknowledged {
        let stored = done(kind, link, &name).await?;
        ensure!(stored == acknowledged, "{kind:?}: {acknowledged} were acknowledged, {stored} are stored");
    }
    Ok(rates)
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_set_by_the_number_of_tasks() {
        assert!(targets(1, 1).is_empty());
        assert_eq!(targets(1, 16), [Target::OfRaw(1.0)]);
        assert_eq!(targets(1, 64), [Target::OfRaw(1.0), Target::OfTextbook(50.0)]);
        assert_eq!(targets(8, 32), [Target::OfRaw(1.0)]);
    }
}
