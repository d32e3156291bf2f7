//! How much computing a process has done.

use anyhow::Context;

/// Seconds of computing by all threads of this process, its system calls included.
pub(super) fn seconds() -> anyhow::Result<f64> {
    read().context("the kernel does not say how long a process has computed")
}

/// The kernel counts hundredths of a second here, on every machine.
fn read() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes before, in parentheses, and may have spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    #[test]
    fn computing_is_counted() {
        let before = super::seconds().unwrap();
        let begun = Instant::now();
        // However little of it this thread gets.
        while super::seconds().unwrap() < before + 0.05 && begun.elapsed() < Duration::from_secs(60) {
            black_box((0..10_000_u64).fold(1, |sum, number| sum ^ number.wrapping_mul(sum)));
        }
        assert!(super::seconds().unwrap() >= before + 0.05);
    }
}
