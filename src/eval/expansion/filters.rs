//! The scores that a job's filters go by, from those that an index has and from its vectors.

use rayon::prelude::*;

use super::embedding::Embedding;
use super::expanded::{Expanded, Scores};
use super::variant::is_dense;
use crate::chunk::objective::dot;
use crate::expand::{
    filter::{NOT_FOUND, ROUND_TRIP},
    scores::combined,
};

/// Leaves out the parts of the gain, which no job filters by, and adds `combined`, `cosine` and `round-trip`.
pub fn complete(expanded: &mut Expanded, embedding: &Embedding) {
    let of = |name: &str| expanded.scores.iter().find(|scores| scores.name == name);
    let both = of("gain").zip(of("relevance")).map(|(gain, relevance)| {
        let both = gain.values.iter().zip(&relevance.values);
        let sum = |(gain, relevance): (&Option<f32>, &Option<f32>)| {
            Some(combined((*gain)?, (*relevance)?))
        };
        both.map(sum).collect()
    });
    let queries = 0..expanded.queries.len();
    let compared: Vec<Option<(f32, f32)>> = queries
        .into_par_iter()
        .map(|query| compare(query, expanded, embedding))
        .collect();
    expanded
        .scores
        .retain(|scores| !scores.name.starts_with("log_p_"));
    let cosines = compared.iter().map(|both| Some((*both)?.0)).collect();
    let places = compared.iter().map(|both| Some((*both)?.1)).collect();
    let named = [
        ("combined", both),
        ("cosine", Some(cosines)),
        ("round-trip", Some(places)),
    ];
    for (name, values) in named {
        let some = |values: &Vec<Option<f32>>| values.iter().any(Option::is_some);
        expanded
            .scores
            .extend(values.filter(some).map(|values| Scores {
                name: name.to_owned(),
                values,
            }));
    }
}

/// The cosine of a query to its own chunk, and how many chunks are closer, negated; None of words.
fn compare(query: usize, expanded: &Expanded, embedding: &Embedding) -> Option<(f32, f32)> {
    let of = &expanded.queries[query];
    if !is_dense(&of.origin) {
        return None;
    }
    let vector = embedding.queries.row(query);
    let cosine = |chunk: usize| dot(embedding.texts.row(chunk), vector);
    let own = cosine(of.chunk);
    let chunks = 0..expanded.chunks.len();
    let closer = chunks.filter(|chunk| *chunk != of.chunk && cosine(*chunk) > own);
    let place = match closer.take(ROUND_TRIP).count() {
        ROUND_TRIP => NOT_FOUND,
        place => -(place as f32),
    };
    Some((own, place))
}

#[cfg(test)]
mod tests {
    use super::super::fake::scored;
    use super::*;
    use crate::model::Vectors;

    #[test]
    fn what_a_job_filters_by_is_there() {
        let mut expanded = scored("gain", &[0.7, 1.4], ("vocabulary", "word"));
        let relevance = Scores {
            name: "relevance".into(),
            values: vec![Some(3.0), None, None],
        };
        let log_p = Scores {
            name: "log_p_chunk".into(),
            values: vec![Some(-1.0), Some(-2.0), None],
        };
        expanded.scores.extend([relevance, log_p]);
        // The first query is closest to its chunk, the second to the other.
        let embedding = Embedding {
            texts: Vectors {
                dim: 2,
                values: vec![1.0, 0.0, 0.0, 1.0],
            },
            queries: Vectors {
                dim: 2,
                values: vec![0.8, 0.6, 0.8, 0.6, 0.0, 0.0],
            },
        };
        complete(&mut expanded, &embedding);
        let scores: Vec<_> = expanded
            .scores
            .iter()
            .map(|s| (s.name.as_str(), s.values.clone()))
            .collect();
        let wanted = [
            ("gain", vec![Some(0.7), Some(1.4), None]),
            ("relevance", vec![Some(3.0), None, None]),
            ("combined", vec![Some(2.0), None, None]),
            ("cosine", vec![Some(0.8), Some(0.6), None]),
            ("round-trip", vec![Some(0.0), Some(-1.0), None]),
        ];
        assert_eq!(scores, wanted);
    }
}
