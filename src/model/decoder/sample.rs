//! Drawing a token from logits.

use std::cmp::Ordering;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::Sampling;
use intendex_kernels::vector;

/// What a draw on a GPU takes of a row of logits.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's"))]
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// Which row.
    pub output: u32,
    pub temperature: f32,
    pub top_p: f32,
    /// In [0, 1); decides which token of the nucleus it is.
    pub uniform: f64,
}

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

/// The fewest, most probable tokens whose weights exp((logit − max) · scale) reach a share of the weights of all, in the
/// order of their ids; at least one.
///
/// Only weights above a share of the best are looked at, first a thousandth and then less: a vocabulary has 150,000 tokens, a
/// nucleus mostly a few.
fn nucleus(logits: &[f32], max: f32, scale: f32, share: f64) -> Vec<(usize, f32)> {
    let mass = share * vector::sum_exp(logits, max, scale);
    let mut tokens = Vec::new();
    for floor in [1e-3f32, 1e-6, 0.0] {
        let floor = max + floor.ln() / scale;
        tokens = weigh(logits, vector::from(logits, floor), max, scale);
        if let Some(last) = last_of_nucleus(tokens.clone(), mass) {
            tokens.retain(|token| better(token, &last).is_le());
            break;
        }
    }
    tokens
}

/// The least probable token of the smallest set that reaches `mass`; None if all of `tokens` do not.
///
/// Halves are told apart and left as they are, which takes a time linear in the tokens where sorting takes more.
fn last_of_nucleus(mut tokens: Vec<(usize, f32)>, mass: f64) -> Option<(usize, f32)> {
    let sum = |tokens: &[(usize, f32)]| tokens.iter().map(|&(_, w)| f64::from(w)).sum::<f64>();
    let (mut rest, mut reached) = (&mut tokens[..], 0.0);
    while rest.len() > 32 {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half, better);
        let (upper, lower) = rest.split_at_mut(half);
        let with_upper = reached + sum(upper);
        if with_upper >= mass {
            rest = upper;
        } else {
            (rest, reached) = (lower, with_upper);
        }
    }
    rest.sort_unstable_by(better);
    rest.iter().copied().find(|&(_, weight)| {
        reached += f64::from(weight);
        reached >= mass
    })
}

/// The more probable first, of equals the lower id.
fn better(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
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
            logits in prop::collection::vec(-9f32..3.0, 1..400),
            top_p in 0.01f64..1.0,
            temperature in 0.2f32..2.0,
        ) {
            let (_, max) = best(&logits).unwrap();
            let weight = |i: usize| f64::from((logits[i] - max) / temperature).exp();
            let mass = top_p * (0..logits.len()).map(weight).sum::<f64>();
            let nucleus: Vec<usize> = nucleus(&logits, max, 1.0 / temperature, top_p).iter().map(|n| n.0).collect();
            prop_assert!(nucleus.is_sorted());
            let sum = nucleus.iter().map(|&i| weight(i)).sum::<f64>();
            let last = nucleus.iter().map(|&i| weight(i)).fold(f64::MAX, f64::min);
            prop_assert!(sum >= mass * (1.0 - 1e-5));
            prop_assert!(sum - last < mass * (1.0 + 1e-5) || nucleus.len() == 1);
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
