//! The methods that look at how alike sentences are.

use std::ops::Range;

use crate::model::Vectors;

use super::dp::{self, Gains};
use super::objective::{add, dot, unit_rows};
use super::unit::Units;

/// Units on either side of a gap that are compared, as in TextTiling's blocks.
const BLOCK: usize = 3;

/// TextTiling (Hearst, Computational Linguistics 23(1), 1997) on sentence vectors: cut at the deepest gaps, as many as give
/// the target length on average. Spans may be above the cap.
pub(super) fn tile(units: &Units, vectors: &Vectors, target: usize) -> Vec<Range<usize>> {
    let n = units.len();
    if n == 0 {
        return Vec::new();
    }
    let depths = depths(&similarities(&unit_rows(vectors)));
    let mut gaps: Vec<usize> = (1..n).filter(|&j| !units.glued(j)).collect();
    gaps.sort_by(|&a, &b| depths[b - 1].total_cmp(&depths[a - 1]).then(a.cmp(&b)));
    // A text of nothing but control characters has units of no tokens.
    let pieces = units.tokens(&(0..n)).div_ceil(target);
    gaps.truncate(pieces.saturating_sub(1));
    gaps.sort_unstable();
    let starts = [0].into_iter().chain(gaps.iter().copied());
    let ends = gaps.iter().copied().chain([n]);
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

/// Cosine of the blocks before and behind each gap, from the one before unit 1 to the one before unit N−1.
fn similarities(unit: &Vectors) -> Vec<f32> {
    let n = unit.rows();
    let sum = |range: Range<usize>| {
        let mut sum = vec![0.0; unit.dim];
        range.for_each(|i| add(&mut sum, unit.row(i)));
        sum
    };
    let cosine = |j: usize| {
        let (before, behind) = (sum(j.saturating_sub(BLOCK)..j), sum(j..(j + BLOCK).min(n)));
        let norms = (dot(&before, &before) * dot(&behind, &behind)).sqrt();
        if norms > 0.0 {
            dot(&before, &behind) / norms
        } else {
            0.0
        }
    };
    (1..n).map(cosine).collect()
}

/// How far the similarity of a gap lies below the nearest peaks on both sides.
fn depths(similarities: &[f32]) -> Vec<f32> {
    let before = peaks(similarities.iter());
    let behind = peaks(similarities.iter().rev());
    let peaks = before.iter().zip(behind.iter().rev());
    similarities
        .iter()
        .zip(peaks)
        .map(|(s, (before, behind))| before - s + behind - s)
        .collect()
}

/// The highest similarity that is reached from each one without going down, against the order.
fn peaks<'a>(similarities: impl Iterator<Item = &'a f32>) -> Vec<f32> {
    let mut last = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    let peak = similarities.map(|&s| {
        last = (s, if last.0 >= s { last.1 } else { s });
        last.1
    });
    peak.collect()
}

/// Chroma's ClusterSemanticChunker on sentences: the segmentation into spans of at most `target` tokens with the greatest
/// sum, over the pairs within a span, of their cosine less the document's mean.
pub(super) fn cluster(
    units: &Units,
    vectors: &Vectors,
    target: usize,
    cap: usize,
) -> Vec<Range<usize>> {
    let mut first = units.reach_back(usize::MAX, target);
    for (j, first) in (1..).zip(&mut first) {
        // Headings stay with what follows them, above the target too.
        while units.glued(*first) && units.tokens(&(*first - 1..j)) <= cap {
            *first -= 1;
        }
    }
    let limits = dp::Limits {
        first,
        glued: (0..=units.len()).map(|j| units.glued(j)).collect(),
    };
    dp::segment(&limits, &Alike::new(vectors))
}

struct Alike {
    unit: Vectors,
    mean: f64,
}

impl Alike {
    fn new(vectors: &Vectors) -> Self {
        let unit = unit_rows(vectors);
        let n = unit.rows();
        let mut all = vec![0.0; unit.dim];
        (0..n).for_each(|i| add(&mut all, unit.row(i)));
        let own: f32 = (0..n).map(|i| dot(unit.row(i), unit.row(i))).sum();
        let pairs = n as f64 * (n as f64 - 1.0);
        let mean = (f64::from(dot(&all, &all)) - f64::from(own)) / pairs.max(1.0);
        Self { unit, mean }
    }
}

impl Gains for Alike {
    fn gains(&self, j: usize, row: &mut [f64]) {
        let mut sum = vec![0.0; self.unit.dim];
        let mut gain = 0.0;
        for (k, place) in row.iter_mut().enumerate() {
            let vector = self.unit.row(j - 1 - k);
            gain += f64::from(dot(&sum, vector)) - self.mean * k as f64;
            add(&mut sum, vector);
            *place = gain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(values: &[[f32; 2]]) -> Vectors {
        Vectors {
            dim: 2,
            values: values.concat(),
        }
    }

    #[test]
    fn a_gap_is_as_deep_as_its_valley() {
        let depths = depths(&[0.5, 1.0, 0.25, 0.5, 0.25]);
        assert_eq!(depths, [0.5, 0.0, 1.0, 0.0, 0.25]);
    }

    #[test]
    fn a_spans_gain_is_that_of_its_pairs() {
        let of = vectors(&[[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [-1.0, 1.0]]);
        let (alike, unit) = (Alike::new(&of), unit_rows(&of));
        let cosine = |a: usize, b: usize| f64::from(dot(unit.row(a), unit.row(b)));
        let pairs = |of: Range<usize>| {
            of.clone()
                .flat_map(move |a| (a + 1..of.end).map(move |b| (a, b)))
        };
        let mean = pairs(0..4).map(|(a, b)| cosine(a, b)).sum::<f64>() / 6.0;
        let mut row = [0.0; 4];
        alike.gains(4, &mut row);
        for (k, gain) in row.iter().enumerate() {
            let wanted: f64 = pairs(3 - k..4).map(|(a, b)| cosine(a, b) - mean).sum();
            assert!((gain - wanted).abs() < 1e-6, "{gain} {wanted}");
        }
    }
}
