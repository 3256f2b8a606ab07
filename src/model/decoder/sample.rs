//! Drawing a token from logits.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::Sampling;
use intendex_kernels::vector;

/// The generator of continuation `i`: a stream of its own under the request's seed.
pub fn rng(seed: u64, i: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(i as u64);
    rng
}

/// A token drawn from softmax(logits / temperature), restricted to the smallest set of most probable tokens whose
/// probabilities add up to `top_p` (nucleus sampling, arXiv 1904.09751). Temperature 0 takes the most probable token.
///
/// Ties go to the lower id. None if the logits have no finite maximum.
pub fn draw(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> Option<u32> {
    let (best, max) = best(logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best);
    }
    let scale = 1.0 / sampling.temperature;
    let nucleus = match sampling.top_p {
        top_p if top_p >= 1.0 => weigh(logits, (0..logits.len()).collect(), max, scale),
        top_p => nucleus(logits, max, scale, f64::from(top_p.max(0.0))),
    };
    let kept: f64 = nucleus.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let mut left = rng.random::<f64>() * kept;
    for (token, weight) in nucleus {
        left -= f64::from(weight);
        if left < 0.0 {
            return Some(token as u32);
        }
    }
    Some(best)
}

/// The first largest logit and its value; None if it is not finite, or one is NaN.
fn best(logits: &[f32]) -> Option<(u32, f32)> {
    let max = vector::max(logits);
    let best = logits.iter().position(|&logit| logit == max)?;
    max.is_finite().then_some((best as u32, max))
}

/// The most probable tokens with their weights exp((logit − max) · scale), best first, until these reach a share of the
/// weights of all; at least one.
///
/// Only weights above a thousandth of the best are sorted at first: a vocabulary has 150,000 tokens, a nucleus a few.
fn nucleus(logits: &[f32], max: f32, scale: f32, share: f64) -> Vec<(usize, f32)> {
    let mass = share * vector::sum_exp(logits, max, scale);
    let mut order = Vec::new();
    for floor in [max - 1e3f32.ln() / scale, f32::NEG_INFINITY] {
        order = weigh(logits, vector::from(logits, floor), max, scale);
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut reached = 0.0;
        for n in 0..order.len() {
            reached += f64::from(order[n].1);
            if reached >= mass {
                order.truncate(n + 1);
                return order;
            }
        }
    }
    order
}

fn weigh(logits: &[f32], tokens: Vec<usize>, max: f32, scale: f32) -> Vec<(usize, f32)> {
    let mut weights: Vec<f32> = tokens.iter().map(|&token| logits[token]).collect();
    vector::exp_all(&mut weights, max, scale);
    tokens.into_iter().zip(weights).collect()
}

/// log softmax(logits)[token], natural logarithm. None if it is not finite.
pub fn log_probability(logits: &[f32], token: u32) -> Option<f64> {
    let (_, max) = best(logits)?;
    let log =
        f64::from(*logits.get(token as usize)? - max) - vector::sum_exp(logits, max, 1.0).ln();
    log.is_finite().then_some(log)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use rand::Rng;

    use super::*;

    fn sampling(temperature: f32, top_p: f32) -> Sampling {
        Sampling {
            n: 1,
            temperature,
            top_p,
            max_tokens: 1,
            stop: vec![],
            seed: 7,
        }
    }

    #[test]
    fn temperature_zero_takes_the_first_maximum() {
        assert_eq!(
            draw(&[0.0, 2.0, 2.0], &sampling(0.0, 1.0), &mut rng(0, 0)),
            Some(1)
        );
    }

    #[test]
    fn what_is_not_finite_draws_nothing() {
        for bad in [
            &[f32::NAN, 1.0][..],
            &[f32::NEG_INFINITY],
            &[f32::INFINITY],
            &[],
        ] {
            assert_eq!(draw(bad, &sampling(1.0, 0.9), &mut rng(0, 0)), None);
        }
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0, (3f32).ln(), f32::NEG_INFINITY];
        let mut rng = rng(1, 0);
        let ones = (0..4000)
            .filter(|_| draw(&logits, &sampling(1.0, 1.0), &mut rng) == Some(1))
            .count();
        assert!(
            (2850..3150).contains(&ones),
            "{ones} of 4000, expected 3000"
        );
    }

    #[test]
    fn continuations_draw_from_streams_of_their_own() {
        let draws = |i| {
            let mut rng = rng(42, i);
            (0..8).map(|_| rng.random::<u32>()).collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }

    proptest! {
        #[test]
        fn the_nucleus_is_the_smallest_that_reaches_the_mass(
            logits in prop::collection::vec(-9f32..3.0, 1..40),
            top_p in 0.01f64..1.0,
            temperature in 0.2f32..2.0,
        ) {
            let (_, max) = best(&logits).unwrap();
            let weight = |i: usize| f64::from((logits[i] - max) / temperature).exp();
            let mass = top_p * (0..logits.len()).map(weight).sum::<f64>();
            let nucleus: Vec<usize> = nucleus(&logits, max, 1.0 / temperature, top_p).iter().map(|n| n.0).collect();
            let sum = |ids: &[usize]| ids.iter().map(|&i| weight(i)).sum::<f64>();
            prop_assert!(sum(&nucleus) >= mass * (1.0 - 1e-5));
            prop_assert!(sum(&nucleus[..nucleus.len() - 1]) < mass * (1.0 + 1e-5) || nucleus.len() == 1);
            let worst = nucleus.iter().map(|&i| logits[i]).fold(f32::MAX, f32::min);
            prop_assert!((0..logits.len()).all(|i| nucleus.contains(&i) || logits[i] <= worst));
        }

        #[test]
        fn log_probabilities_add_up_to_one(logits in prop::collection::vec(-20f32..20.0, 1..40)) {
            let total: f64 = (0..logits.len()).filter_map(|i| log_probability(&logits, i as u32)).map(f64::exp).sum();
            prop_assert!((total - 1.0).abs() < 1e-5);
        }
    }
}
