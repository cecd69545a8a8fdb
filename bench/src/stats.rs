//! Statistics of few, skewed samples: medians, quantiles, and how sure a median is.
//!
//! Nothing assumes a distribution: load times have long tails, and twenty rounds show no shape.

use std::time::Duration;

/// The share of the time that the true median lies outside of [`median_interval`], at most.
const ALPHA: f64 = 0.05;

/// The middle of the samples, or the mean of the two in the middle; NaN of none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 0) => f64::midpoint(sorted[middle - 1], *upper),
        (Some(value), _) => *value,
    }
}

/// The smallest sample that a share of `q` of all samples does not exceed (nearest rank); NaN of
/// none.
pub(crate) fn quantile(samples: &[f64], q: f64) -> f64 {
    let sorted = sorted(samples);
    // Counted up, not computed by a cast: ranks are small and the comparison is exact enough.
    let total = count(sorted.len());
    let rank = (1..=sorted.len()).find(|rank| count(*rank) >= q * total - 1e-9);
    rank.and_then(|rank| sorted.get(rank - 1)).copied().unwrap_or(f64::NAN)
}

/// The 95 % interval of the median between two order statistics, from the binomial distribution;
/// from smallest to largest where there are fewer than six samples, too few for any such interval.
///
/// Source: Conover, Practical Nonparametric Statistics, §3.2: of `n` samples, fewer than `k` lie
/// below the median with probability P(Bin(n, 1/2) < k), whatever the distribution.
pub(crate) fn median_interval(samples: &[f64]) -> (f64, f64) {
    let sorted = sorted(samples);
    let n = sorted.len();
    let Some(last) = n.checked_sub(1) else { return (f64::NAN, f64::NAN) };
    let (mut term, mut below, mut cut) = (0.5_f64.powf(count(n)), 0.0, 0);
    for k in 0..n / 2 {
        below += term;
        if 2.0 * below > ALPHA {
            break;
        }
        cut = k;
        term *= count(n - k) / count(k + 1);
    }
    (sorted[cut], sorted[last - cut])
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// A count as a number to calculate with; exact up to 2^53.
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upto(n: u32) -> Vec<f64> {
        (1..=n).rev().map(f64::from).collect()
    }

    #[test]
    fn the_median_is_in_the_middle_of_any_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        for (n, q, expected) in [
            (100, 0.5, 50.0),
            (100, 0.99, 99.0),
            (1000, 0.99, 990.0),
            (5, 0.99, 5.0),
            (1, 0.5, 1.0),
        ] {
            assert_eq!(quantile(&upto(n), q), expected, "{q} of {n}");
        }
    }

    #[test]
    fn the_interval_has_the_ranks_of_the_binomial_tables() {
        // n, rank of the lower end: the published tables for the 95 % interval of a median.
        for (n, rank) in [(6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (50, 18)] {
            let expected = (f64::from(rank), f64::from(n + 1 - rank));
            assert_eq!(median_interval(&upto(n)), expected, "{n}");
        }
    }

    #[test]
    fn too_few_samples_give_the_whole_range() {
        assert_eq!(median_interval(&upto(5)), (1.0, 5.0));
        assert_eq!(median_interval(&[7.0]), (7.0, 7.0));
    }
}
