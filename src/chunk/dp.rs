//! The best segmentation, exactly: f(j) = max over i of f(i) + gain(i, j), in O(N·L) gains.

use std::ops::Range;

use rayon::prelude::*;

/// Ends whose gains are held at once; the table of a document of 100,000 sentences does not have to be.
const ROWS: usize = 8192;

/// What a span adds to the sum that is maximised.
pub trait Gains: Sync {
    /// Writes the gain of the span `j-1-k .. j` to `row[k]`, for every k.
    fn gains(&self, j: usize, row: &mut [f64]);
}

/// Which spans are allowed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `first[j-1]` is the first unit of the longest span that ends before unit `j`, for j from 1 to N; below j, and
    /// never falling. The limits in sentences and in tokens are both in it.
    pub first: Vec<usize>,
    /// `glued[j]` where there should be no boundary before unit `j`.
    pub glued: Vec<bool>,
}

/// The spans that tile units 0 to N with the greatest sum of gains among those with the fewest boundaries at glued
/// places: none, unless the limits leave no other way. Of equal sums, the one whose last span is longest, then the one
/// before it, and so on.
pub fn segment(limits: &Limits, gains: &impl Gains) -> Vec<Range<usize>> {
    let n = limits.first.len();
    let mut best: Vec<Best> = vec![Best {
        glued: 0,
        sum: 0.0,
        start: 0,
    }];
    best.reserve(n);
    for block in (1..=n).step_by(ROWS) {
        let ends = block..(block + ROWS).min(n + 1);
        let rows: Vec<Vec<f64>> = ends
            .clone()
            .into_par_iter()
            .with_min_len(1024)
            .map(|j| {
                let mut row = vec![0.0; j - limits.first[j - 1]];
                gains.gains(j, &mut row);
                row
            })
            .collect();
        for (j, row) in ends.zip(&rows) {
            let here = usize::from(j < n && limits.glued[j]);
            let next = best_start(&best, j, row);
            best.push(Best {
                glued: next.glued + here,
                ..next
            });
        }
    }
    trace(&best)
}

/// The best segmentation of the units before some place.
#[derive(Debug, Clone, Copy)]
struct Best {
    /// Boundaries at glued places.
    glued: usize,
    sum: f64,
    /// Where its last span begins.
    start: usize,
}

fn best_start(best: &[Best], j: usize, row: &[f64]) -> Best {
    let start = |k: usize| {
        let before = best[j - 1 - k];
        Best {
            glued: before.glued,
            sum: before.sum + row[k],
            start: j - 1 - k,
        }
    };
    let better = |a: &Best, b: &Best| a.glued < b.glued || (a.glued == b.glued && a.sum >= b.sum);
    (1..row.len())
        .map(start)
        .fold(start(0), |b, a| if better(&a, &b) { a } else { b })
}

fn trace(best: &[Best]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut end = best.len() - 1;
    while end > 0 {
        let start = best[end].start;
        spans.push(start..end);
        end = start;
    }
    spans.reverse();
    spans
}
