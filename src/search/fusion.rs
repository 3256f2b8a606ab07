//! How scores of several sources become one ranking.
//!
//! Sparse: a word's occurrences in a chunk's title, text and queries are added up with weights (BM25F, `index/sparse/bm25f.rs`).
//!
//! Dense: text and queries of a chunk are two cosines, t = cos(q, text) and m = max_i cos(q, query_i), and
//!
//! ```text
//! s = t + α · max(0, m − t)
//! ```
//!
//! so that queries can raise a chunk and never lower it. The fewer queries chunks have, the more depends on chance which of
//! them is close to some query, so that by default α grows with their mean number n: α = 0.6 · n / (n + 10).
//!
//! Hybrid: the weighted sum of scores standardised per query and per list (less their mean, by their standard deviation), or of
//! reciprocal ranks. A candidate that one list lacks has that list's least score, and no reciprocal rank from it.
//!
//! Documents: by their best chunk (MaxP).
//!
//! The constants and forms were chosen on the questions of SciFact and SQuAD that no reported figure is of
//! (`jobs/ablation/expansion.md`).

use std::collections::{BTreeMap, HashSet};

/// How the sparse and the dense list become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fusion {
    /// Weighted sum of standardised scores.
    #[default]
    Scores,
    /// Weighted sum of 1/(60 + rank) (Cormack, Clarke, Büttcher, SIGIR 2009).
    ReciprocalRanks,
}

/// The constant of reciprocal rank fusion.
const RANK_OFFSET: f32 = 60.0;

/// The queries' share that `queries_per_chunk` queries on average deserve.
pub fn coverage_weight(queries_per_chunk: f32) -> f32 {
    const MOST: f32 = 0.6;
    const HALF: f32 = 10.0;
    MOST * queries_per_chunk / (queries_per_chunk + HALF)
}

/// The dense score of a chunk from its two cosines; `alpha` is the queries' share.
pub fn dense_score(text: f32, best_query: Option<f32>, alpha: f32) -> f32 {
    let gain = best_query.map_or(0.0, |query| (query - text).max(0.0));
    text + alpha * gain
}

/// Fuses two lists of (id, score), each best first. `dense_weight` is the dense list's share, from 0 to 1. Returns
/// (id, score), best first, of equal scores in the order of the ids.
pub fn fuse<Id: Ord + Clone>(
    sparse: &[(Id, f32)],
    dense: &[(Id, f32)],
    fusion: Fusion,
    dense_weight: f32,
) -> Vec<(Id, f32)> {
    let mut fused: BTreeMap<&Id, f32> = BTreeMap::new();
    for (list, weight) in [(sparse, 1.0 - dense_weight), (dense, dense_weight)] {
        let parts = match fusion {
            Fusion::Scores => above_least(list),
            Fusion::ReciprocalRanks => (1..=list.len())
                .map(|rank| 1.0 / (RANK_OFFSET + rank as f32))
                .collect(),
        };
        for ((id, _), part) in list.iter().zip(parts) {
            *fused.entry(id).or_default() += weight * part;
        }
    }
    let mut fused: Vec<(Id, f32)> = fused
        .into_iter()
        .map(|(id, score)| (id.clone(), score))
        .collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

/// How many standard deviations each score is above the least of the list, which is what a candidate without a score has; all
/// 1 when they are equal.
fn above_least<Id>(list: &[(Id, f32)]) -> Vec<f32> {
    let scores = || list.iter().map(|(_, score)| f64::from(*score));
    let count = list.len() as f64;
    let mean = scores().sum::<f64>() / count;
    let deviation = (scores().map(|s| (s - mean).powi(2)).sum::<f64>() / count).sqrt();
    let least = scores().fold(f64::INFINITY, f64::min);
    // Equal scores may differ by how they are rounded.
    if deviation <= mean.abs() * f64::from(f32::EPSILON) {
        return vec![1.0; list.len()];
    }
    scores()
        .map(|score| ((score - least) / deviation) as f32)
        .collect()
}

/// Keeps the first result of each document: with results best first, its best chunk.
pub fn best_of_each<T>(results: Vec<T>, document: impl Fn(&T) -> &str) -> Vec<T> {
    let mut seen = HashSet::new();
    results
        .into_iter()
        .filter(|result| seen.insert(document(result).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(items: &[(&str, f32)]) -> Vec<(String, f32)> {
        items
            .iter()
            .map(|(id, score)| ((*id).to_owned(), *score))
            .collect()
    }

    #[test]
    fn queries_raise_a_chunk_and_never_lower_it() {
        assert_eq!(dense_score(0.4, Some(0.8), 0.25), 0.5);
        assert_eq!(dense_score(0.4, Some(0.2), 0.25), 0.4);
        assert_eq!(dense_score(0.4, None, 0.25), 0.4);
    }

    #[test]
    fn more_queries_deserve_more_weight() {
        assert_eq!(coverage_weight(0.0), 0.0);
        assert_eq!(coverage_weight(10.0), 0.3);
        assert!(coverage_weight(1e6) < 0.6 && coverage_weight(40.0) > coverage_weight(20.0));
    }

    #[test]
    fn scores_are_standardised_per_list_and_missing_ones_are_the_least() {
        let sparse = list(&[("a", 30.0), ("b", 20.0), ("c", 10.0)]);
        let dense = list(&[("c", 0.9), ("d", 0.8), ("b", 0.7)]);
        let fused = fuse(&sparse, &dense, Fusion::Scores, 0.4);
        assert_eq!(
            fused.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
            ["a", "c", "b", "d"]
        );
        // Three scores one apart have the standard deviation √⅔.
        let expected = [1.2, 0.8, 0.6, 0.4].map(|steps| steps / (2.0f32 / 3.0).sqrt());
        assert!(
            fused
                .iter()
                .zip(expected)
                .all(|((_, score), e)| (score - e).abs() < 1e-5),
            "{fused:?}"
        );
    }

    #[test]
    fn reciprocal_ranks_count_places_only() {
        let fused = fuse(
            &list(&[("a", 9.0), ("b", 8.9)]),
            &list(&[("b", 0.1)]),
            Fusion::ReciprocalRanks,
            0.5,
        );
        assert_eq!(fused[0].0, "b");
        assert!((fused[0].1 - 0.5 * (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-9);
    }

    #[test]
    fn a_document_stands_where_its_best_chunk_stands() {
        let chunks = vec![("x", 3), ("y", 2), ("x", 1)];
        assert_eq!(best_of_each(chunks, |(doc, _)| doc), [("x", 3), ("y", 2)]);
    }

    proptest! {
        /// A constant added to or a positive factor on one list's scores changes nothing.
        #[test]
        fn fusion_ignores_the_scale_of_each_list(
            scores in prop::collection::vec(0u16..1000, 1..30), factor in 1u8..9, shift in 0u8..9,
        ) {
            let named = |f: f32, s: f32| -> Vec<(String, f32)> {
                scores.iter().enumerate().map(|(i, &v)| (format!("{i:02}"), f32::from(v) * f + s)).collect()
            };
            let dense = list(&[("00", 0.5), ("03", 0.2)]);
            let plain = fuse(&named(1.0, 0.0), &dense, Fusion::Scores, 0.5);
            let scaled = fuse(&named(f32::from(factor), f32::from(shift)), &dense, Fusion::Scores, 0.5);
            prop_assert_eq!(plain.len(), scaled.len());
            for (id, score) in &plain {
                let other = scaled.iter().find(|(other, _)| other == id).map(|(_, score)| *score);
                prop_assert!(other.is_some_and(|other| (other - score).abs() < 1e-3));
            }
        }
    }
}
