//! The dynamic programme against every segmentation there is.

use proptest::prelude::*;

use crate::chunk::dp::{Gains, Limits, segment};
use crate::chunk::objective::Paper;
use crate::model::Vectors;

use super::Range;

/// A small problem: vectors, lengths, glued places, limits.
#[derive(Debug, Clone)]
struct Problem {
    sentences: Vec<Vec<f32>>,
    intents: Vec<Vec<f32>>,
    tokens: Vec<usize>,
    glued: Vec<bool>,
    most: usize,
    cap: usize,
    lambda: f32,
    beta: f32,
}

impl Problem {
    fn allowed(&self, span: &Range<usize>) -> bool {
        let tokens: usize = self.tokens[span.clone()].iter().sum();
        span.len() == 1 || (span.len() <= self.most && tokens <= self.cap)
    }

    fn limits(&self) -> Limits {
        let first = |j: usize| (0..j).find(|&i| self.allowed(&(i..j))).unwrap();
        Limits {
            first: (1..=self.tokens.len()).map(first).collect(),
            glued: self.glued.clone(),
        }
    }

    /// R(C), as the paper writes it: the greatest cosine of the mean with an intent.
    fn relevance(&self, span: &Range<usize>) -> f64 {
        let dim = self.intents[0].len();
        let column = |d: usize| {
            self.sentences[span.clone()]
                .iter()
                .map(|v| f64::from(v[d]))
                .sum::<f64>()
        };
        let mean: Vec<f64> = (0..dim).map(|d| column(d) / span.len() as f64).collect();
        let cosine = |q: &Vec<f32>| {
            let product: f64 = mean.iter().zip(q).map(|(a, &b)| a * f64::from(b)).sum();
            let lengths = mean.iter().map(|a| a * a).sum::<f64>()
                * q.iter().map(|&b| f64::from(b).powi(2)).sum::<f64>();
            product / lengths.sqrt()
        };
        self.intents
            .iter()
            .map(cosine)
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// Σ R(C) − λ Σ |C|² − β (k−1).
    fn value(&self, spans: &[Range<usize>]) -> f64 {
        let relevance: f64 = spans.iter().map(|span| self.relevance(span)).sum();
        let squares: usize = spans.iter().map(|span| span.len() * span.len()).sum();
        relevance
            - f64::from(self.lambda) * squares as f64
            - f64::from(self.beta) * (spans.len() - 1) as f64
    }

    fn violations(&self, spans: &[Range<usize>]) -> usize {
        spans[1..]
            .iter()
            .filter(|span| self.glued[span.start])
            .count()
    }

    /// Fewest violations, then the greatest value, over all 2^(N-1) segmentations.
    fn best(&self) -> (usize, f64) {
        let n = self.tokens.len();
        let segmentations = (0..1u32 << (n - 1)).map(|cuts| {
            let mut ends: Vec<usize> = (1..n).filter(|&j| (cuts >> (j - 1)) & 1 == 1).collect();
            ends.push(n);
            let starts = std::iter::once(0).chain(ends.clone());
            starts
                .zip(ends)
                .map(|(start, end)| start..end)
                .collect::<Vec<_>>()
        });
        let possible = segmentations.filter(|spans| spans.iter().all(|span| self.allowed(span)));
        possible
            .map(|spans| (self.violations(&spans), self.value(&spans)))
            .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
            .unwrap()
    }
}

fn vectors(rows: &[Vec<f32>]) -> Vectors {
    Vectors {
        dim: rows[0].len(),
        values: rows.concat(),
    }
}

fn problem() -> impl Strategy<Value = Problem> {
    (1usize..=12, 1usize..=10, 1usize..=4).prop_flat_map(|(n, dim, intents)| {
        let rows = |n| prop::collection::vec(prop::collection::vec(-1.0f32..1.0, dim), n);
        (
            (rows(n), rows(intents)),
            prop::collection::vec(0usize..10, n),
            prop::collection::vec(prop::bool::weighted(0.25), n + 1),
            (1usize..=12, 1usize..40),
            (0.0f32..0.3, -0.5f32..1.5),
        )
            .prop_map(
                |((sentences, intents), tokens, glued, (most, cap), (lambda, beta))| Problem {
                    sentences,
                    intents,
                    tokens,
                    glued,
                    most,
                    cap,
                    lambda,
                    beta,
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_brute_force(problem in problem()) {
        let (sentences, intents) = (vectors(&problem.sentences), vectors(&problem.intents));
        let gains = Paper::new(&sentences, &intents, problem.lambda, problem.beta);
        let spans = segment(&problem.limits(), &gains);
        prop_assert!(spans.iter().all(|span| problem.allowed(span)));
        prop_assert_eq!(spans[0].start, 0);
        prop_assert_eq!(spans[spans.len() - 1].end, problem.tokens.len());
        prop_assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
        let (violations, value) = problem.best();
        prop_assert_eq!(problem.violations(&spans), violations);
        let found = problem.value(&spans);
        prop_assert!((found - value).abs() < 1e-4, "found {found}, best {value}");
    }
}

/// Every span gains the same.
struct Flat;

impl Gains for Flat {
    fn gains(&self, _: usize, row: &mut [f64]) {
        row.fill(0.0);
    }
}

#[test]
fn equal_sums_give_the_longest_last_spans() {
    let limits = Limits {
        first: vec![0, 0, 0, 1, 2, 3, 4],
        glued: vec![false; 8],
    };
    assert_eq!(segment(&limits, &Flat), [0..1, 1..4, 4..7]);
}

#[test]
fn nothing_has_no_spans() {
    assert!(
        segment(
            &Limits {
                first: Vec::new(),
                glued: vec![false]
            },
            &Flat
        )
        .is_empty()
    );
}

/// Sums over a window do not lose digits in a long document, as differences of prefix sums would.
#[test]
fn the_last_gain_of_a_long_document_is_exact() {
    let n = 20_000;
    let value = |i: usize| ((i * 7919 % 101) as f32 / 50.0) - 1.0 + 0.5;
    let sentences = Vectors {
        dim: 3,
        values: (0..3 * n).map(value).collect(),
    };
    let tail = Vectors {
        dim: 3,
        values: sentences.values[3 * (n - 8)..].to_vec(),
    };
    let intents = Vectors {
        dim: 3,
        values: vec![0.3, -0.2, 0.9, 1.0, 1.0, 1.0],
    };
    let (mut long, mut short) = ([0.0; 7], [0.0; 7]);
    Paper::new(&sentences, &intents, 0.01, 1.0).gains(n, &mut long);
    Paper::new(&tail, &intents, 0.01, 1.0).gains(8, &mut short);
    assert_eq!(long, short);
}

#[test]
fn vectors_without_direction_gain_nothing() {
    let sentences = Vectors {
        dim: 2,
        values: vec![0.0, 0.0, f32::NAN, 1.0, 1.0, 0.0],
    };
    let intents = Vectors {
        dim: 2,
        values: vec![0.0, 0.0],
    };
    let mut row = [f64::NAN; 3];
    Paper::new(&sentences, &intents, 0.0, 0.0).gains(3, &mut row);
    assert_eq!(row, [0.0; 3]);
}
