//! How much memory a process has.

use anyhow::Context;

/// Bytes of memory that this process has.
pub(super) fn resident() -> anyhow::Result<u64> {
    read().context("the kernel does not say how much memory a process has")
}

fn read() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
