//! Whether two runs differ by more than chance: the paired randomisation test.
//!
//! Under the null hypothesis the two runs' values of a query could as well be swapped, so the sign of each
//! query's difference is drawn at random; p is the share of draws whose mean difference is at least as large as
//! the one seen (two-sided). It assumes no distribution (Smucker, Allan, Carterette, CIKM 2007).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws of signs; p is exact to about 0.0014 at 0.05.
const DRAWS: u32 = 100_000;

/// Two-sided p for the paired values of two runs, from 1/100,001 to 1. The draws have a fixed seed.
pub fn randomisation_test(first: &[f64], second: &[f64]) -> f64 {
    let differences: Vec<f64> = first
        .iter()
        .zip(second)
        .map(|(a, b)| a - b)
        .filter(|d| *d != 0.0)
        .collect();
    let seen = differences.iter().sum::<f64>().abs();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // Sums of the same numbers in another order differ by rounding alone.
    let least = seen - 1e-9 * seen.max(1e-300);
    let extreme = (0..DRAWS)
        .filter(|_| signed_sum(&differences, &mut rng).abs() >= least)
        .count();
    (extreme + 1) as f64 / f64::from(DRAWS + 1)
}

fn signed_sum(differences: &[f64], rng: &mut ChaCha8Rng) -> f64 {
    let mut sum = 0.0;
    for block in differences.chunks(64) {
        let mut signs: u64 = rng.random();
        for difference in block {
            sum += if signs & 1 == 1 {
                *difference
            } else {
                -difference
            };
            signs >>= 1;
        }
    }
    sum
}

/// Resamples of a confidence interval.
const RESAMPLES: usize = 1000;

/// The 95% percentile bootstrap interval of the mean, with a fixed seed.
pub fn confidence_interval(values: &[f64]) -> (f64, f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let n = values.len().max(1);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = values.iter().map(|_| values[rng.random_range(0..n)]);
            drawn.sum::<f64>() / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_of_few_queries_is_the_exact_share_of_sign_patterns() {
        // Only the two patterns with all signs alike reach a sum of 10 differences of one sign: 2 / 2^10.
        let p = randomisation_test(&[0.5; 10], &[0.4; 10]);
        assert!((p - 2.0 / 1024.0).abs() < 0.0006, "{p}");
        // 3 + 2 − 1 = 4: reached by ±(3, 2, −1) and ±(3, 2, 1), 4 of 8 patterns.
        let p = randomisation_test(&[3.0, 2.0, 0.0], &[0.0, 0.0, 1.0]);
        assert!((p - 0.5).abs() < 0.01, "{p}");
    }

    #[test]
    fn the_interval_of_a_share_is_that_of_the_binomial() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(u8::from(i % 4 == 0))).collect();
        let (low, high) = confidence_interval(&values);
        // 1.96 standard errors of 0.0137.
        assert!(
            (low - 0.2232).abs() < 0.004 && (high - 0.2768).abs() < 0.004,
            "{low} {high}"
        );
        assert_eq!(confidence_interval(&[0.5; 7]), (0.5, 0.5));
    }

    #[test]
    fn equal_runs_do_not_differ() {
        assert_eq!(randomisation_test(&[0.1, 0.2], &[0.1, 0.2]), 1.0);
        assert_eq!(randomisation_test(&[], &[]), 1.0);
    }

    #[test]
    fn the_test_is_symmetric_and_repeatable() {
        let (a, b) = ([0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.4, 0.35]);
        assert_eq!(randomisation_test(&a, &b), randomisation_test(&b, &a));
    }
}
