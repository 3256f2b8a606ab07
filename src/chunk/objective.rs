//! What the `intent` method maximises.

use rayon::prelude::*;

use crate::model::Vectors;

use super::dp::Gains;

/// The objective of intent-driven chunking (arXiv 2602.14784): Σ R(C) − λ Σ |C|² − β (k−1), where |C| is in sentences,
/// k is the number of chunks, and R(C) = max_q cos(e(C), e(q)) with e(C) the mean of the chunk's sentence vectors.
///
/// The cosine with a mean is the cosine with the sum, so all spans that end at one place are had by adding sentences one
/// at a time: O(|Q| + D) a span, as with prefix sums, but in O(N·|Q| + D) memory and without their loss of digits over
/// 100,000 sentences.
pub struct Paper<'a> {
    sentences: &'a Vectors,
    /// Row-major, sentences × intents: products with the intents scaled to length 1.
    products: Vec<f32>,
    intents: usize,
    lambda: f64,
    beta: f64,
}

impl<'a> Paper<'a> {
    /// `sentences` and `intents` have the same dimension; neither has to be normalised.
    pub fn new(sentences: &'a Vectors, intents: &Vectors, lambda: f32, beta: f32) -> Self {
        let unit = unit_rows(intents);
        let products = (0..sentences.rows())
            .into_par_iter()
            .with_min_len(4096)
            .flat_map_iter(|i| {
                (0..unit.rows())
                    .map(|q| dot(sentences.row(i), unit.row(q)))
                    .collect::<Vec<_>>()
            })
            .collect();
        Self {
            sentences,
            products,
            intents: unit.rows(),
            lambda: f64::from(lambda),
            beta: f64::from(beta),
        }
    }
}

impl Gains for Paper<'_> {
    fn gains(&self, j: usize, row: &mut [f64]) {
        let mut sum = vec![0.0; self.sentences.dim];
        let mut products = vec![0.0; self.intents];
        for (k, gain) in row.iter_mut().enumerate() {
            let i = j - 1 - k;
            add(&mut sum, self.sentences.row(i));
            add(
                &mut products,
                &self.products[i * self.intents..(i + 1) * self.intents],
            );
            let best = products.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let size = (k + 1) as f64;
            let further = if i > 0 { self.beta } else { 0.0 };
            *gain = cosine(best, &sum) - self.lambda * size * size - further;
        }
    }
}

/// Cosine of a sum of vectors with an intent, from its product with the intent scaled to length 1; 0 where the sum
/// has no direction.
pub(super) fn cosine(product: f32, sum: &[f32]) -> f64 {
    let cosine = f64::from(product) / f64::from(dot(sum, sum)).sqrt();
    if cosine.is_finite() { cosine } else { 0.0 }
}

/// The rows scaled to length 1; one without a direction stays 0.
pub(super) fn unit_rows(vectors: &Vectors) -> Vectors {
    let mut unit = vectors.clone();
    for row in unit.values.chunks_mut(vectors.dim.max(1)) {
        let norm = dot(row, row).sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= scale);
    }
    unit
}

pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
}

/// Eight partial sums, which the compiler can keep in vector registers: it may not reorder a single sum itself.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (a, b) in a.zip(b) {
        let products = a.iter().zip(b).map(|(x, y)| x * y);
        lanes
            .iter_mut()
            .zip(products)
            .for_each(|(lane, x)| *lane += x);
    }
    rest + lanes.iter().sum::<f32>()
}
