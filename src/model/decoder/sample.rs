//! Drawing a token from logits.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::Sampling;

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
    let best = argmax(logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best as u32);
    }
    let max = logits[best];
    let weights: Vec<f32> = logits
        .iter()
        .map(|&l| ((l - max) / sampling.temperature).exp())
        .collect();
    let total: f64 = weights.iter().map(|&w| w as f64).sum();
    let mass = total * (sampling.top_p as f64).clamp(0.0, 1.0);
    let nucleus = if sampling.top_p >= 1.0 {
        (0..weights.len()).collect()
    } else {
        nucleus(&weights, mass)
    };
    let kept: f64 = nucleus.iter().map(|&i| weights[i] as f64).sum();
    let mut left = rng.random::<f64>() * kept;
    for &i in &nucleus {
        left -= weights[i] as f64;
        if left < 0.0 {
            return Some(i as u32);
        }
    }
    Some(best as u32)
}

fn argmax(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (i, &l) in logits.iter().enumerate() {
        if l.is_nan() {
            return None;
        }
        if l > logits[best] {
            best = i;
        }
    }
    logits
        .get(best)
        .is_some_and(|l| l.is_finite())
        .then_some(best)
}

/// The most probable tokens, best first, until their weights reach `mass`; at least one.
///
/// Only weights above a thousandth of the best are sorted at first: a vocabulary has 150,000 tokens, a nucleus a few.
fn nucleus(weights: &[f32], mass: f64) -> Vec<usize> {
    for floor in [1e-3, -1.0] {
        let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > floor).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        let mut reached = 0.0;
        for (n, &i) in order.iter().enumerate() {
            reached += weights[i] as f64;
            if reached >= mass {
                order.truncate(n + 1);
                return order;
            }
        }
        if order.len() == weights.len() {
            return order;
        }
    }
    (0..weights.len()).collect()
}

/// log softmax(logits)[token], natural logarithm. None if it is not finite.
pub fn log_probability(logits: &[f32], token: u32) -> Option<f64> {
    let max = logits[argmax(logits)?];
    let total: f64 = logits.iter().map(|&l| (l - max).exp() as f64).sum();
    let log = (*logits.get(token as usize)? - max) as f64 - total.ln();
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
            weights in prop::collection::vec(0f32..1.0, 1..40),
            top_p in 0.01f64..1.0,
        ) {
            let mass = top_p * weights.iter().map(|&w| w as f64).sum::<f64>();
            let nucleus = nucleus(&weights, mass);
            let sum = |ids: &[usize]| ids.iter().map(|&i| weights[i] as f64).sum::<f64>();
            prop_assert!(sum(&nucleus) >= mass - 1e-9);
            prop_assert!(sum(&nucleus[..nucleus.len() - 1]) < mass || nucleus.len() == 1);
            let worst = nucleus.iter().map(|&i| weights[i]).fold(f32::MAX, f32::min);
            prop_assert!((0..weights.len()).all(|i| nucleus.contains(&i) || weights[i] <= worst));
        }

        #[test]
        fn log_probabilities_add_up_to_one(logits in prop::collection::vec(-20f32..20.0, 1..40)) {
            let total: f64 = (0..logits.len()).filter_map(|i| log_probability(&logits, i as u32)).map(f64::exp).sum();
            prop_assert!((total - 1.0).abs() < 1e-5);
        }
    }
}
