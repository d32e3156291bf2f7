//! Runs a command to its end, and outlives it whatever signal comes, so that what was started gets cleaned up.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio, exit};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The command that runs now, if one does.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);
static WATCH: OnceLock<()> = OnceLock::new();

/// Runs `command` and returns the code to exit with: its own, or 128 + n when signal n ended it.
///
/// SIGTERM and SIGHUP are passed on to it. So is SIGINT, unless a terminal has sent it, which then has reached the
/// command too. With no command running any of them ends this process.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<u8> {
    finish(command).map(|(code, _)| code)
}

/// As [`run`], and returns what the command wrote to its standard output, which nobody sees meanwhile.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<(u8, String)> {
    let (code, written) = finish(command.stdout(Stdio::piped()))?;
    Ok((code, String::from_utf8_lossy(&written).into_owned()))
}

fn finish(command: &mut Command) -> anyhow::Result<(u8, Vec<u8>)> {
    watch_signals()?;
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    set_running(Pid::from_raw(child.id().try_into()?));
    let output = child.wait_with_output();
    set_running(None);
    let output = output.with_context(|| format!("cannot wait for {name}"))?;
    let code = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    Ok((u8::try_from(code).unwrap_or(1), output.stdout))
}

fn set_running(pid: Option<Pid>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = pid;
}

fn watch_signals() -> anyhow::Result<()> {
    if WATCH.set(()).is_err() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot watch signals")?;
    thread::spawn(move || {
        for number in signals.forever() {
            let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            let signal = match number {
                SIGHUP => Signal::HUP,
                SIGINT => Signal::INT,
                _ => Signal::TERM,
            };
            match *running {
                // The terminal has told the whole group.
                Some(_) if number == SIGINT && std::io::stderr().is_terminal() => {}
                // It may have ended this very moment: then there is nobody to tell.
                Some(pid) => drop(kill_process(pid, signal)),
                // The undertakers see to what has been started.
                None => exit(128 + number),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_commands_own() {
        for code in [0, 3, 101] {
            assert_eq!(run(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap(), code);
        }
    }

    #[test]
    fn what_a_command_writes_can_be_read() {
        let (code, written) = read(Command::new("sh").args(["-c", "echo a; echo b; exit 4"])).unwrap();
        assert_eq!((code, written.as_str()), (4, "a\nb\n"));
    }

    #[test]
    fn a_command_ended_by_a_signal_gives_128_and_its_number() {
        assert_eq!(run(Command::new("sh").args(["-c", "kill -KILL $$"])).unwrap(), 137);
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program"));
    }
}
