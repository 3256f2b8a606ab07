//! Which queries an index takes: those whose score reaches a percentile over the whole corpus.
//!
//! The percentile is exact and takes memory that does not grow with the corpus: two passes of counting, first by the
//! upper and then by the lower half of the score's ordered bits.

/// How far down a query may find its own chunk; beyond, it counts as not found.
pub const ROUND_TRIP: usize = 100;

/// The score of a query that does not find its own chunk.
pub const NOT_FOUND: f32 = f32::NEG_INFINITY;

/// Whether an index takes a query of this score; never one that did not find its chunk, however many did not.
pub fn reaches(score: f32, threshold: Option<f32>) -> bool {
    score > NOT_FOUND && threshold.is_some_and(|lowest| score >= lowest)
}

/// Finds the lowest score among the best `keep` share of all scores.
#[derive(Debug)]
pub struct Threshold {
    keep: f32,
    total: u64,
    counts: Vec<u64>,
    pass: Pass,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pass {
    Upper,
    /// Upper half of the answer's bits, and how many scores lie above all that share it.
    Lower {
        upper: u32,
        above: u64,
    },
    Done(Option<f32>),
}

impl Threshold {
    pub fn new(keep: f32) -> Self {
        Self {
            keep,
            total: 0,
            counts: vec![0; 1 << 16],
            pass: Pass::Upper,
        }
    }

    /// Shows one score. Every pass must be shown the same scores; NaN counts as the lowest.
    pub fn show(&mut self, score: f32) {
        let bits = ordered(score);
        match self.pass {
            Pass::Upper => {
                self.counts[(bits >> 16) as usize] += 1;
                self.total += 1;
            }
            Pass::Lower { upper, .. } if bits >> 16 == upper => {
                self.counts[(bits & 0xffff) as usize] += 1
            }
            _ => {}
        }
    }

    /// Ends a pass. None: show all scores once more. Some: the threshold, itself None if no score is kept.
    pub fn end_pass(&mut self) -> Option<Option<f32>> {
        let wanted = (self.total as f64 * f64::from(self.keep)).round() as u64;
        self.pass = match self.pass {
            Pass::Upper if wanted == 0 => Pass::Done(None),
            Pass::Upper => {
                let (upper, above) = find(&self.counts, wanted);
                self.counts.iter_mut().for_each(|c| *c = 0);
                Pass::Lower { upper, above }
            }
            Pass::Lower { upper, above } => {
                let (lower, _) = find(&self.counts, wanted - above);
                Pass::Done(Some(unordered(upper << 16 | lower)))
            }
            done => done,
        };
        match self.pass {
            Pass::Done(threshold) => Some(threshold),
            _ => None,
        }
    }
}

/// The highest bucket with at least `wanted` scores in or above it, and the number above it.
fn find(counts: &[u64], wanted: u64) -> (u32, u64) {
    let mut above = 0;
    for (bucket, &count) in counts.iter().enumerate().rev() {
        if above + count >= wanted {
            return (bucket as u32, above);
        }
        above += count;
    }
    (0, above)
}

/// Maps a float to an integer of the same order.
fn ordered(score: f32) -> u32 {
    if score.is_nan() {
        return 0;
    }
    let bits = score.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 {
        bits & !(1 << 31)
    } else {
        !bits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_does_not_find_its_chunk_is_never_taken() {
        let mut threshold = Threshold::new(0.75);
        let scores = [NOT_FOUND, -3.0, NOT_FOUND, 0.0];
        let lowest = loop {
            scores.iter().for_each(|score| threshold.show(*score));
            if let Some(lowest) = threshold.end_pass() {
                break lowest;
            }
        };
        let taken = scores.map(|score| reaches(score, lowest));
        assert_eq!(taken, [false, true, false, true]);
    }
    use proptest::prelude::*;

    fn threshold(scores: &[f32], keep: f32) -> Option<f32> {
        let mut threshold = Threshold::new(keep);
        loop {
            scores.iter().for_each(|s| threshold.show(*s));
            if let Some(found) = threshold.end_pass() {
                return found;
            }
        }
    }

    proptest! {
        #[test]
        fn equals_the_sorted_percentile(scores in prop::collection::vec(-30f32..30.0, 1..200), keep in 0f32..=1.0) {
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let wanted = (scores.len() as f64 * f64::from(keep)).round() as usize;
            let expected = wanted.checked_sub(1).map(|last| sorted[last]);
            prop_assert_eq!(threshold(&scores, keep), expected);
        }
    }
}
