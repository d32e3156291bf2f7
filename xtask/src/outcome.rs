//! How a command ends.

use std::process::ExitCode;

/// What a command returns: the code to exit with, or why it could not do its work.
pub(crate) type Outcome = anyhow::Result<u8>;

/// Turns an outcome into the process's exit code; a failure is told on stderr, causes included.
pub(crate) fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
