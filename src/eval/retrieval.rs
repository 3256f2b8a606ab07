//! The kinds of retrieval that are measured.

use std::cmp::Ordering;

use crate::search::MIN_DEPTH;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retrieval {
    Sparse,
    Dense,
    Hybrid,
}

impl Retrieval {
    pub const ALL: [Retrieval; 3] = [Retrieval::Sparse, Retrieval::Dense, Retrieval::Hybrid];

    pub fn name(self) -> &'static str {
        match self {
            Retrieval::Sparse => "sparse",
            Retrieval::Dense => "dense",
            Retrieval::Hybrid => "hybrid",
        }
    }
}

/// As many (row, score) as a search takes of one index, best first, of equal scores the earlier row first.
pub fn best(mut scored: Vec<(usize, f32)>) -> Vec<(usize, f32)> {
    let better = |a: &(usize, f32), b: &(usize, f32)| -> Ordering {
        b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
    };
    if scored.len() > MIN_DEPTH {
        scored.select_nth_unstable_by(MIN_DEPTH, better);
        scored.truncate(MIN_DEPTH);
    }
    scored.sort_unstable_by(better);
    scored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_no_more_than_a_search_takes() {
        let score = |row: usize| ((row * 7919) % 500) as f32;
        let scored: Vec<(usize, f32)> = (0..3000).map(|row| (row, score(row))).collect();
        let mut sorted = scored.clone();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(best(scored), sorted[..MIN_DEPTH]);
    }
}
