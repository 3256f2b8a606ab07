//! Some of the queries.

use super::expanded::{Expanded, Scores};
use super::variant::is_dense;
use crate::expand::filter::{Threshold, reaches};

/// Indexes of queries, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    pub queries: Vec<usize>,
    /// Those of them that the dense side takes.
    pub dense: Vec<usize>,
}

impl Selection {
    pub fn of(expanded: &Expanded, wanted: impl Fn(usize) -> bool) -> Self {
        let queries = (0..expanded.queries.len()).filter(|&query| wanted(query));
        let queries: Vec<usize> = queries.collect();
        let dense = queries.iter().copied();
        let dense = dense.filter(|&query| is_dense(&expanded.queries[query].origin));
        Self {
            dense: dense.collect(),
            queries,
        }
    }

    /// The queries of each of `chunks` chunks.
    pub fn by_chunk<'a>(&self, expanded: &'a Expanded) -> Vec<Vec<&'a str>> {
        let mut of_chunks = vec![Vec::new(); expanded.chunks.len()];
        for &query in &self.queries {
            let query = &expanded.queries[query];
            of_chunks[query.chunk].push(query.text.as_str());
        }
        of_chunks
    }
}

/// As an index takes them: those whose score reaches the percentile, and those without one.
pub fn filtered(expanded: &Expanded, scores: &[Option<f32>], share: f32) -> Selection {
    let mut threshold = Threshold::new(share);
    let lowest = loop {
        scores
            .iter()
            .flatten()
            .for_each(|score| threshold.show(*score));
        if let Some(lowest) = threshold.end_pass() {
            break lowest;
        }
    };
    let is_taken = |score| reaches(score, lowest);
    Selection::of(expanded, |query| scores[query].is_none_or(is_taken))
}

/// A number that says nothing, from the id, for every query that has any score: what filters are to be better than.
pub fn random(expanded: &Expanded) -> Scores {
    let any = |query: usize| expanded.scores.iter().any(|s| s.values[query].is_some());
    let number = |id: &str| {
        let hash = blake3::hash(format!("random filter {id}").as_bytes());
        let bytes = hash.as_bytes();
        // As many bits as a float has.
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as f32
    };
    let queries = expanded.queries.iter().enumerate();
    Scores {
        name: "random".to_owned(),
        values: queries
            .map(|(i, q)| any(i).then(|| number(&q.id)))
            .collect(),
    }
}
