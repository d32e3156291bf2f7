//! What is seen of a job while it runs: a progress bar on a terminal, lines anywhere else.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Instant;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::task::News;

/// In how many steps progress is told where there is no terminal.
const STEPS: u64 = 10;
/// Columns that a line of output may take.
const WIDTH: usize = 80;
/// Workers that are named in a line of progress; more are counted.
const NAMED: usize = 8;

/// Breaks a text at spaces into lines of at most 80 columns; later lines are indented.
pub(crate) fn wrapped(text: &str) -> String {
    let indent = text.len() - text.trim_start().len();
    let (mut lines, mut width) = (" ".repeat(indent), indent);
    for (index, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && width + 1 + length > WIDTH {
            lines.push_str("\n  ");
            width = 2;
        } else if index > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

/// The progress of one job.
#[derive(Debug)]
pub(crate) struct View {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    told: u64,
    alive: BTreeSet<String>,
    dead: BTreeSet<String>,
    heard: u64,
    pace: Pace,
    latest: String,
}

impl View {
    /// Of so many files.
    pub(crate) fn new(total: usize) -> anyhow::Result<Self> {
        let total = u64::try_from(total)?;
        let bar = if std::io::stdout().is_terminal() {
            let style = "{elapsed_precise} [{bar:20}] {human_pos}/{human_len} files  {wide_msg}";
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            Some(bar.with_style(ProgressStyle::with_template(style)?.progress_chars("=> ")))
        } else {
            None
        };
        let (done, told, heard) = (0, 0, 0);
        let (alive, dead) = (BTreeSet::new(), BTreeSet::new());
        let (pace, latest) = (Pace::new(), String::new());
        Ok(Self { bar, total, done, told, alive, dead, heard, pace, latest })
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
        if !self.dead.contains(&name) {
            self.alive.insert(name);
        }
    }

    /// The leader knows of a death at once; the group's watch shows the worker until its lease expires.
    pub(crate) fn died(&mut self, name: &str) {
        self.alive.remove(name);
        self.dead.insert(name.to_owned());
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
        let mut alive = self.alive.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        if self.alive.len() > NAMED {
            alive = format!("{} workers", self.alive.len());
        }
        format!("alive: {alive}  {} messages/s", HumanCount(self.pace.per_second))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrapped("two words"), "two words");
        let word = "w".repeat(30);
        let text = wrapped(&[word.as_str(); 5].join(" "));
        assert_eq!(text, format!("{word} {word}\n  {word} {word}\n  {word}"));
    }

    #[test]
    fn a_dead_worker_is_not_shown_as_alive_though_its_lease_still_runs() {
        let mut view = View::new(1).unwrap();
        view.joined("w1".to_owned());
        view.joined("w2".to_owned());
        view.died("w2");
        // The group's first snapshot may come after the death.
        view.joined("w2".to_owned());
        assert!(view.pulse().starts_with("alive: w1  "), "{}", view.pulse());
    }
}
