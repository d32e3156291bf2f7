//! The run: every bench in turn, then the table.

use std::fs;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::case::Case;
use super::link::Link;
use super::plan::Plan;
use super::table::table;
use super::{counting, embedded, lookup, membership, messages, pipelines, sockets, waking};
use crate::flags::Bench;
use crate::outcome::Outcome;

/// Measures against the etcd that the environment names.
pub(crate) fn run(flags: &Bench) -> Outcome {
    let plan = if flags.quick { Plan::quick() } else { Plan::thorough() };
    let start = Instant::now();
    let cases = Runtime::new()?.block_on(all(&plan, flags.only.as_deref().unwrap_or_default()))?;
    println!("\n{}\nmeasured in {:.0} s", table(&cases), start.elapsed().as_secs_f64());
    if let Some(path) = &flags.json {
        let list: Vec<Value> = cases.iter().map(Case::json).collect();
        let text = serde_json::to_string_pretty(&list)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(0)
}

async fn all(plan: &Plan, only: &str) -> anyhow::Result<Vec<Case>> {
    let mut link = Link::open().await?;
    let cases = benches(plan, &mut link, only).await;
    let closed = link.close().await;
    // Somebody else's etcd is left as it was, after a failure too.
    link.sweep().await?;
    let cases = cases?;
    closed?;
    Ok(cases)
}

async fn benches(plan: &Plan, link: &mut Link, only: &str) -> anyhow::Result<Vec<Case>> {
    let names = [
        counting::NAME,
        messages::SINGLE,
        messages::PACKED,
        waking::NAME,
        membership::NAME,
        lookup::VISIBLE,
        lookup::LOOKUP,
        lookup::MANY,
        sockets::NAME,
        sockets::SPLIT,
        pipelines::NAME,
        pipelines::STALLED,
        embedded::START,
        embedded::PUTS,
        embedded::MEMORY,
    ];
    let wanted: Vec<&str> = names.into_iter().filter(|name| name.contains(only)).collect();
    ensure!(!wanted.is_empty(), "there is no bench `{only}`; there are {}", names.join(", "));
    let mut cases = Vec::new();
    for name in wanted {
        cases.extend(match name {
            counting::NAME => counting::measure(plan, link).await?,
            messages::SINGLE => messages::single(plan, link).await?,
            messages::PACKED => messages::packed(plan, link).await?,
            waking::NAME => waking::measure(plan, link).await?,
            membership::NAME => membership::measure(plan).await?,
            lookup::VISIBLE => lookup::visible(plan, link).await?,
            lookup::LOOKUP => lookup::lookup(plan, link).await?,
            lookup::MANY => lookup::many(link).await?,
            sockets::NAME => sockets::measure(plan).await?,
            sockets::SPLIT => sockets::split().await?,
            pipelines::NAME => pipelines::measure(plan, link).await?,
            pipelines::STALLED => pipelines::stalled().await?,
            embedded::START => embedded::start().await?,
            embedded::PUTS => embedded::puts(plan).await?,
            _ => embedded::million().await?,
        });
    }
    Ok(cases)
}
