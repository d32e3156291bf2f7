//! Cleaning up after a test process that cannot do it: killed, aborted, or ending with a shared member in a static.
//!
//! A shell waits for the end of its standard input, which is the end of this process however it came about, and then
//! removes what it was told of. Everything it is told of is either unique to us (a container id, a temporary folder) or
//! checked by a unique mark in its command line (a process), so a late clean-up can never hit a stranger.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Prefix of every temporary folder, and the only thing the reaper agrees to delete.
pub(crate) const FOLDER_PREFIX: &str = "sereno-testkit-";

const SCRIPT: &str = r#"
trap '' INT TERM HUP
list=$(cat)
printf '%s\n' "$list" | while read -r kind what mark; do
  case $kind in
    process)
      { tr '\0' ' ' <"/proc/$what/cmdline" || ps -p "$what" -o args=; } 2>/dev/null |
        grep -qF -e "$mark" && kill -9 "$what" ;;
    container)
      docker rm -fv "$what" || curl -s --unix-socket /var/run/docker.sock -X DELETE \
        "http://docker/containers/$what?force=true&v=true" ;;
  esac
done
printf '%s\n' "$list" | while read -r kind what; do
  case $kind:$what in
    folder:*/sereno-testkit-*) rm -rf -- "$what" ;;
  esac
done
"#;

pub(crate) fn process(pid: u32, mark: &str) {
    tell(&format!("process {pid} {mark}"));
}

pub(crate) fn container(id: &str) {
    tell(&format!("container {id}"));
}

pub(crate) fn folder(path: &Path) {
    tell(&format!("folder {}", path.display()));
}

fn tell(line: &str) {
    static REAPER: OnceLock<Mutex<Child>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let mut command = Command::new("sh");
        // Its own process group: an interrupt from the terminal must not end the one who tidies up.
        command.args(["-c", SCRIPT]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Never waited for: it ends after us, by design.
        Mutex::new(crate::engine::spawn(command).expect("a shell must start"))
    });
    let mut reaper = reaper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pipe = reaper.stdin.as_mut().expect("the standard input was asked for");
    writeln!(pipe, "{line}").expect("the reaper must listen");
}
