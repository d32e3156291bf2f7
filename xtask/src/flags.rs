//! What can be typed after `cargo xtask`, and the help that says so.
//!
//! A new command is a variant of [`Command`], an arm of [`parse`], a part of [`HELP`] and a file named for it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use lexopt::{Arg, Parser, ValueExt};

use crate::etcd::Choice;

const HELP: &str = "\
Usage: cargo xtask <command> [flags]

Commands:
  test [-p <crate>]... [--etcd <where>] [-- <filter and test flags>]
        Starts an etcd and runs every test against it, those that plain `cargo test` ignores included,
        through cargo-nextest when it is installed. With a filter, doctests are left out. On the embedded
        server, tests that need a real etcd are skipped and counted.
  test --seed <n> [-p <crate>]... [-- <filter and test flags>]
        Plays one seed of the seeded tests again and tells what happened. Needs no etcd.
  demo [--workers <N>] [--kill] [--input <folder>] [--etcd <where>]
        Starts an etcd and shows N processes (4 unless given) sharing the counting of a folder of text files; with
        --kill one of them is killed halfway. Without --input, sources that cargo has unpacked are counted.
  bench [--quick] [--json <file>] [--etcd <where>] [<part of a name>]
        Measures the recipes beside plain etcd calls and prints a table; with --json, writes a list as well.
        Quick ends in a few minutes after the build. Missed targets are shown, and no failure.
        With a part of a name, such as `counter` or `packed`, only the benches that have it.
  tidy [<folder>]
        Checks the shape of the workspace: who may depend on whom, what every recipe has, what no file may say.

Where etcd comes from:
  --etcd docker    a container, by testcontainers; the image is $SERENO_ETCD_IMAGE, else one that the
                   daemon holds already, else the public one is pulled
  --etcd binary    a child process; the program is $SERENO_ETCD_BIN, else `etcd` on PATH
  --etcd embed     this workspace's own server, sereno-embed, which is built and needs nothing on the machine;
                   it is one member, in memory, and no real etcd
  --etcd <URLs>    one that runs already: http://host:port, several separated by commas
  Without the flag: $ETCD_ENDPOINTS when set, else docker, binary, embed, whichever works first.";

/// What `cargo xtask bench` starts in a build with the feature `bench`.
pub(crate) const MEASURE: &str = "bench-measure";
/// What that starts in its child processes.
#[cfg(feature = "bench")]
pub(crate) const HAND: &str = "bench-hand";

/// A command with its flags.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print this and be done.
    Help(&'static str),
    /// `cargo xtask bench`
    Bench(Bench),
    /// The part of it that measures.
    #[cfg(feature = "bench")]
    Measure(Bench),
    /// A child process of that.
    #[cfg(feature = "bench")]
    Hand,
    /// `cargo xtask test`
    Test(Test),
    /// `cargo xtask demo`
    Demo(Demo),
    /// `cargo xtask tidy`
    Tidy(Tidy),
}

/// Flags of `cargo xtask bench`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bench {
    /// Where etcd comes from.
    pub(crate) etcd: Choice,
    /// Short windows, and few.
    pub(crate) quick: bool,
    /// Where the figures are written as JSON.
    pub(crate) json: Option<PathBuf>,
    /// Measure only what has this in its name.
    pub(crate) only: Option<String>,
}

/// Flags of `cargo xtask test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Test {
    /// Where etcd comes from.
    pub(crate) etcd: Choice,
    /// Packages to test; empty means all.
    pub(crate) packages: Vec<String>,
    /// Run nothing but the seeded tests, with this seed alone.
    pub(crate) seed: Option<u64>,
    /// What follows `--`: handed to the test runner as it is.
    pub(crate) rest: Vec<OsString>,
}

/// Flags of `cargo xtask demo`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Demo {
    /// Where etcd comes from.
    pub(crate) etcd: Choice,
    /// How many worker processes, for the program to make sense of.
    pub(crate) workers: Option<OsString>,
    /// Whether to kill one of them halfway.
    pub(crate) kill: bool,
    /// What to count.
    pub(crate) input: Option<PathBuf>,
}

/// Flags of `cargo xtask tidy`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tidy {
    /// The workspace to check; this one when none is named.
    pub(crate) folder: Option<PathBuf>,
}

/// Reads a command line.
pub(crate) fn parse(mut parser: Parser) -> anyhow::Result<Command> {
    let command = match parser.next()? {
        None => bail!("a command is missing"),
        Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(HELP)),
        Some(Arg::Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "help" => Ok(Command::Help(HELP)),
        "bench" => bench(parser),
        #[cfg(feature = "bench")]
        MEASURE => bench(parser).map(|command| match command {
            Command::Bench(flags) => Command::Measure(flags),
            other => other,
        }),
        #[cfg(feature = "bench")]
        HAND => Ok(Command::Hand),
        "test" => test(parser),
        "demo" => demo(parser),
        "tidy" => tidy(parser),
        other => bail!("there is no command `{other}`"),
    }
}

