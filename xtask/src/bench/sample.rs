//! Samples: medians of windows, percentiles of latencies.

/// The value below which `percent` of the samples lie (nearest rank); 0 when there are none.
pub(super) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// The middle sample; the mean of the two middle ones when their number is even; 0 when there are none.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(upper), 0) => f64::midpoint(sorted.get(middle - 1).copied().unwrap_or(*upper), *upper),
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn the_median_ignores_what_is_far_off() {
        assert!(close(median(&[3.0, 1000.0, 1.0]), 3.0));
        assert!(close(median(&[4.0, 1.0, 2.0, 1000.0]), 3.0));
        assert!(close(median(&[]), 0.0));
    }

    #[test]
    fn a_percentile_is_a_sample() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!(close(percentile(&samples, 50), 100.0));
        assert!(close(percentile(&samples, 99), 198.0));
        assert!(close(percentile(&samples, 100), 200.0));
        assert!(close(percentile(&[7.0], 50), 7.0));
    }
}
