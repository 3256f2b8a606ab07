//! Retrieval measures as trec_eval computes them, so that figures compare with published ones.
//!
//! A query's results are ordered by score descending, then by document id descending (bytes), whatever ranks the
//! run states. A query with judgements counts in the mean even when the run has nothing for it or nothing is
//! relevant to it (0); a query without judgements does not count. This is what ir-measures does.

use std::collections::BTreeMap;

/// Judgements: query id → document id → relevance. Relevant means 1 or more.
pub type Qrels = BTreeMap<String, BTreeMap<String, i64>>;

/// A run: query id → (document id, score), in any order.
pub type Run = BTreeMap<String, Vec<(String, f32)>>;

/// The measures of one query, or their means; each from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Measures {
    /// nDCG@10 with the relevance as gain and 1/log2(rank + 1) as discount (`ndcg_cut_10`).
    #[serde(rename = "ndcg@10")]
    pub ndcg_10: f64,
    /// Average precision over all results (`map`).
    #[serde(rename = "ap")]
    pub ap: f64,
    /// Share of the relevant documents among the first 100 (`recall_100`).
    #[serde(rename = "r@100")]
    pub recall_100: f64,
    /// 1 / rank of the first relevant document among the first 10 (`recip_rank`, 0 below 1/10).
    #[serde(rename = "rr@10")]
    pub rr_10: f64,
}

impl Measures {
    /// Names as printed, in the order of [`Measures::values`].
    pub const NAMES: [&'static str; 4] = ["nDCG@10", "MAP", "R@100", "MRR@10"];

    pub fn values(&self) -> [f64; 4] {
        [self.ndcg_10, self.ap, self.recall_100, self.rr_10]
    }

    /// The means over queries; all 0 when there are none.
    pub fn mean<'a>(queries: impl IntoIterator<Item = &'a Measures>) -> Measures {
        let mut sum = [0.0; 4];
        let mut count = 0usize;
        for query in queries {
            sum.iter_mut()
                .zip(query.values())
                .for_each(|(s, v)| *s += v);
            count += 1;
        }
        let [ndcg_10, ap, recall_100, rr_10] = sum.map(|s| s / count.max(1) as f64);
        Measures {
            ndcg_10,
            ap,
            recall_100,
            rr_10,
        }
    }
}

/// The measures of every judged query.
pub fn evaluate(qrels: &Qrels, run: &Run) -> BTreeMap<String, Measures> {
    let measure = |(query, judged): (&String, &BTreeMap<String, i64>)| {
        let found = run.get(query).map_or(&[][..], Vec::as_slice);
        (query.clone(), measure_query(judged, found))
    };
    qrels.iter().map(measure).collect()
}

/// The measures of one query, whose judgements and results these are.
pub fn measure_query(judged: &BTreeMap<String, i64>, found: &[(String, f32)]) -> Measures {
    let mut ideal: Vec<i64> = judged.values().copied().filter(|&r| r > 0).collect();
    if ideal.is_empty() {
        return Measures::default();
    }
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let relevance = in_rank_order(judged, found);
    let relevant = ideal.len() as f64;
    let mut hits = 0;
    let mut precisions = 0.0;
    for (i, _) in relevance.iter().enumerate().filter(|(_, r)| **r > 0) {
        hits += 1;
        precisions += f64::from(hits) / (i + 1) as f64;
    }
    Measures {
        ndcg_10: dcg_10(&relevance) / dcg_10(&ideal),
        ap: precisions / relevant,
        recall_100: relevance.iter().take(100).filter(|r| **r > 0).count() as f64 / relevant,
        rr_10: relevance
            .iter()
            .take(10)
            .position(|r| *r > 0)
            .map_or(0.0, |i| 1.0 / (i + 1) as f64),
    }
}

/// The relevance of each result, best result first; 0 without a judgement.
fn in_rank_order(judged: &BTreeMap<String, i64>, found: &[(String, f32)]) -> Vec<i64> {
    let mut order: Vec<&(String, f32)> = found.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    order
        .iter()
        .map(|(doc, _)| judged.get(doc).copied().unwrap_or(0))
        .collect()
}

/// Discounted gain of the first ten; a negative relevance gains nothing.
fn dcg_10(relevance: &[i64]) -> f64 {
    let gains = relevance.iter().take(10).enumerate();
    gains
        .map(|(i, &r)| r.max(0) as f64 / ((i + 2) as f64).log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(scores: &[f32]) -> Vec<(String, f32)> {
        scores
            .iter()
            .enumerate()
            .map(|(i, &s)| (format!("d{i}"), s))
            .collect()
    }

    proptest! {
        #[test]
        fn measures_lie_between_0_and_1_and_a_perfect_ranking_has_ndcg_1(
            grades in prop::collection::vec(-2i64..4, 1..200),
            scores in prop::collection::vec(-5f32..5.0, 0..200),
        ) {
            let judged: BTreeMap<_, _> = grades.iter().enumerate().map(|(i, &g)| (format!("d{i}"), g)).collect();
            for value in measure_query(&judged, &found(&scores)).values() {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value));
            }
            let perfect: Vec<f32> = grades.iter().map(|&g| g as f32).collect();
            let best = measure_query(&judged, &found(&perfect));
            let expected = if grades.iter().any(|&g| g > 0) { 1.0 } else { 0.0 };
            prop_assert!((best.ndcg_10 - expected).abs() < 1e-12);
            prop_assert!((best.ap - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn ties_rank_the_greater_document_id_first() {
        let judged = BTreeMap::from([("d0".to_string(), 1)]);
        assert_eq!(measure_query(&judged, &found(&[1.0, 1.0])).rr_10, 0.5);
    }
}