fn bench(mut parser: Parser) -> anyhow::Result<Command> {
    let mut flags = Bench::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(HELP)),
            Arg::Long("quick") => flags.quick = true,
            Arg::Long("json") => flags.json = Some(parser.value()?.into()),
            Arg::Long("etcd") => flags.etcd = choice(&mut parser)?,
            Arg::Value(only) if flags.only.is_none() => flags.only = Some(only.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Bench(flags))
}

fn test(mut parser: Parser) -> anyhow::Result<Command> {
    let mut flags = Test::default();
    loop {
        // What follows `--` is the runner's, whatever it looks like.
        if let Some(rest) = parser.try_raw_args()
            && rest.peek().is_some_and(|next| next == "--")
        {
            flags.rest = rest.skip(1).collect();
            return Ok(Command::Test(flags));
        }
        match parser.next()? {
            None => return Ok(Command::Test(flags)),
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(HELP)),
            Some(Arg::Short('p') | Arg::Long("package")) => flags.packages.push(parser.value()?.string()?),
            Some(Arg::Long("etcd")) => flags.etcd = choice(&mut parser)?,
            Some(Arg::Long("seed")) => flags.seed = Some(parser.value()?.parse().context("--seed")?),
            Some(other) => return Err(other.unexpected().into()),
        }
    }
}

fn demo(mut parser: Parser) -> anyhow::Result<Command> {
    let mut flags = Demo::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(HELP)),
            Arg::Long("etcd") => flags.etcd = choice(&mut parser)?,
            Arg::Long("workers") => flags.workers = Some(parser.value()?),
            Arg::Long("kill") => flags.kill = true,
            Arg::Long("input") => flags.input = Some(parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Demo(flags))
}

fn tidy(mut parser: Parser) -> anyhow::Result<Command> {
    let mut flags = Tidy::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(HELP)),
            Arg::Value(folder) if flags.folder.is_none() => flags.folder = Some(folder.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Tidy(flags))
}

fn choice(parser: &mut Parser) -> anyhow::Result<Choice> {
    parser.value()?.string()?.parse::<Choice>().context("--etcd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Command> {
        parse(Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn flags_stand_in_any_order_and_packages_add_up() {
        let Ok(Command::Test(flags)) = read("test -p sereno-core --etcd=docker --package xtask") else {
            panic!("a test command");
        };
        assert_eq!(flags.packages, ["sereno-core", "xtask"]);
        assert_eq!(flags.etcd, Choice::Docker);
        assert!(flags.rest.is_empty());
    }

    #[test]
    fn what_follows_the_dashes_is_handed_on_untouched() {
        let Ok(Command::Test(flags)) = read("test -p sereno-core -- --exact some_test -p") else {
            panic!("a test command");
        };
        assert_eq!(flags.rest, ["--exact", "some_test", "-p"]);
    }

    #[test]
    fn a_seed_is_a_number() {
        let Ok(Command::Test(flags)) = read("test --seed 42 -p sereno-counter -- --exact some_test") else {
            panic!("a test command");
        };
        assert_eq!((flags.seed, flags.packages.len(), flags.rest.len()), (Some(42), 1, 2));
        assert!(format!("{:#}", read("test --seed many").unwrap_err()).contains("--seed"));
    }

    #[test]
    fn a_demo_has_workers_a_folder_and_perhaps_a_victim() {
        assert_eq!(read("demo").unwrap(), Command::Demo(Demo::default()));
        let flags = Demo {
            etcd: Choice::Binary,
            workers: Some("8".into()),
            kill: true,
            input: Some("/texts".into()),
        };
        let line = "demo --workers=8 --kill --input /texts --etcd binary";
        assert_eq!(read(line).unwrap(), Command::Demo(flags));
        assert!(read("demo fast").is_err());
    }

    #[test]
    fn a_bench_may_be_quick_and_write_a_file() {
        let Ok(Command::Bench(flags)) = read("bench --json out.json counter --quick") else {
            panic!("a bench command")
        };
        assert!(flags.quick);
        assert_eq!(flags.json, Some("out.json".into()));
        assert_eq!(flags.only.as_deref(), Some("counter"));
        assert_eq!(flags.etcd, Choice::Auto);
    }

    #[test]
    fn a_folder_to_tidy_may_be_named() {
        assert_eq!(read("tidy").unwrap(), Command::Tidy(Tidy { folder: None }));
        assert_eq!(read("tidy /tmp").unwrap(), Command::Tidy(Tidy { folder: Some("/tmp".into()) }));
        assert!(read("tidy /tmp /etc").is_err());
    }

    #[test]
    fn help_is_found_before_and_after_the_command() {
        for line in ["--help", "-h", "help", "test --help"] {
            assert_eq!(read(line).unwrap(), Command::Help(HELP), "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error_that_names_it() {
        for (line, word) in
            [("", "missing"), ("dance", "dance"), ("test --fast", "fast"), ("test core", "core")]
        {
            assert!(format!("{:#}", read(line).unwrap_err()).contains(word), "{line}");
        }
        let error = read("test --etcd somewhere").unwrap_err();
        assert!(format!("{error:#}").contains("somewhere"));
    }
}
