//! Project commands: `cargo xtask <command>`. One file per command; the text a user sees is in `flags.rs`.

mod bench;
mod code;
mod demo;
mod etcd;
mod flags;
mod ignored;
mod outcome;
mod program;
mod runner;
mod test;
mod tidy;
mod undertaker;
mod workspace;

use std::process::ExitCode;

use flags::Command;

fn main() -> ExitCode {
    let done = match flags::parse(lexopt::Parser::from_env()) {
        Ok(Command::Help(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Bench(flags)) => bench::run(&flags),
        #[cfg(feature = "bench")]
        Ok(Command::Measure(flags)) => bench::measure(&flags),
        #[cfg(feature = "bench")]
        Ok(Command::Hand) => bench::hand(),
        Ok(Command::Test(flags)) => test::run(&flags),
        Ok(Command::Demo(flags)) => demo::run(&flags),
        Ok(Command::Tidy(flags)) => tidy::run(&flags),
        Err(error) => Err(error.context("see `cargo xtask --help`")),
    };
    outcome::report(done)
}
