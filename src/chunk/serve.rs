//! Which chunk answers which intent.

use std::ops::Range;

use crate::model::Vectors;

use super::ServedIntent;
use super::objective::{add, cosine, dot, unit_rows};

/// The intents in order, without empty ones and repetitions.
pub(super) fn distinct(intents: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::new();
    for intent in intents.iter().map(|intent| intent.trim()) {
        if !intent.is_empty() && !distinct.contains(&intent) {
            distinct.push(intent);
        }
    }
    distinct
}

/// Gives every intent to the chunk whose mean sentence vector it is closest to, the first of equals. A list per span,
/// best first, then by text.
pub(super) fn serve(
    spans: &[(Range<usize>, usize)],
    sentences: &Vectors,
    intents: &[&str],
    vectors: &Vectors,
) -> Vec<Vec<ServedIntent>> {
    let unit = unit_rows(vectors);
    let mut closest = vec![(0, f64::NEG_INFINITY); intents.len()];
    for (chunk, (span, _)) in spans.iter().enumerate() {
        let mut sum = vec![0.0; sentences.dim];
        span.clone().for_each(|i| add(&mut sum, sentences.row(i)));
        for (q, closest) in closest.iter_mut().enumerate() {
            let relevance = cosine(dot(&sum, unit.row(q)), &sum);
            if relevance > closest.1 {
                *closest = (chunk, relevance);
            }
        }
    }
    let mut served = vec![Vec::new(); spans.len()];
    for (text, (chunk, relevance)) in intents.iter().zip(closest) {
        served[chunk].push(ServedIntent {
            text: (*text).to_owned(),
            relevance: relevance as f32,
        });
    }
    for list in &mut served {
        list.sort_by(|a, b| {
            b.relevance
                .total_cmp(&a.relevance)
                .then_with(|| a.text.cmp(&b.text))
        });
    }
    served
}
