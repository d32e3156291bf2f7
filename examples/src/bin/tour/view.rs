//! What is seen of a job while it runs: a progress bar on a terminal, lines anywhere else.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Instant;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::task::News;

/// In how many steps progress is told where there is no terminal.
const STEPS: u64 = 10;

/// The progress of one job.
#[derive(Debug)]
pub(crate) struct View {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    told: u64,
    alive: BTreeSet<String>,
    heard: u64,
    pace: Pace,
    latest: String,
}

impl View {
    /// Of so many files.
    pub(crate) fn new(total: usize) -> anyhow::Result<Self> {
        let total = u64::try_from(total)?;
        let bar = if std::io::stdout().is_terminal() {
            let style = "{elapsed_precise} [{bar:32}] {human_pos}/{human_len} files  {wide_msg}";
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            Some(bar.with_style(ProgressStyle::with_template(style)?.progress_chars("=> ")))
        } else {
            None
        };
        let (done, told, heard) = (0, 0, 0);
        let (alive, pace, latest) = (BTreeSet::new(), Pace::new(), String::new());
        Ok(Self { bar, total, done, told, alive, heard, pace, latest })
    }

    /// Something worth a line of its own.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{}", line.as_ref()),
        }
    }

    /// What the counter of files says.
    pub(crate) fn progress(&mut self, files: u64) {
        self.done = files;
        let step = files * STEPS / self.total.max(1);
        if self.bar.is_none() && step > self.told {
            self.told = step;
            let percent = files * 100 / self.total.max(1);
            println!("{percent:3} %  {} files  {}", HumanCount(files), self.pulse());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(files);
        }
    }

    pub(crate) fn heard(&mut self, news: &News) {
        self.heard += 1;
        let name = news.task.path.file_name().unwrap_or_default();
        self.latest = format!("{} {}", news.worker, name.to_string_lossy());
    }

    pub(crate) fn joined(&mut self, name: String) {
        self.alive.insert(name);
    }

    pub(crate) fn left(&mut self, name: &str) {
        self.alive.remove(name);
    }

    /// Time passes.
    pub(crate) fn tick(&mut self) {
        self.pace.measure(self.heard);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  {}", self.pulse(), self.latest));
            bar.tick();
        }
    }

    /// How many messages the workers have sent.
    pub(crate) fn messages(&self) -> u64 {
        self.heard
    }

    pub(crate) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn pulse(&self) -> String {
        let alive: Vec<&str> = self.alive.iter().map(String::as_str).collect();
        format!("alive: {}  {} messages/s", alive.join(" "), HumanCount(self.pace.per_second))
    }
}

/// How fast something goes now: over the last half second.
#[derive(Debug)]
struct Pace {
    since: Instant,
    from: u64,
    per_second: u64,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), from: 0, per_second: 0 }
    }

    fn measure(&mut self, count: u64) {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if passed >= 500 {
            self.per_second = count.saturating_sub(self.from) * 1000 / passed;
            (self.since, self.from) = (Instant::now(), count);
        }
    }
}
